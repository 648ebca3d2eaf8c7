// SPDX-License-Identifier: MPL-2.0
//! What is CUDA's own of `Device::cuda`, over the stand-in for its driver: no GPU is involved. That devices, streams,
//! kernels and collectives work there as on simulated devices is the subject of tests/driver.rs and
//! tests/device_collectives.rs, which run a second time over the stand-in.
#![cfg(all(feature = "cuda", target_os = "linux"))]
#![allow(unsafe_code)] // kernels are launched, and raw memory is borrowed

#[path = "cuda/borrowed.rs"]
mod borrowed;
mod compiler;
mod everything;
#[path = "cuda/faults.rs"]
mod faults;
#[path = "cuda/memory.rs"]
mod memory;
mod ranks;
#[path = "cuda/reach.rs"]
mod reach;
#[path = "standin/mod.rs"]
mod standin;

use std::path::Path;

use annulus::Error;
use annulus::driver::Device;

/// Runs `body` in a process of its own whose driver is the stand-in, with these variables; `name` is the calling test's.
fn alone(name: &str, variables: &[(&str, &str)], body: impl FnOnce()) {
    let Some(library) = standin::library() else { return };
    alone_with(&library, name, variables, body);
}

/// The same, with the libraries of a folder.
fn alone_with(library: &Path, name: &str, variables: &[(&str, &str)], body: impl FnOnce()) {
    // Beside the stand-in lies the one for HIP, whose devices `auto` could take.
    let path = [
        ("LD_LIBRARY_PATH", library.to_str().unwrap()),
        ("ANNULUS_DEVICE", "cuda"),
        ("CUDA_DEVICE_MAX_CONNECTIONS", "32"),
        ("STANDIN_LENT", "1"),
    ];
    let all: Vec<(&str, &str)> = path.into_iter().chain(variables.iter().copied()).collect();
    for ended in ranks::start(&[0], 1, name, &all, body) {
        assert!(ended.status.success(), "over the stand-in, no GPU: {}\n{}", ended.status, ended.output);
    }
}

/// The sentence of `Unsupported`.
fn unsupported<T: std::fmt::Debug>(result: annulus::Result<T>) -> String {
    match result {
        Err(Error::Unsupported(sentence)) => sentence.to_string(),
        other => panic!("expected Unsupported, got {other:?}"),
    }
}

fn invalid<T: std::fmt::Debug>(result: annulus::Result<T>) -> String {
    match result {
        Err(Error::InvalidArgument(sentence)) => sentence.to_string(),
        other => panic!("expected InvalidArgument, got {other:?}"),
    }
}

#[test]
fn devices_are_those_that_the_driver_shows() {
    let variables = [("STANDIN_DEVICES", "4"), ("CUDA_VISIBLE_DEVICES", "3,1"), ("ANNULUS_DEVICE", "cuda")];
    alone("devices_are_those_that_the_driver_shows", &variables, || {
        assert_eq!(Device::cuda_count(), Ok(2));
        let cards = [0, 1].map(|index| Device::cuda(index).unwrap().capabilities().identity[15]);
        assert_eq!(cards, [3, 1]);
        assert_eq!(Device::cuda(1).unwrap(), Device::cuda(1).unwrap());
        assert_eq!(
            [0, 1, 2, 5].map(|rank| Device::auto(rank).unwrap().to_string()[12..].to_owned()),
            ["0", "1", "0", "1"]
        );
        let why = invalid(Device::cuda(2));
        assert!(
            why.contains("no CUDA device 2") && why.contains("shows 2") && why.contains("CUDA_VISIBLE_DEVICES"),
            "{why}"
        );
    });
}

/// Processes that see the same card under different numbers share it; those that see others' do not.
#[test]
fn ranks_know_which_card_is_whose() {
    let Some(library) = standin::library() else { return };
    for (visible, shared) in [(["1,0", "0", "0,1"], true), (["0", "1", "2"], false)] {
        let name = format!("ranks_know_which_card_is_whose {shared}");
        let path = ("LD_LIBRARY_PATH", library.to_str().unwrap());
        let variables = [path, ("STANDIN_DEVICES", "3"), ("STANDIN_MEMORY", "4096")];
        let ended = ranks::start(&[0, 1, 2], 3, &name, &variables, || {
            let rank: usize = std::env::var("RANK").unwrap().parse().unwrap();
            // SAFETY: this process has no other thread that reads the environment yet.
            unsafe { std::env::set_var("CUDA_VISIBLE_DEVICES", visible[rank]) };
            let comm = annulus::Communicator::from_env().unwrap();
            let device = Device::cuda(if shared && rank == 2 { 1 } else { 0 }).unwrap();
            let gpus = comm.on(&device).unwrap();
            let stream = device.stream().unwrap();
            let buffer = gpus.allocate::<f32>(1000).unwrap();
            stream.fill(&buffer, rank as f32).unwrap();
            gpus.all_reduce_in_place(&buffer, annulus::ReduceOp::Sum, &stream).unwrap();
            assert_eq!(stream.read(&buffer).unwrap(), [3.0; 1000]);
            comm.barrier().unwrap();
        });
        for rank in ended {
            assert!(rank.status.success(), "rank {}: {}", rank.rank, rank.output);
        }
    }
}

#[test]
fn what_is_not_there_is_a_sentence() {
    let Some(library) = standin::library() else { return };
    let name = "what_is_not_there_is_a_sentence";
    let both = |part: &str| {
        for why in [unsupported(Device::cuda(0)), unsupported(Device::cuda_count())] {
            assert!(why.contains(part), "{why}");
        }
        let auto = unsupported(Device::auto(0));
        assert!(auto.contains(part) && auto.contains("ANNULUS_DEVICE=sim"), "{auto}");
    };
    alone(&format!("{name} device"), &[("STANDIN_DEVICES", "0")], || both("shows no device"));
    alone(&format!("{name} version"), &[("STANDIN_VERSION", "11080")], || both("is for CUDA 11.8"));
    alone(&format!("{name} start"), &[("STANDIN_FAIL", "cuInit=999")], || both("cuInit answers CUDA_ERROR_UNKNOWN"));
    // Functions are looked up together, whether they are called or not.
    for symbol in ["cuGraphUpload", "cuPointerGetAttribute"] {
        let lacks = standin::library_without(symbol).unwrap();
        alone_with(&lacks, &format!("{name} {symbol}"), &[], || both(&format!("no function {symbol}")));
    }
    // Of this one there is a way round.
    let lacks = standin::library_without("cuFuncLoad").unwrap();
    alone_with(&lacks, &format!("{name} cuFuncLoad"), &[], || assert!(Device::cuda(0).is_ok()));
    alone_with(library.parent().unwrap(), &format!("{name} library"), &[], || match Device::cuda(0) {
        Err(Error::Unsupported(why)) => assert!(why.contains("looked for libcuda.so.1 and libcuda.so"), "{why}"),
        // This machine has a driver.
        other => drop(other.unwrap()),
    });
}

#[test]
fn ranks_whose_streams_would_take_turns_are_refused() {
    let joins = |ranks| annulus::run(ranks, |comm| comm.on(&Device::cuda(0)?).map(drop)).map_err(|f| f.to_string());
    let name = "ranks_whose_streams_would_take_turns_are_refused";
    alone(name, &[("STANDIN_MEMORY", "2048"), ("CUDA_DEVICE_MAX_CONNECTIONS", "8")], || {
        joins(2).unwrap();
        let refused = joins(3).unwrap_err();
        let parts = ["3 ranks of one process share", "8 of their streams", "set CUDA_DEVICE_MAX_CONNECTIONS=32"];
        assert!(parts.iter().all(|part| refused.contains(part)), "{refused}");
    });
    let enough = [("STANDIN_MEMORY", "2048"), ("CUDA_DEVICE_MAX_CONNECTIONS", "12")];
    alone(&format!("{name} enough"), &enough, || joins(3).map(drop).unwrap());
    alone(&format!("{name} blocking"), &[("CUDA_LAUNCH_BLOCKING", "1")], || {
        let refused = joins(2).unwrap_err();
        assert!(refused.contains("CUDA_LAUNCH_BLOCKING") && refused.contains("unset it"), "{refused}");
    });
}

#[test]
fn ranks_whose_streams_take_turns_are_told_what_may_help() {
    for connections in ["8", "32"] {
        let variables =
            [("STANDIN_ORDER", "1"), ("STANDIN_MEMORY", "2048"), ("CUDA_DEVICE_MAX_CONNECTIONS", connections)];
        alone("ranks_whose_streams_take_turns_are_told_what_may_help", &variables, || {
            let failure = annulus::run(2, |comm| {
                comm.set_timeout(std::time::Duration::from_secs(1));
                comm.on(&Device::cuda(0)?).map(drop)
            });
            let failure = failure.unwrap_err().to_string();
            let is_told = std::env::var("CUDA_DEVICE_MAX_CONNECTIONS").unwrap() == "8";
            assert!(failure.contains("testing device memory"), "{failure}");
            assert_eq!(failure.contains("set CUDA_DEVICE_MAX_CONNECTIONS=32"), is_told, "{failure}");
        });
    }
}
