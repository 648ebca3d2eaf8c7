// SPDX-License-Identifier: MPL-2.0
//! What is HIP's own of `Device::hip`, over the stand-in for it: no GPU is involved. Devices, streams and collectives in
//! general are the subject of tests/driver.rs and tests/device_collectives.rs, which run once more over it.
//!
//! To be built, these want a library to be linked, which may be one that shows no device: `.ci/run hip` makes it.
#![cfg(all(feature = "hip", target_os = "linux"))]
#![allow(unsafe_code)] // kernels are launched

mod compiler;
mod everything;
mod ranks;
#[path = "standin/mod.rs"]
mod standin;

use std::path::Path;

use annulus::driver::Device;
use annulus::{Error, ReduceOp};

use everything::{everything, joined, maps_and_unmaps, none_is_forgotten};

/// Runs `body` in a process of its own whose HIP is the stand-in, with these variables; `name` is the calling test's.
fn alone(name: &str, variables: &[(&str, &str)], body: impl FnOnce()) {
    let Some(library) = standin::library() else { return };
    alone_with(&library, name, variables, body);
}

/// The same, with the libraries of a folder.
fn alone_with(library: &Path, name: &str, variables: &[(&str, &str)], body: impl FnOnce()) {
    worlds(library, &[0], name, variables, body);
}

/// The same in as many processes as there are ranks, which make a world.
fn worlds(library: &Path, ranks: &[usize], name: &str, variables: &[(&str, &str)], body: impl FnOnce()) {
    let code = standin::bundles(&["gfx90a"]);
    let own = [("LD_LIBRARY_PATH", library.to_str().unwrap()), ("ANNULUS_HIP_CODE", code.to_str().unwrap())];
    let all: Vec<(&str, &str)> = own.into_iter().chain(variables.iter().copied()).collect();
    let ended = ranks::start(ranks, ranks.len(), name, &all, body);
    assert!(ended.iter().all(|rank| rank.status.success()), "{name}, over the stand-in, no GPU: {ended:#?}");
}

/// The sentence of `Unsupported`.
fn unsupported<T: std::fmt::Debug>(result: annulus::Result<T>) -> String {
    match result {
        Err(Error::Unsupported(sentence)) => sentence.to_string(),
        other => panic!("expected Unsupported, got {other:?}"),
    }
}

#[test]
fn devices_are_those_that_hip_shows() {
    let variables = [("STANDIN_DEVICES", "4"), ("HIP_VISIBLE_DEVICES", "3,1"), ("ANNULUS_DEVICE", "hip")];
    alone("devices_are_those_that_hip_shows", &variables, || {
        assert_eq!(Device::hip_count(), Ok(2));
        let [first, second] = [0, 1].map(|index| Device::hip(index).unwrap());
        assert_eq!(Device::hip(1).unwrap(), second);
        let has = first.capabilities();
        assert_eq!((has.warp, has.shared_per_block, has.name.as_str()), (64, 65536, "stand-in, no GPU"));
        // All of these cards have one UUID; where they are tells them apart.
        assert_ne!(has.identity, second.capabilities().identity);
        let taken = [0, 1, 2, 5].map(|rank| Device::auto(rank).unwrap().to_string());
        assert_eq!(taken, [0, 1, 0, 1].map(|index| format!("HIP device {index}")));
        match Device::hip(2) {
            Err(Error::InvalidArgument(why)) => {
                assert!(why.contains("no HIP device 2") && why.contains("HIP_VISIBLE_DEVICES"), "{why}");
            }
            other => panic!("{other:?}"),
        }
    });
}

/// What is taken unasked: NVIDIA's first.
#[cfg(feature = "cuda")]
#[test]
fn of_both_makers_one_is_taken() {
    let name = "of_both_makers_one_is_taken";
    alone(&format!("{name} both"), &[], || {
        assert_eq!(Device::auto(0).unwrap().to_string(), "CUDA device 0");
        // Each platform's devices are their own, though the numbers are the same.
        assert_ne!(Device::cuda(0).unwrap(), Device::hip(0).unwrap());
        assert!(!Device::cuda(0).unwrap().reaches(&Device::hip(0).unwrap()).unwrap());
    });
    let Some(lacks) = standin::library_without("cuGraphUpload") else { return };
    alone_with(&lacks, &format!("{name} one"), &[], || {
        assert_eq!(Device::auto(0).unwrap().to_string(), "HIP device 0");
    });
}

#[test]
fn what_is_not_there_is_a_sentence() {
    let name = "what_is_not_there_is_a_sentence";
    alone(&format!("{name} device"), &[("STANDIN_DEVICES", "0"), ("ANNULUS_DEVICE", "hip")], || {
        for why in [unsupported(Device::hip(0)), unsupported(Device::hip_count()), unsupported(Device::auto(0))] {
            assert!(why.contains("shows no AMD device") && why.contains("/dev/kfd"), "{why}");
        }
    });
    alone(&format!("{name} start"), &[("STANDIN_FAIL", "hipGetDeviceCount=999")], || {
        let why = unsupported(Device::hip(0));
        assert!(why.contains("does not start: hipGetDeviceCount answers hipErrorUnknown (999)"), "{why}");
    });
    // Code for another card, and none.
    let other = standin::bundles(&["gfx1030"]);
    alone(&format!("{name} target"), &[("ANNULUS_HIP_CODE", other.to_str().unwrap())], || {
        let why = unsupported(Device::hip(0));
        assert!(why.contains("hipModuleLoadData answers hipErrorNoBinaryForGpu, of the kernels of"), "{why}");
    });
    alone(&format!("{name} code"), &[("ANNULUS_HIP_CODE", "/there/is/none")], || {
        let why = unsupported(Device::hip(0));
        assert!(why.contains("cannot be read from /there/is/none/"), "{why}");
    });
}

/// The functions whose failure somebody hears of.
const HEARD: &[&str] = &[
    "hipGetDeviceCount",
    "hipDeviceGet",
    "hipDeviceGetName",
    "hipDeviceGetUuid",
    "hipDeviceGetPCIBusId",
    "hipDeviceTotalMem",
    "hipDeviceGetAttribute",
    "hipDeviceCanAccessPeer",
    "hipGetDevice",
    "hipSetDevice",
    "hipDeviceEnablePeerAccess",
    "hipModuleLoadData",
    "hipModuleGetFunction",
    "hipModuleOccupancyMaxActiveBlocksPerMultiprocessor",
    "hipModuleLaunchKernel",
    "hipLaunchHostFunc",
    "hipStreamCreateWithFlags",
    "hipStreamCreateWithPriority",
    "hipStreamSynchronize",
    "hipStreamWaitEvent",
    "hipStreamBeginCapture",
    "hipStreamEndCapture",
    "hipGraphInstantiateWithFlags",
    "hipGraphDestroy",
    "hipGraphLaunch",
    "hipEventCreateWithFlags",
    "hipEventRecord",
    "hipEventQuery",
    "hipEventSynchronize",
    "hipEventElapsedTime",
    "hipExtMallocWithFlags",
    "hipMemPoolCreate",
    "hipMemPoolSetAttribute",
    "hipMallocFromPoolAsync",
    "hipHostMalloc",
    "hipHostGetDevicePointer",
    "hipMemGetAddressRange",
    "hipMemcpyAsync",
    "hipMemcpyPeerAsync",
    "hipMemsetD8Async",
    "hipMemsetD16Async",
    "hipMemsetD32Async",
    "hipIpcGetMemHandle",
];

/// Those whose failure loses something and is nobody's concern.
const UNHEARD: &[&str] = &[
    "hipStreamQuery",
    "hipStreamDestroy",
    "hipEventDestroy",
    "hipGraphExecDestroy",
    "hipFree",
    "hipFreeAsync",
    "hipMemPoolTrimTo",
];

/// Those that are called between processes: `processes_map_each_other`, `what_cannot_be_unmapped_stays`.
const BETWEEN_PROCESSES: &[&str] =
    &["hipIpcOpenMemHandle", "hipIpcCloseMemHandle", "hipHostRegister", "hipHostUnregister"];

/// Those of the list of devices alone: `what_the_list_lacks_is_said`.
const OF_THE_LIST: &[&str] = &["hipMemGetInfo", "hipDriverGetVersion"];

/// It is asked of borrowed streams, which HIP has none of.
const OF_NOBODY: &[&str] = &["hipStreamIsCapturing"];

#[test]
fn each_call_is_made_to_fail_somewhere() {
    let table = include_str!("../src/driver/hip/sys.rs");
    // That it may be missing, `an_older_hip_lacks_functions_of_the_host_alone` shows.
    none_is_forgotten(table, "hip", "hipLaunchHostFunc", &[HEARD, UNHEARD, BETWEEN_PROCESSES, OF_THE_LIST, OF_NOBODY]);
}

#[test]
fn the_error_of_each_call_names_it() {
    let name = "the_error_of_each_call_names_it";
    let devices = ("STANDIN_DEVICES", "2");
    let all_of_it = || everything(Device::hip, |_, _| Ok(()));
    alone(&format!("{name} none"), &[devices], || assert_eq!(all_of_it(), Vec::<String>::new()));
    for function in HEARD {
        let planted = format!("{function}=999");
        alone(&format!("{name} {function}"), &[devices, ("STANDIN_FAIL", &planted)], || {
            let wrong = all_of_it();
            let named = format!("{function} answers hipErrorUnknown");
            assert!(wrong.iter().any(|sentence| sentence.contains(&named)), "{function}: {wrong:#?}");
        });
    }
    for function in UNHEARD {
        let planted = format!("{function}=999");
        alone(&format!("{name} {function}"), &[devices, ("STANDIN_FAIL", &planted)], || {
            assert_eq!(all_of_it(), Vec::<String>::new(), "{function}");
        });
    }
}

/// A function that came late is missing when it is called, and not before.
#[test]
fn an_older_hip_lacks_functions_of_the_host_alone() {
    let Some(lacks) = standin::library_without("hipLaunchHostFunc") else { return };
    alone_with(&lacks, "an_older_hip_lacks_functions_of_the_host_alone", &[("STANDIN_DEVICES", "2")], || {
        let wrong = everything(Device::hip, |_, _| Ok(()));
        assert!(
            wrong.len() == 1 && wrong[0].contains("hipLaunchHostFunc answers this version of HIP has no"),
            "{wrong:?}"
        );
    });
}

/// Processes that share a device, that have one each, and whose devices do not reach each other; by the flag of either
/// version of HIP; and where a function fails on one of them, which another way goes round, or which loses something.
#[test]
fn processes_map_each_other() {
    let Some(library) = standin::library() else { return };
    for (devices, apart, version, fails) in [
        ("1", "", "60443484", ""),
        ("2", "", "50422804", ""),
        ("2", "0-1", "60443484", ""),
        ("1", "", "60443484", "hipIpcGetMemHandle=801"),
        ("1", "", "60443484", "hipIpcOpenMemHandle=801"),
        ("2", "0-1", "60443484", "hipHostUnregister=999"),
    ] {
        let name = format!("processes_map_each_other {devices} {apart} {version} {fails}");
        let variables = [
            ("STANDIN_DEVICES", devices),
            ("STANDIN_UNREACHABLE", apart),
            ("STANDIN_HIP_VERSION", version),
            ("STANDIN_MEMORY", "4096"),
            ("OF_RANK_1", fails),
        ];
        worlds(&library, &[0, 1], &name, &variables, || {
            let comm = joined();
            let device = Device::hip(comm.rank() % Device::hip_count().unwrap()).unwrap();
            let gpus = comm.on(&device).unwrap();
            let stream = device.stream().unwrap();
            for elements in [3, 100_000] {
                let buffer = gpus.allocate::<f32>(elements).unwrap();
                stream.fill(&buffer, comm.rank() as f32 + 1.0).unwrap();
                gpus.all_reduce_in_place(&buffer, ReduceOp::Sum, &stream).unwrap();
                assert_eq!(stream.read(&buffer).unwrap(), vec![3.0; elements]);
            }
            gpus.close().unwrap();
            comm.barrier().unwrap();
        });
    }
}

#[test]
fn what_cannot_be_unmapped_stays() {
    let Some(library) = standin::library() else { return };
    let variables = [("OF_RANK_1", "hipIpcCloseMemHandle=999")];
    worlds(&library, &[0, 1], "what_cannot_be_unmapped_stays", &variables, || maps_and_unmaps(Device::hip));
}

/// Devices that do not reach each other meet in memory that each process pins; where one cannot, all hear of it.
#[test]
fn ranks_that_cannot_share_memory_of_the_host_hear_of_it() {
    let Some(library) = standin::library() else { return };
    let variables = [
        ("STANDIN_MEMORY", "2048"),
        ("STANDIN_DEVICES", "2"),
        ("STANDIN_UNREACHABLE", "0-1"),
        ("OF_RANK_1", "hipHostRegister=801"),
    ];
    worlds(&library, &[0, 1], "ranks_that_cannot_share_memory_of_the_host_hear_of_it", &variables, || {
        let comm = joined();
        let error = comm.on(&Device::hip(comm.rank()).unwrap()).unwrap_err();
        let part = if comm.rank() == 1 { "hipHostRegister" } else { "rank 1 could not" };
        assert!(matches!(&error, Error::System(why) if why.contains(part)), "{error:?}");
        comm.barrier().unwrap();
    });
}

#[cfg(feature = "cli")]
#[test]
fn what_the_list_lacks_is_said() {
    let Some(library) = standin::library() else { return };
    for (function, said) in
        OF_THE_LIST.iter().zip(["free memory of HIP device 0 is not known: ", "HIP's version is not known: "])
    {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_annulus"))
            .arg("devices")
            .env("LD_LIBRARY_PATH", &library)
            .env("STANDIN_FAIL", format!("{function}=999"))
            .output()
            .unwrap();
        let all = String::from_utf8_lossy(&output.stdout);
        assert!(all.contains(&format!("{said}{function} answers hipErrorUnknown")), "{function}: {all}");
    }
}

#[cfg(feature = "cli")]
#[test]
fn the_command_lists_devices() {
    let Some(library) = standin::library() else { return };
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_annulus"))
        .args(["devices", "--json"])
        .env("LD_LIBRARY_PATH", library)
        .env("STANDIN_DEVICES", "2")
        .output()
        .unwrap();
    let machine: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(machine["hip"], "6.4.43484");
    let all = machine["devices"].as_array().unwrap();
    let of_hip: Vec<usize> = (0..all.len()).filter(|at| all[*at]["platform"] == "HIP").collect();
    assert_eq!(of_hip.len(), 2);
    assert_eq!((&all[of_hip[1]]["index"], &all[of_hip[1]]["bus"]), (&1.into(), &"0000:00:01.0".into()));
    // Whatever this machine has where the stand-in says that its cards are.
    let link = machine["links"][of_hip[0]][of_hip[1]].as_str().unwrap();
    assert!(link != "-" && !link.contains("copies only"), "{link}");
    let missing = machine["missing"].to_string();
    assert!(missing.contains("Linux does not say all of HIP device 0"), "{missing}");
    // Nothing joins devices of different makers.
    for other in (0..all.len()).filter(|at| !of_hip.contains(at)) {
        assert_eq!(
            (&machine["links"][other][of_hip[0]], &machine["links"][of_hip[0]][other]),
            (&"-".into(), &"-".into())
        );
    }
}
