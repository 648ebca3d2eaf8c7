// SPDX-License-Identifier: MPL-2.0
//! Each function of the driver, made to fail: the error names it, and nothing panics or hangs.

use annulus::driver::{Device, DeviceBuffer, Shape, Stream, Use};
use annulus::{Communicator, Result};

use super::{alone, ranks, standin};

/// Everything that a program does with devices, as far as it gets; what went wrong.
fn everything() -> Vec<String> {
    let mut wrong = Vec::new();
    let mut note = |result: Result<()>| wrong.extend(result.err().map(|error| error.to_string()));
    let devices = [0, 1].map(Device::cuda);
    let [first, second] = match devices {
        [Ok(first), Ok(second)] => [first, second],
        [first, second] => {
            note(first.map(drop));
            note(second.map(drop));
            return wrong;
        }
    };
    note(first.reaches(&second).map(drop));
    note(first.enable_peer(&second));
    note(first.words(4).map(drop));
    note(first.words(1 << 20).map(drop));
    let buffers = first.allocate::<u32>(100).and_then(|local| {
        let mappable = first.allocate_mappable::<u32>(100)?;
        Ok((local, mappable, second.allocate_mappable::<u32>(100)?))
    });
    let streams = first.stream().and_then(|stream| Ok((stream, second.stream()?)));
    let events = first.event().and_then(|event| Ok((event, first.event()?)));
    match (buffers, streams, events) {
        (Ok(buffers), Ok(streams), Ok(events)) => {
            let (local, mappable, far) = &buffers;
            let (stream, other) = &streams;
            note(stream.record(&events.0));
            note(stream.write(local, &[1; 100]));
            note(stream.copy(local, mappable));
            note(stream.copy(local, far));
            note(other.copy(far, local));
            note(stream.fill(local, 2));
            note(stream.fill(&local.as_bytes(), 2));
            for widths in [
                first.allocate::<u16>(3).and_then(|two| stream.fill(&two, 1)),
                first.allocate::<u64>(3).and_then(|eight| stream.fill(&eight, 1)),
            ] {
                note(widths);
            }
            note(launch(&first, stream, local, Shape::new(1, 32)));
            note(launch(&first, stream, local, Shape::new(1, 32).together()));
            note(stream.call(|| {}));
            note(stream.capture(|stream| stream.fill(local, 3)).and_then(|graph| graph.launch(stream)));
            note(stream.record(&events.1));
            note(other.wait(&events.1));
            note(events.1.synchronize());
            note(events.1.has_passed().map(drop));
            note(events.1.since(&events.0).map(drop));
            note(mappable.export().map(drop));
            // SAFETY: the memory lives as long as `mappable`.
            note(unsafe { DeviceBuffer::<u32>::from_raw(&first, mappable.address(), 10) }.map(drop));
            note(stream.read(local).map(drop));
            note(other.synchronize());
        }
        (buffers, streams, events) => {
            note(buffers.map(drop));
            note(streams.map(drop));
            note(events.map(drop));
        }
    }
    note(first.allocate::<u8>(1).map(drop));
    wrong
}

fn launch(device: &Device, stream: &Stream, words: &DeviceBuffer<u32>, shape: Shape) -> Result<()> {
    let mut argument = [0; 24];
    argument[..8].copy_from_slice(&words.address().to_ne_bytes());
    argument[8..16].copy_from_slice(&(words.address() + 4).to_ne_bytes());
    argument[16] = 1;
    // SAFETY: the argument is the kernel's: an epoch, where it is kept, and how long that is.
    unsafe { stream.launch(&device.kernel("probe_advance")?, shape, &argument, &[Use::writes(words)]) }
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
    "cuMemAllocAsync",
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
];

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

/// A handle that cannot be opened, on one rank, is an error on all ranks, and so is memory that cannot be exported.
#[test]
fn ranks_that_cannot_map_each_other_hear_of_it() {
    let Some(library) = standin::library() else { return };
    // Devices that do not reach each other meet in memory that each process pins.
    let functions = [
        ("cuIpcOpenMemHandle_v2", "importing", ""),
        ("cuIpcGetMemHandle", "exporting", ""),
        ("cuMemHostRegister_v2", "allocating", "0-1"),
    ];
    for (function, own, pairs) in functions {
        let name = format!("faults::ranks_that_cannot_map_each_other_hear_of_it {function}");
        let planted = format!("{function}=801");
        let variables = [
            ("LD_LIBRARY_PATH", library.to_str().unwrap()),
            ("STANDIN_MEMORY", "2048"),
            ("STANDIN_DEVICES", "2"),
            ("STANDIN_UNREACHABLE", pairs),
        ];
        let ended = ranks::start(&[0, 1], 2, &name, &variables, || {
            if std::env::var("RANK").unwrap() == "1" {
                // SAFETY: this process has no other thread that reads the environment yet.
                unsafe { std::env::set_var("STANDIN_FAIL", &planted) };
            }
            let comm = Communicator::from_env().unwrap();
            let why = comm
                .on(&Device::cuda(if pairs.is_empty() { 0 } else { comm.rank() }).unwrap())
                .unwrap_err()
                .to_string();
            if comm.rank() == 1 {
                assert!(why.contains(function) && why.contains(own) && why.contains("(801)"), "{why}");
            } else {
                assert!(why.contains("rank 1 could not"), "{why}");
            }
            comm.barrier().unwrap();
        });
        for rank in ended {
            assert!(rank.status.success(), "rank {}: {}", rank.rank, rank.output);
        }
    }
}
