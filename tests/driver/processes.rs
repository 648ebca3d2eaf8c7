// SPDX-License-Identifier: MPL-2.0
//! Device memory between processes.

use annulus::driver::{DeviceBuffer, IpcHandle, Shape, Use};
use annulus::{Communicator, Error};
use rustix::process::{Signal, getpid, kill_process};

use super::{absent, arguments, called, eventually, invalid, is_on_cards, is_simulated, open, ranks, values};

/// Passes a name from one rank to all, if it is this rank's.
fn pass(comm: &Communicator, name: Option<IpcHandle>, root: usize) -> IpcHandle {
    let mut bytes = name.map_or([0; IpcHandle::BYTES], |name| name.to_bytes());
    comm.broadcast_in_place(&mut bytes, root).unwrap();
    IpcHandle::from_bytes(&bytes)
}

/// A buffer of this rank's, and the other's.
fn exchange<T: annulus::Element>(comm: &Communicator, own: &DeviceBuffer<T>) -> DeviceBuffer<T> {
    let names = [0, 1].map(|root| pass(comm, (comm.rank() == root).then(|| own.export().unwrap()), root));
    own.device().import(&names[1 - comm.rank()]).unwrap()
}

#[test]
fn memory_of_another_process_is_the_same_memory() {
    if absent() {
        return;
    }
    ranks::processes(2, "processes::memory_of_another_process_is_the_same_memory", |comm| {
        let device = open(0).unwrap();
        let stream = device.stream().unwrap();
        let rank = comm.rank();
        let own = device.allocate_mappable::<f64>(5000).unwrap();
        // A part: the name is of the allocation, and the offset counts.
        let part = own.part(1000..3000).unwrap();
        let other = exchange(&comm, &part);
        assert_eq!(other.len(), 2000);
        stream.write(&other, &values::<f64>(2000, rank)).unwrap();
        stream.synchronize().unwrap();
        comm.barrier().unwrap();
        assert_eq!(stream.read(&part).unwrap(), values::<f64>(2000, 1 - rank));
        assert_eq!(stream.read(&own.part(..1000).unwrap()).unwrap(), [0.0; 1000]);
        assert_eq!(stream.read(&own.part(3000..).unwrap()).unwrap(), [0.0; 2000]);
        assert!(invalid(other.export()).contains("another kind of memory"));

        // Kernels of both processes answer each other.
        let word = device.allocate_mappable::<u32>(1).unwrap();
        let theirs = exchange(&comm, &word);
        let (abort, out) = (device.words(1).unwrap(), device.allocate::<u64>(4).unwrap());
        let side = [word.address(), theirs.address()];
        let argument = arguments::ping([side, side], out.address(), abort.address(), 60_000_000_000, rank as u32, 20);
        let uses = [Use::shares(&word), Use::shares(&theirs), Use::words(&abort), Use::writes(&out)];
        // SAFETY: the argument is the kernel's, and its addresses are of these buffers; words are accessed as atomics.
        unsafe { stream.launch(&device.kernel("probe_ping").unwrap(), Shape::new(1, 32), &argument, &uses) }.unwrap();
        assert_eq!(stream.read(&out).unwrap()[2 * rank], 0, "the other process's kernel did not answer");

        // Nobody frees what the other still maps.
        drop((other, theirs, uses));
        device.close_imports();
        comm.barrier().unwrap();
    });
}

#[test]
fn memory_of_a_device_out_of_reach_is_not_mapped() {
    // What a driver says depends on it.
    if absent() || !is_simulated() {
        return;
    }
    let name = "processes::memory_of_a_device_out_of_reach_is_not_mapped";
    let variables = [("ANNULUS_SIM_DEVICES", "2"), ("ANNULUS_SIM_UNREACHABLE", "0-1")];
    let ended = ranks::start(&[0, 1], 2, name, &variables, || {
        let comm = Communicator::from_env().unwrap();
        let own = open(comm.rank()).unwrap().allocate_mappable::<u8>(10).unwrap();
        let name = pass(&comm, (comm.rank() == 0).then(|| own.export().unwrap()), 0);
        if comm.rank() == 1 {
            let refused = own.device().import::<u8>(&name).unwrap_err().to_string();
            assert!(refused.contains("it is of device 0, which is out of reach"), "{refused}");
            open(0).unwrap().import::<u8>(&name).unwrap();
        }
        comm.barrier().unwrap();
    });
    for rank in ended {
        assert!(rank.status.success(), "{}", rank.output);
    }
}

#[test]
fn names_that_name_nothing_are_refused() {
    if absent() {
        return;
    }
    ranks::processes(2, "processes::names_that_name_nothing_are_refused", |comm| {
        let device = open(0).unwrap();
        let own = device.allocate_mappable::<f32>(100).unwrap();
        let name = pass(&comm, (comm.rank() == 0).then(|| own.export().unwrap()), 0);
        let refused = |name: &IpcHandle| match device.import::<f32>(name) {
            Err(Error::System(why)) => why.to_string(),
            other => panic!("{other:?}"),
        };
        if comm.rank() == 0 {
            let why = refused(&name);
            assert!(
                why.contains(&format!("{}, importing a buffer", called(0))) && why.contains("this very process"),
                "{why}"
            );
        } else {
            assert!(invalid(device.import::<i32>(&name)).contains("of f32, not of i32"));
            // Every damaged byte is noticed, or does not matter. What is in a handle is the driver's own, and no real one is
            // tried with anything but its beginning, or nothing of it.
            let handles = if is_on_cards() { vec![0..64, 32..64] } else { (0..64).map(|at| at..at + 1).collect() };
            for damaged in handles.into_iter().chain((64..IpcHandle::BYTES).map(|at| at..at + 1)) {
                let mut bytes = name.to_bytes();
                match is_on_cards() && damaged.end <= 64 {
                    true => bytes[damaged.clone()].fill(0),
                    false => bytes[damaged.start] ^= 0x10,
                }
                match device.import::<f32>(&IpcHandle::from_bytes(&bytes)) {
                    Err(Error::System(_) | Error::InvalidArgument(_)) => {}
                    // An allocation of CUDA is a page at the least.
                    Ok(buffer) => assert!(buffer.len() <= if !is_simulated() { (2 << 20) / 4 } else { 100 }),
                    Err(other) => panic!("bytes {damaged:?}: {other}"),
                }
            }
            device.import::<f32>(&name).unwrap();
            device.close_imports();
        }
        comm.barrier().unwrap();
        drop(own);
        comm.barrier().unwrap();
        if comm.rank() == 1 {
            let why = refused(&name);
            assert!(
                why.contains("has this memory no more") || (!is_simulated() && why.contains("IpcOpenMemHandle")),
                "{why}"
            );
        }
        comm.barrier().unwrap();
    });
}

/// Whether nothing of a process is left: it may still be there, a zombie, until it is waited for. Its descriptors and
/// mappings are given up before that, by the last of its threads.
fn has_ended(process: i32) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{process}/status")) else { return true };
    let says = |name: &str, value: &str| {
        status.lines().any(|line| line.strip_prefix(name).is_some_and(|said| said.trim_start().starts_with(value)))
    };
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).map_or(0, Iterator::count);
    says("State:", "X") || (says("State:", "Z") && threads <= 1)
}

/// Rank `dying` is killed after both have mapped each other's memory, and the other goes on.
fn survive(name: &str, dying: usize) {
    if absent() {
        return;
    }
    let ended = ranks::start(&[0, 1], 2, name, &[], || {
        let comm = Communicator::from_env().unwrap();
        let device = open(0).unwrap();
        let stream = device.stream().unwrap();
        let own = device.allocate_mappable::<u32>(1000).unwrap();
        let name = pass(&comm, (comm.rank() == 0).then(|| own.export().unwrap()), 0);
        let shared = if comm.rank() == 0 { own } else { device.import(&name).unwrap() };
        stream.fill(&shared.part(500 * comm.rank()..500 * (comm.rank() + 1)).unwrap(), 8).unwrap();
        stream.synchronize().unwrap();
        let mut processes = [0, 0];
        comm.all_gather(&[getpid().as_raw_nonzero().get()], &mut processes).unwrap();
        if comm.rank() == dying {
            kill_process(getpid(), Signal::KILL).unwrap();
        }
        eventually("the other's death", || has_ended(processes[dying]));
        assert_eq!(stream.read(&shared).unwrap(), [8; 1000]);
        stream.fill(&shared, 9).unwrap();
        assert_eq!(stream.read(&shared).unwrap(), [9; 1000]);
        // CUDA maps again what this process has mapped already.
        if comm.rank() == 1 && is_simulated() {
            match device.import::<u32>(&name) {
                Err(Error::System(why)) => assert!(why.contains("the exporter must live"), "{why}"),
                other => panic!("{other:?}"),
            }
        }
    });
    for rank in ended {
        assert_eq!(rank.status.success(), rank.rank != dying, "rank {}: {}", rank.rank, rank.output);
    }
}

#[test]
fn memory_outlives_its_exporter() {
    survive("processes::memory_outlives_its_exporter", 0);
}

#[test]
fn memory_outlives_its_importer() {
    survive("processes::memory_outlives_its_importer", 1);
}
