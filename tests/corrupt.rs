// SPDX-License-Identifier: MPL-2.0
//! The negative control of `collectives.rs`: a library in which rank 0 runs every program with one element too few in
//! its last step that moves data. If results were still right, they would come from somewhere else than the program.
//! (A barrier moves none.)
//!
//! ```sh
//! RUSTFLAGS="--cfg annulus_corrupt" cargo test --target-dir target/corrupt --test corrupt
//! ```
#![cfg(all(annulus_corrupt, target_os = "linux"))]

mod ranks;

use std::collections::BTreeSet;

use annulus::reference::check::{Request, compare};
use annulus::reference::inputs;
use annulus::{Communicator, FoldOrder, ReduceOp};

use ranks::{processes_that_say, threads};

const CALLS: [&str; 5] = ["all_reduce", "all_reduce_in_place", "reduce_scatter", "all_gather", "broadcast"];

/// Below the inline size, whatever the world, and above it.
const COUNTS: [usize; 2] = [10, 1000];

const MEMORIES: [&str; 2] = ["plain", "allocated"];

fn all() -> BTreeSet<String> {
    let pairs = CALLS.iter().flat_map(|call| COUNTS.map(|count| (call, count)));
    pairs.flat_map(|(call, count)| MEMORIES.map(|memory| format!("{call} of {count}, {memory}"))).collect()
}

/// Those of [`all`] whose output differs from the reference's on this rank.
fn wrong(comm: &Communicator) -> BTreeSet<String> {
    let (world, rank, op, order, root) = (comm.world_size(), comm.rank(), ReduceOp::Sum, FoldOrder::Rank, 1);
    let (mut wrong, mut number) = (BTreeSet::new(), 0);
    for name in CALLS {
        for count in COUNTS {
            for memory in MEMORIES {
                let (len, output_len) = match name {
                    "reduce_scatter" => (world * count, count),
                    "all_gather" => (count, world * count),
                    _ => (count, count),
                };
                // What an earlier call has left somewhere is wrong too.
                number += 1;
                let inputs = inputs::random::<f32>(1, number, &vec![len; world]);
                let counts = vec![count; world];
                let (mut plain, mut shared) = (vec![0.0; len], comm.allocate::<f32>(len).unwrap());
                let (mut plain_output, mut shared_output) =
                    (vec![0.0; output_len], comm.allocate::<f32>(output_len).unwrap());
                let (send, recv): (&mut [f32], &mut [f32]) = match memory {
                    "plain" => (&mut plain, &mut plain_output),
                    _ => (&mut shared, &mut shared_output),
                };
                send.copy_from_slice(&inputs[rank]);
                let request = match name {
                    "all_reduce" => {
                        comm.all_reduce(send, recv, op).unwrap();
                        Request::AllReduce { order: &order, op }
                    }
                    "all_reduce_in_place" => {
                        recv.copy_from_slice(send);
                        comm.all_reduce_in_place(recv, op).unwrap();
                        Request::AllReduce { order: &order, op }
                    }
                    "reduce_scatter" => {
                        comm.reduce_scatter(send, recv, op).unwrap();
                        Request::ReduceScatter { order: &order, op, counts: &counts }
                    }
                    "all_gather" => {
                        comm.all_gather(send, recv).unwrap();
                        Request::AllGather
                    }
                    _ => {
                        comm.broadcast((rank == root).then_some(&*send), recv, root).unwrap();
                        Request::Broadcast { root }
                    }
                };
                if compare(recv, &request.outputs(&inputs).unwrap()[rank], rank).is_err() {
                    wrong.insert(format!("{name} of {count}, {memory}"));
                }
            }
        }
    }
    wrong
}

#[test]
fn everything_is_wrong_on_threads() {
    for world in [2, 3] {
        let wrong: BTreeSet<String> = threads(world, |comm| wrong(&comm)).into_iter().flatten().collect();
        assert_eq!(wrong, all(), "among {world} threads");
    }
}

#[test]
fn everything_is_wrong_on_processes() {
    for world in [2, 3] {
        let said = processes_that_say(world, "everything_is_wrong_on_processes", |comm| {
            wrong(&comm).iter().for_each(|name| println!("wrong {name}"));
        });
        let wrong: BTreeSet<String> = said.iter().flat_map(|rank| rank.said("wrong ")).map(str::to_owned).collect();
        // A rank of the world has nothing to compare.
        if !said.is_empty() {
            assert_eq!(wrong, all(), "among {world} processes");
        }
    }
}
