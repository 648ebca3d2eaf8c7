// SPDX-License-Identifier: MPL-2.0
//! The negative control of `collectives.rs`: a library in which rank 0 runs every program with one element too few in
//! its last step that moves data. If results were still right, they would come from somewhere else than the program.
//! (A barrier moves none.)
//!
//! ```sh
//! RUSTC_WORKSPACE_WRAPPER=$PWD/.ci/corrupted cargo test --test corrupt
//! ```
#![cfg(all(annulus_corrupt, target_os = "linux"))]

mod ranks;

use std::collections::BTreeSet;

use annulus::reference::check::{Request, compare};
use annulus::reference::inputs;
use annulus::schedule::{Collective, Layout};
use annulus::{Communicator, FoldOrder, ReduceOp};

use ranks::{processes_that_say, threads};

const CALLS: [Collective; 10] = [
    Collective::AllReduce,
    Collective::ReduceScatter,
    Collective::AllGather,
    Collective::Broadcast,
    Collective::Reduce,
    Collective::Scatter,
    Collective::Gather,
    Collective::AllToAll,
    Collective::Scan,
    Collective::ExclusiveScan,
];

/// What always rides along with the entry, what does in memory out of reach, and what never does.
const COUNTS: [usize; 3] = [10, 300, 5000];

const MEMORIES: [&str; 2] = ["plain", "allocated"];

/// The root of those that have one: a rank whose own program is right, where that does not keep the wrong one from
/// showing; where only the root has an output, and gets it by its own program, that is rank 0's.
fn root(collective: Collective) -> usize {
    usize::from(matches!(collective, Collective::Broadcast | Collective::Scatter))
}

fn name(collective: Collective, count: usize, memory: &str) -> String {
    format!("{collective} of {count}, {memory}")
}

fn all() -> BTreeSet<String> {
    let pairs = CALLS.iter().flat_map(|call| COUNTS.map(|count| (call, count)));
    pairs.flat_map(|(call, count)| MEMORIES.map(|memory| name(*call, count, memory))).collect()
}

/// Those of [`all`] whose output differs from the reference's on this rank.
fn wrong(comm: &Communicator) -> BTreeSet<String> {
    let (world, rank, op, order) = (comm.world_size(), comm.rank(), ReduceOp::Sum, &FoldOrder::Rank);
    let (mut wrong, mut number) = (BTreeSet::new(), 0);
    for collective in CALLS {
        for count in COUNTS {
            for memory in MEMORIES {
                // What an earlier call has left somewhere is wrong too.
                number += 1;
                let root = root(collective);
                let layout = Layout::uniform(world, count).with_root(root);
                let (len, counts) = (layout.input_len(collective, root), vec![count; world]);
                let output_len = layout.output_len(collective, rank);
                let inputs = inputs::random::<f32>(1, number, &vec![len; world]);
                let (mut plain, mut shared) = (vec![0.0; len], comm.allocate::<f32>(len).unwrap());
                // Rank 0 passes an output in an exclusive scan too.
                let room = output_len.max(count);
                let (mut plain_output, mut shared_output) = (vec![0.0; room], comm.allocate::<f32>(room).unwrap());
                let (send, recv): (&mut [f32], &mut [f32]) = match memory {
                    "plain" => (&mut plain, &mut plain_output),
                    _ => (&mut shared, &mut shared_output),
                };
                send.copy_from_slice(&inputs[rank]);
                let is_root = rank == root;
                let request = match collective {
                    Collective::AllReduce => {
                        comm.all_reduce(send, recv, op).unwrap();
                        Request::AllReduce { order, op }
                    }
                    Collective::ReduceScatter => {
                        comm.reduce_scatter(send, recv, op).unwrap();
                        Request::ReduceScatter { order, op, counts: &counts }
                    }
                    Collective::AllGather => {
                        comm.all_gather(send, recv).unwrap();
                        Request::AllGather
                    }
                    Collective::Broadcast => {
                        comm.broadcast(is_root.then_some(&*send), recv, root).unwrap();
                        Request::Broadcast { root }
                    }
                    Collective::Reduce => {
                        comm.reduce(send, is_root.then_some(&mut *recv), op, root).unwrap();
                        Request::Reduce { order, op, root }
                    }
                    Collective::Scatter => {
                        comm.scatter(is_root.then_some(&*send), recv, root).unwrap();
                        Request::Scatter { root, counts: &counts }
                    }
                    Collective::Gather => {
                        comm.gather(send, is_root.then_some(&mut *recv), root).unwrap();
                        Request::Gather { root }
                    }
                    Collective::AllToAll => {
                        comm.all_to_all(send, recv).unwrap();
                        Request::AllToAll { counts: &vec![counts.clone(); world] }
                    }
                    Collective::Scan => {
                        comm.scan(send, recv, op).unwrap();
                        Request::Scan { op }
                    }
                    Collective::ExclusiveScan => {
                        comm.exclusive_scan(send, recv, op).unwrap();
                        Request::ExclusiveScan { op }
                    }
                    Collective::Barrier => continue,
                    new => panic!("nothing is known of {new}"),
                };
                if compare(&recv[..output_len], &request.outputs(&inputs).unwrap()[rank], rank).is_err() {
                    wrong.insert(name(collective, count, memory));
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
