// SPDX-License-Identifier: MPL-2.0
//! The negative control of `device_collectives.rs`: a library in which one rank gives its kernels one wrong argument
//! (`src/communicator/device/corrupt.rs`). The comparison with the reference must notice it in every call that it
//! concerns, in memory that peers see and in other memory; and without a mistake nothing is wrong.
//!
//! ```sh
//! RUSTC_WORKSPACE_WRAPPER=$PWD/.ci/corrupted cargo test --test device_corrupt
//! ```
#![cfg(all(annulus_corrupt, feature = "sim", target_os = "linux"))]

mod compiler;
mod ranks;
mod simulated;
#[path = "standin/mod.rs"]
mod standin;

use std::collections::BTreeSet;
use std::time::Duration;

use annulus::driver::Device;
use annulus::reference::check::compare;
use annulus::reference::{self, inputs};
use annulus::{Communicator, DeviceCommunicator, Error, FoldOrder, ReduceOp, run};

use simulated::absent;

const RANKS: usize = 3;
const LENGTH: usize = 1000;
/// Of one-shot, which copies what is short from wherever it lies.
const LONGER: usize = 1100;
const CALLS: [&str; 12] = [
    "low_latency",
    "one_shot",
    "two_shot",
    "ring",
    "reduce_scatter",
    "reduce",
    "all_gather",
    "broadcast",
    "scatter",
    "gather",
    "all_to_all",
    "send_recv",
];
const FOLDS: [&str; 6] = ["low_latency", "one_shot", "two_shot", "ring", "reduce_scatter", "reduce"];
const MEMORIES: [&str; 2] = ["plain", "allocated"];

/// Whether ranks' devices reach each other: as variables say.
const REACH: [(&str, &[(&str, &str)]); 2] =
    [("within reach", &[]), ("out of reach", &[("ANNULUS_SIM_DEVICES", "3"), ("ANNULUS_SIM_UNREACHABLE", "0-1,1-2")])];

/// Each mistake, the calls in which it must be noticed, and in which memory.
const MISTAKES: [(&str, &[&str], &[&str]); 6] = [
    ("none", &[], &[]),
    ("short", &CALLS, &MEMORIES),
    ("operation", &FOLDS, &MEMORIES),
    // Of a gather, only the root looks where the others are, and it is another rank that is wrong.
    (
        "order",
        &["one_shot", "two_shot", "reduce_scatter", "reduce", "broadcast", "scatter", "all_to_all", "send_recv"],
        &["allocated"],
    ),
    // Who takes itself for the root of a gather gets what nobody compares, and gives what it should.
    ("root", &["reduce", "broadcast", "scatter"], &MEMORIES),
    (
        "place",
        &[
            "one_shot",
            "two_shot",
            "reduce_scatter",
            "reduce",
            "broadcast",
            "scatter",
            "gather",
            "all_to_all",
            "send_recv",
        ],
        &["allocated"],
    ),
];

fn on(comm: &Communicator) -> annulus::Result<DeviceCommunicator> {
    comm.on(&Device::simulated(comm.rank() % Device::simulated_count()?)?)
}

/// Those calls whose output differs from the reference's on this rank.
fn wrong(comm: &Communicator) -> BTreeSet<String> {
    let gpus = on(comm).unwrap();
    let stream = gpus.device().stream().unwrap();
    let (rank, op, mut wrong) = (comm.rank(), ReduceOp::Sum, BTreeSet::new());
    for (number, call) in CALLS.into_iter().enumerate() {
        let order = if call == "ring" { &FoldOrder::Ring } else { &FoldOrder::Rank };
        // The last rank, which makes mistakes of its own, is the root.
        let root = RANKS - 1;
        let is_root = rank == root;
        let given = |rank: usize| match call {
            "reduce_scatter" | "all_to_all" => RANKS * LENGTH,
            "scatter" => RANKS * LENGTH * usize::from(rank == root),
            "one_shot" => LONGER,
            _ => LENGTH,
        };
        for memory in MEMORIES {
            // Sums of these tell the order in which they were made.
            let inputs = inputs::cancelling::<f32>(3, number as u64, &[0, 1, 2].map(given));
            let outputs = match call {
                "reduce_scatter" => reference::reduce_scatter(order, op, &inputs, &[LENGTH; RANKS]),
                "all_gather" => reference::all_gather(&inputs),
                "broadcast" => reference::broadcast(&inputs, root),
                "reduce" => reference::reduce(order, op, &inputs, root),
                "scatter" => reference::scatter(&inputs, root, &[LENGTH; RANKS]),
                "gather" => reference::gather(&inputs, root),
                "all_to_all" => reference::all_to_all(&inputs, &[[LENGTH; RANKS]; RANKS]),
                "send_recv" => Ok((0..RANKS).map(|rank| inputs[(rank + 2) % RANKS].clone()).collect()),
                _ => reference::all_reduce(order, op, &inputs),
            };
            let output = &outputs.unwrap()[rank];
            // With room behind, for what is read from a wrong place.
            let buffer = |len: usize| match memory {
                "plain" => gpus.device().allocate::<f32>(len + 64),
                _ => gpus.allocate::<f32>(len + 64),
            };
            let (send, recv) = (buffer(RANKS * LENGTH).unwrap(), buffer(RANKS * LENGTH).unwrap());
            let (send, recv) = (send.part(..given(rank)).unwrap(), recv.part(..output.len()).unwrap());
            stream.write(&send, &inputs[rank]).unwrap();
            gpus.set_algorithm(FOLDS[..4].contains(&call).then_some(call)).unwrap();
            match call {
                "reduce_scatter" => gpus.reduce_scatter(&send, &recv, op, &stream),
                "all_gather" => gpus.all_gather(&send, &recv, &stream),
                "broadcast" => gpus.broadcast(is_root.then_some(&send), &recv, root, &stream),
                "reduce" => gpus.reduce(&send, is_root.then_some(&recv), op, root, &stream),
                "scatter" => gpus.scatter(is_root.then_some(&send), &recv, root, &stream),
                "gather" => gpus.gather(&send, is_root.then_some(&recv), root, &stream),
                "all_to_all" => gpus.all_to_all(&send, &recv, &stream),
                "send_recv" => gpus.send_recv(&send, (rank + 1) % RANKS, &recv, (rank + 2) % RANKS, &stream),
                _ => gpus.all_reduce(&send, &recv, op, &stream),
            }
            .unwrap();
            if compare(&stream.read(&recv).unwrap(), output, rank).is_err() {
                wrong.insert(format!("{call}, {memory}"));
            }
        }
    }
    wrong
}

#[test]
fn every_mistake_is_noticed_in_every_call_that_it_concerns() {
    if absent() {
        return;
    }
    for ((mistake, calls, memories), (reach, variables)) in
        MISTAKES.iter().flat_map(|one| REACH.map(|reach| (*one, reach)))
    {
        // Where peers see no buffers, where those are does not matter.
        let calls = if memories.len() == 1 && !variables.is_empty() { &[] } else { calls };
        let name = format!("every_mistake_is_noticed_in_every_call_that_it_concerns {mistake} {reach}");
        let variables: Vec<_> = variables.iter().copied().chain([("ANNULUS_CORRUPT", mistake)]).collect();
        let body = || {
            let all = run(RANKS, |comm| Ok(wrong(&comm))).unwrap();
            all.into_iter().flatten().collect::<BTreeSet<_>>().iter().for_each(|name| println!("wrong {name}"));
        };
        let pairs = calls.iter().flat_map(|call| memories.iter().map(move |memory| format!("{call}, {memory}")));
        let expected: BTreeSet<String> = pairs.collect();
        for rank in ranks::start(&[0], 1, &name, &variables, body) {
            assert!(rank.status.success(), "{mistake}, {reach}: {}", rank.output);
            let noticed: BTreeSet<String> = rank.said("wrong ").map(str::to_owned).collect();
            assert_eq!(noticed, expected, "the mistake `{mistake}`, {reach}");
        }
    }
}

/// Devices that do not reach each other have nothing in common but memory of the host.
#[test]
fn memory_out_of_reach_is_refused() {
    if absent() {
        return;
    }
    let name = "memory_out_of_reach_is_refused";
    let variables: Vec<_> = REACH[1].1.iter().copied().chain([("ANNULUS_CORRUPT", "unhosted")]).collect();
    let refused = |comm: &Communicator| {
        let why = on(comm).unwrap_err().to_string();
        let parts = ["cannot address memory of", "out of reach", "its own error says why"];
        assert!(parts.iter().any(|part| why.contains(part)), "{why}");
    };
    let of_threads = || {
        run(RANKS, |comm| {
            refused(&comm);
            Ok(())
        })
        .unwrap();
    };
    let mut ended = ranks::start(&[0], 1, name, &variables, of_threads);
    ended.extend(ranks::start(&[0, 1, 2], RANKS, name, &variables, || refused(&Communicator::from_env().unwrap())));
    for rank in ended {
        assert!(rank.status.success(), "{}", rank.output);
    }
}

/// What one rank writes to another is lost: the test that each communicator begins with finds it.
#[test]
fn memory_in_which_nothing_arrives_is_found_at_the_beginning() {
    if absent() {
        return;
    }
    for (reach, variables) in REACH {
        let name = format!("memory_in_which_nothing_arrives_is_found_at_the_beginning {reach}");
        let variables: Vec<_> = variables.iter().copied().chain([("ANNULUS_CORRUPT", "lost")]).collect();
        let body = || {
            run(RANKS, |comm| {
                comm.set_timeout(Duration::from_millis(500));
                let error = on(&comm).unwrap_err();
                // Rank 1 waits for rank 0 in vain, and the others then for it.
                assert!(matches!(&error, Error::Timeout { missing, .. } if missing.len() == 1), "{error:?}");
                assert!(error.to_string().contains("arrived within 500ms"), "{error}");
                Ok(())
            })
            .unwrap();
        };
        for rank in ranks::start(&[0], 1, &name, &variables, body) {
            assert!(rank.status.success(), "{reach}: {}", rank.output);
        }
    }
}
