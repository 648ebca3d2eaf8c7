// SPDX-License-Identifier: MPL-2.0
//! What is held, and given up: communicators that are closed, buffers that are deregistered.

use std::time::Duration;

use annulus::communicator::Question;
use annulus::kernel::Arena;
use annulus::schedule::Collective;
use annulus::{Communicator, DataType, DeviceCommunicator, Error, ReduceOp, run};

use super::{absent, block, is_simulated, on, ranks, threads};

/// How many mappings of device memory of that many bytes this process has; of simulated devices, since of others memory
/// that is given up is unmapped when the device is idle.
fn mapped(bytes: usize) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let is = |line: &&str| {
        let (begin, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [begin, end] = [begin, end].map(|address| usize::from_str_radix(address, 16).unwrap());
        end - begin == bytes.next_multiple_of(4096) && line.contains("/memfd:")
    };
    maps.lines().filter(is).count()
}

/// How often a process maps what each of `ranks` ranks has one of: as often as there are ranks, of threads and of
/// processes alike.
fn arenas(ranks: usize) -> usize {
    mapped(Arena::new(ranks, DeviceCommunicator::LOW_LATENCY, 16 << 20).bytes as usize)
}

/// Runs `body` on three processes, and on three threads of a process that has no other device memory.
fn alone(name: &str, body: impl Fn(Communicator) + Sync) {
    ranks::processes(3, name, &body);
    let of_threads = || {
        run(3, |comm| {
            body(comm);
            Ok(())
        })
        .unwrap();
    };
    for process in ranks::start(&[0], 1, name, &[], of_threads) {
        assert!(process.status.success(), "{}", process.output);
    }
}

#[test]
fn a_closed_communicator_leaves_nothing_mapped() {
    if absent() || !is_simulated() {
        return;
    }
    alone("life::a_closed_communicator_leaves_nothing_mapped", |comm| {
        let (gpus, stream) = on(&comm);
        comm.barrier().unwrap();
        assert_eq!(arenas(3), 3);
        let buffer = gpus.allocate::<f32>(5000).unwrap();
        stream.fill(&buffer, 1.0).unwrap();
        // A call that runs while all close; nobody has waited for it.
        let open = block(&stream);
        gpus.all_reduce_in_place(&buffer, ReduceOp::Sum, &stream).unwrap();
        let opener = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            drop(open);
        });
        gpus.close().unwrap();
        // The stream is still there, and has been told to let go; of threads, others' may not have left yet.
        comm.barrier().unwrap();
        assert_eq!(arenas(3), 0);
        opener.join().unwrap();
        // The buffer is its owner's, and the call has been done.
        assert_eq!(stream.read(&buffer).unwrap(), [3.0; 5000]);
        comm.barrier().unwrap();
        // The host's communicator stays usable, also for further ones.
        on(&comm).0.close().unwrap();
    });
}

#[test]
fn a_dropped_communicator_leaves_nothing_mapped_once_its_calls_are_done() {
    if absent() || !is_simulated() {
        return;
    }
    alone("life::a_dropped_communicator_leaves_nothing_mapped_once_its_calls_are_done", |comm| {
        for fails in [false, true] {
            let (gpus, stream) = on(&comm);
            let buffer = gpus.allocate::<f32>(100).unwrap();
            gpus.all_reduce_in_place(&buffer, ReduceOp::Sum, &stream).unwrap();
            if fails {
                stream.synchronize().unwrap();
                let length = 50 + comm.rank();
                gpus.all_reduce_in_place(&buffer.part(..length).unwrap(), ReduceOp::Sum, &stream).unwrap();
            }
            let ended = stream.synchronize();
            assert!(matches!(ended, Err(Error::Mismatch(_))) == fails && ended.is_err() == fails, "{ended:?}");
            comm.barrier().unwrap();
            drop((gpus, buffer, stream));
            comm.barrier().unwrap();
            assert_eq!(arenas(3), 0, "after {ended:?}");
            comm.barrier().unwrap();
        }
    });
}

#[test]
fn closing_is_everybodys_and_fails_as_a_sentence() {
    if absent() {
        return;
    }
    threads(2, |comm| {
        let (gpus, stream) = on(&comm);
        if comm.rank() == 0 {
            gpus.abort("no more");
        }
        comm.barrier().unwrap();
        gpus.barrier(&stream).unwrap_or_default();
        let error = gpus.close().unwrap_err();
        assert_eq!(error, Error::Aborted("rank 0 aborted: no more".into()));
    });
}

fn is_staged(gpus: &DeviceCommunicator, count: usize, allocated: bool) -> bool {
    let (collective, data_type) = (Collective::AllReduce, DataType::F64);
    let op = Some(ReduceOp::Sum);
    gpus.explain(&Question { collective, data_type, op, count, in_place: true, allocated }).unwrap().staged
}

#[test]
fn a_deregistered_buffer_is_given_up_and_staged() {
    if absent() || !is_simulated() {
        return;
    }
    const LENGTH: usize = 40_961;
    alone("life::a_deregistered_buffer_is_given_up_and_staged", |comm: Communicator| {
        let (gpus, stream) = on(&comm);
        let buffer = gpus.device().allocate_mappable::<f64>(LENGTH).unwrap();
        for turn in 1..=3 {
            gpus.register(&buffer).unwrap();
            comm.barrier().unwrap();
            assert_eq!(mapped(8 * LENGTH), 3, "turn {turn}");
            let sum = |expected: f64| {
                stream.fill(&buffer, comm.rank() as f64).unwrap();
                gpus.all_reduce_in_place(&buffer, ReduceOp::Sum, &stream).unwrap();
                assert!(stream.read(&buffer).unwrap().iter().all(|value| *value == expected));
            };
            sum(3.0);
            gpus.all_reduce_in_place(&buffer, ReduceOp::Sum, &stream).unwrap();
            gpus.deregister(&buffer).unwrap();
            comm.barrier().unwrap();
            // Among processes each maps its own alone; among threads that is one a rank.
            let own = if comm.transport_kind() == "threads" { 3 } else { 1 };
            assert_eq!(mapped(8 * LENGTH), own, "turn {turn}");
            sum(3.0);
            comm.barrier().unwrap();
        }
        assert!(!is_staged(&gpus, LENGTH, true) && is_staged(&gpus, LENGTH, false));

        let again = gpus.deregister(&buffer).unwrap_err();
        assert!(matches!(&again, Error::InvalidArgument(why) if why.contains("it is not registered")), "{again}");
        let [first, second] = [gpus.allocate::<u8>(64).unwrap(), gpus.allocate::<u8>(64).unwrap()];
        let part = gpus.deregister(&first.part(1..).unwrap()).unwrap_err();
        assert!(matches!(&part, Error::InvalidArgument(why) if why.contains("pass the very buffer")), "{part}");
        let mixed = gpus.deregister(if comm.rank() == 2 { &first } else { &second }).unwrap_err();
        assert!(matches!(&mixed, Error::InvalidArgument(why) if why.contains("ranks 0 and 2")), "{mixed}");
        gpus.deregister(&first).unwrap();
        gpus.close().unwrap();
    });
}

#[test]
fn a_graph_of_deregistered_memory_fails_with_a_sentence() {
    if absent() {
        return;
    }
    threads(2, |comm| {
        let (gpus, stream) = on(&comm);
        let buffer = gpus.allocate::<f32>(70_000).unwrap();
        let graph = stream.capture(|stream| gpus.all_reduce_in_place(&buffer, ReduceOp::Sum, stream)).unwrap();
        comm.barrier().unwrap();
        graph.launch(&stream).unwrap();
        gpus.deregister(&buffer).unwrap();
        gpus.barrier(&stream).unwrap();
        graph.launch(&stream).unwrap();
        let error = stream.synchronize().unwrap_err();
        let sentence = error.to_string();
        assert!(matches!(error, Error::Mismatch(_)), "{error:?}");
        assert!(sentence.contains("call 2: ") && sentence.contains("memory that was deregistered"), "{sentence}");
    });
}
