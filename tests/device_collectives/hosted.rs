// SPDX-License-Identifier: MPL-2.0
//! Devices that do not reach each other: calls go through memory of the host, and are otherwise as they are.
//!
//! That they may not go elsewhere, devices see to: what is of a device out of reach is refused by launches and copies,
//! and by a process that would map it.

use std::time::Duration;

use annulus::communicator::Question;
use annulus::schedule::Collective;
use annulus::{Communicator, DataType, Error, ReduceOp, run};

use super::{absent, bits, block, is_simulated, lacks, on, ranks, upload, variables};

/// Worlds, as (ranks, devices, pairs out of reach): of a rank a device, the last with ranks that share one; all pairs
/// out of reach, or some.
const WORLDS: [(usize, &str, &str); 4] =
    [(2, "2", "0-1"), (3, "3", "0-2"), (4, "4", "0-1,2-3"), (4, "3", "0-1,0-2,1-2")];

/// Runs `body` on threads and on processes of such a world.
fn everywhere((n, devices, pairs): (usize, &str, &str), name: &str, body: impl Fn(&Communicator) + Sync) {
    if lacks(devices, pairs) {
        return;
    }
    let variables = variables(&[("ANNULUS_SIM_DEVICES", devices), ("ANNULUS_SIM_UNREACHABLE", pairs)]);
    let name = format!("{name} {devices} {n}");
    let of_threads = || {
        run(n, |comm| {
            body(&comm);
            Ok(())
        })
        .unwrap();
    };
    let mut ended = ranks::start(&[0], 1, &format!("{name} threads"), &variables, of_threads);
    let all: Vec<usize> = (0..n).collect();
    ended.extend(ranks::start(&all, n, &name, &variables, || body(&Communicator::from_env().unwrap())));
    for rank in ended {
        assert!(rank.status.success(), "{name}, rank {}: {}", rank.rank, rank.output);
    }
}

#[test]
fn ranks_out_of_reach_get_the_bits_of_the_reference() {
    if absent() {
        return;
    }
    // The stand-in takes its time.
    for world in WORLDS.into_iter().take(if !is_simulated() && !ranks::full() { 1 } else { 4 }) {
        everywhere(world, "hosted::ranks_out_of_reach_get_the_bits_of_the_reference", bits::everything);
    }
}

#[test]
fn what_is_long_is_cut_and_packed_in_memory_of_the_host() {
    if absent() {
        return;
    }
    everywhere(WORLDS[0], "hosted::what_is_long_is_cut_and_packed_in_memory_of_the_host", |comm| {
        let (gpus, stream) = on(comm);
        let (rank, length) = (comm.rank(), (9 << 20) + 3);
        let [both, one] = [2 * length, length].map(|length| gpus.allocate::<u8>(length).unwrap());
        stream.fill(&both, 1 + rank as u8).unwrap();
        stream.fill(&both.part(length..).unwrap(), 10).unwrap();
        gpus.reduce_scatter(&both, &one, ReduceOp::Sum, &stream).unwrap();
        let sum = if rank == 0 { 3 } else { 20 };
        assert!(stream.read(&one).unwrap() == vec![sum; length]);
        gpus.all_gather(&one, &both, &stream).unwrap();
        let got = stream.read(&both).unwrap();
        assert!(got[..length] == vec![3; length] && got[length..] == vec![20; length]);
        gpus.all_reduce_in_place(&both, ReduceOp::Max, &stream).unwrap();
        assert!(stream.read(&both).unwrap() == got);
    });
}

/// By kernels and by schedules: no call waits for the host, it can be captured, and is recorded and explained.
#[test]
fn calls_return_at_once_and_replay() {
    if absent() {
        return;
    }
    everywhere(WORLDS[1], "hosted::calls_return_at_once_and_replay", |comm| {
        let (gpus, stream) = on(comm);
        let buffer = gpus.allocate::<f32>(3000).unwrap();
        let names = ["one_shot", "schedule:ring", "schedule:recursive_doubling", "schedule:direct"];
        let call = |name: &str, stream: &annulus::driver::Stream| {
            gpus.set_algorithm(Some(name))?;
            gpus.all_reduce_in_place(&buffer, ReduceOp::Sum, stream)
        };
        for name in names {
            let open = block(&stream);
            stream.fill(&buffer, 1.0).unwrap();
            call(name, &stream).unwrap();
            comm.barrier().unwrap();
            drop(open);
            assert_eq!(stream.read(&buffer).unwrap(), [3.0; 3000], "{name}");
            let path = name.split_once(':').map_or("kernel", |(path, _)| path);
            assert_eq!(gpus.last_call().unwrap().path, path, "{name}");
        }
        let graph = stream.capture(|stream| names.iter().try_for_each(|name| call(name, stream))).unwrap();
        comm.barrier().unwrap();
        for turn in 0..20 {
            stream.fill(&buffer, turn as f32).unwrap();
            graph.launch(&stream).unwrap();
            if turn % 3 == 0 {
                call("two_shot", &stream).unwrap();
                stream.fill(&buffer, turn as f32).unwrap();
                graph.launch(&stream).unwrap();
            }
            assert_eq!(stream.read(&buffer).unwrap(), [81.0 * turn as f32; 3000]);
        }
        gpus.set_algorithm(None).unwrap();
        let (collective, data_type, op) = (Collective::AllReduce, DataType::F32, Some(ReduceOp::Sum));
        let question = Question { collective, data_type, op, count: 3000, in_place: false, allocated: true };
        let explained = gpus.explain(&question).unwrap();
        assert!(explained.staged && explained.path.contains("do not reach each other"), "{explained}");
        gpus.deregister(&buffer).unwrap();
        drop(graph);
        gpus.close().unwrap();
        stream.synchronize().unwrap();
    });
}

#[test]
fn failures_name_ranks_and_calls() {
    if absent() {
        return;
    }
    // Devices that do reach each other are read from otherwise.
    for world in [WORLDS[1], (3, "3", "")] {
        everywhere(world, "hosted::failures_name_ranks_and_calls", |comm| {
            let (gpus, stream) = on(comm);
            let length = if comm.rank() == 1 { 5 } else { 6 };
            let buffer = upload(gpus.device(), &stream, &vec![1.0_f32; length]);
            gpus.all_reduce_in_place(&buffer, ReduceOp::Sum, &stream).unwrap();
            assert_eq!(
                stream.synchronize().unwrap_err().to_string(),
                "call 0: ranks 0, 2 call all_reduce_in_place(f32, 6, Sum); rank 1 calls all_reduce_in_place(f32, 5, \
                 Sum); all ranks must make the same call"
            );
            comm.barrier().unwrap();
            let (gpus, stream) = on(comm);
            gpus.set_timeout(Duration::from_millis(200));
            if comm.rank() != 2 {
                gpus.barrier(&stream).unwrap();
                let error = stream.synchronize().unwrap_err();
                assert!(matches!(&error, Error::Timeout { missing, .. } if missing == &[2]), "{error:?}");
            }
            comm.barrier().unwrap();
        });
    }
}
