// SPDX-License-Identifier: MPL-2.0
//! Each function of the driver, made to fail: the error names it, and nothing panics or hangs.

use std::ptr;

use annulus::Error;
use annulus::driver::{Device, DeviceBuffer, Stream};

use super::everything::{everything as all_of_it, joined, none_is_forgotten};
use super::{alone, ranks, standin};

/// What goes wrong in everything that a program does, with memory that somebody else allocated too.
fn everything() -> Vec<String> {
    all_of_it(Device::cuda, |device, mappable| {
        // SAFETY: the memory lives as long as `mappable`, and the stream that everybody has for ever.
        let (raw, theirs) = unsafe {
            (DeviceBuffer::<u32>::from_raw(device, mappable.address(), 10)?, Stream::from_raw(device, ptr::null_mut())?)
        };
        theirs.fill(&raw, 1)
    })
}

/// The functions whose failure somebody hears of.
const HEARD: &[&str] = &[
    "cuInit",
    "cuDriverGetVersion",
    "cuDeviceGetCount",
    "cuDeviceGet",
    "cuDeviceGetName",
    "cuDeviceGetUuid_v2",
    "cuDeviceTotalMem_v2",
    "cuDeviceGetAttribute",
    "cuDeviceCanAccessPeer",
    "cuDevicePrimaryCtxRetain",
    "cuCtxPushCurrent_v2",
    "cuCtxEnablePeerAccess",
    "cuModuleLoadData",
    "cuModuleGetFunction",
    "cuFuncLoad",
    "cuFuncGetAttribute",
    "cuFuncSetAttribute",
    "cuOccupancyMaxActiveBlocksPerMultiprocessor",
    "cuLaunchKernel",
    "cuLaunchHostFunc",
    "cuStreamCreate",
    "cuStreamCreateWithPriority",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
    "cuStreamBeginCapture_v2",
    "cuStreamEndCapture",
    "cuGraphInstantiateWithFlags",
    "cuGraphUpload",
    "cuGraphDestroy",
    "cuGraphLaunch",
    "cuEventCreate",
    "cuEventRecord",
    "cuEventQuery",
    "cuEventSynchronize",
    "cuEventElapsedTime",
    "cuMemAlloc_v2",
    "cuMemPoolCreate",
    "cuMemPoolSetAttribute",
    "cuMemAllocFromPoolAsync",
    "cuMemHostAlloc",
    "cuMemHostGetDevicePointer_v2",
    "cuMemGetAddressRange_v2",
    "cuPointerGetAttribute",
    "cuMemcpyAsync",
    "cuMemcpyPeerAsync",
    "cuMemsetD8Async",
    "cuMemsetD16Async",
    "cuMemsetD32Async",
    "cuIpcGetMemHandle",
    "cuStreamIsCapturing",
    "cuThreadExchangeStreamCaptureMode",
];

/// Those whose failure loses something and is nobody's concern.
const UNHEARD: &[&str] = &[
    "cuCtxPopCurrent_v2",
    "cuStreamQuery",
    "cuStreamDestroy_v2",
    "cuEventDestroy_v2",
    "cuGraphExecDestroy",
    "cuMemFree_v2",
    "cuMemFreeAsync",
    "cuMemPoolTrimTo",
];

/// Those that are called between processes: `ranks_that_cannot_share_memory_of_the_host_hear_of_it`, and
/// `reach::processes_meet_whatever_they_see` and `reach::what_cannot_be_unmapped_stays`.
const BETWEEN_PROCESSES: &[&str] =
    &["cuIpcOpenMemHandle_v2", "cuIpcCloseMemHandle", "cuMemHostRegister_v2", "cuMemHostUnregister"];

/// Those of the list of devices alone: `what_the_list_lacks_is_said`.
const OF_THE_LIST: &[&str] = &["cuDeviceGetPCIBusId", "cuMemGetInfo_v2", "cuDevicePrimaryCtxRelease_v2"];

/// Those of `annulus doctor` alone, each of whose answers says what failed: tests/doctor.rs.
const OF_THE_DOCTOR: &[&str] = &[
    "cuCtxSetCurrent",
    "cuCtxSynchronize",
    "cuGraphGetNodes",
    "cuLaunchCooperativeKernel",
    "cuMemAllocAsync",
    "cuMemFreeHost",
    "cuMemcpyDtoDAsync_v2",
    "cuMemcpyDtoH_v2",
    "cuMemcpyHtoD_v2",
    "cuModuleGetLoadingMode",
    "cuModuleUnload",
    "cuStreamWaitValue32_v2",
    "cuStreamWriteValue32_v2",
];

#[test]
fn each_call_is_made_to_fail_somewhere() {
    let table = include_str!("../../src/driver/cuda/library.rs");
    // That it may be missing, `what_is_not_there_is_a_sentence` shows.
    none_is_forgotten(table, "cu", "cuFuncLoad", &[HEARD, UNHEARD, BETWEEN_PROCESSES, OF_THE_LIST, OF_THE_DOCTOR]);
}

#[cfg(feature = "cli")]
#[test]
fn what_the_list_lacks_is_said() {
    let Some(library) = standin::library() else { return };
    for function in OF_THE_LIST {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_annulus"))
            .arg("devices")
            .env("LD_LIBRARY_PATH", &library)
            .env("STANDIN_FAIL", format!("{function}=999"))
            .env("STANDIN_MANAGEMENT_LACKS", "nvmlInit_v2")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(&format!("{function} answers CUDA_ERROR_UNKNOWN")), "{function}: {said}");
    }
}

#[test]
fn the_error_of_each_call_names_it() {
    let name = "faults::the_error_of_each_call_names_it";
    let devices = ("STANDIN_DEVICES", "2");
    alone(&format!("{name} none"), &[devices], || assert_eq!(everything(), Vec::<String>::new()));
    for function in HEARD {
        let planted = format!("{function}=999");
        alone(&format!("{name} {function}"), &[devices, ("STANDIN_FAIL", &planted)], || {
            let wrong = everything();
            let named = format!("{function} answers CUDA_ERROR_UNKNOWN");
            assert!(wrong.iter().any(|sentence| sentence.contains(&named)), "{function}: {wrong:#?}");
        });
    }
    for function in UNHEARD {
        let planted = format!("{function}=999");
        alone(&format!("{name} {function}"), &[devices, ("STANDIN_FAIL", &planted)], || {
            let wrong = everything();
            assert_eq!(wrong, Vec::<String>::new(), "{function}");
        });
    }
}

/// Devices that do not reach each other meet in memory that each process pins; where one cannot, all hear of it.
#[test]
fn ranks_that_cannot_share_memory_of_the_host_hear_of_it() {
    let Some(library) = standin::library() else { return };
    let name = "faults::ranks_that_cannot_share_memory_of_the_host_hear_of_it";
    let variables = [
        ("LD_LIBRARY_PATH", library.to_str().unwrap()),
        ("STANDIN_MEMORY", "2048"),
        ("STANDIN_DEVICES", "2"),
        ("STANDIN_UNREACHABLE", "0-1"),
        ("OF_RANK_1", "cuMemHostRegister_v2=801"),
    ];
    let ended = ranks::start(&[0, 1], 2, name, &variables, || {
        let comm = joined();
        let error = comm.on(&Device::cuda(comm.rank()).unwrap()).unwrap_err();
        assert!(matches!(error, Error::System(_)), "{error:?}");
        let why = error.to_string();
        if comm.rank() == 1 {
            let parts = ["cuMemHostRegister_v2", "allocating", "(801)"];
            assert!(parts.iter().all(|part| why.contains(part)), "{why}");
        } else {
            assert!(why.contains("rank 1 could not"), "{why}");
        }
        comm.barrier().unwrap();
    });
    for rank in ended {
        assert!(rank.status.success(), "rank {}: {}", rank.rank, rank.output);
    }
}
