// SPDX-License-Identifier: MPL-2.0
//! Worlds of more than 16 ranks, which enter their calls in groups: that calls do what they do in small worlds, that
//! what leaders say of their groups decides as the records themselves would, and who is named when something is wrong.
#![cfg(target_os = "linux")]

mod ranks;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use annulus::error::Cause;
use annulus::{Communicator, Error, ReduceOp};
use ranks::{processes, start, threads};
use rustix::process::{Signal, getpid, kill_process};

/// Two groups, the second of one rank; three, the last of one; three, the last of eight.
const WORLDS: [usize; 3] = [17, 33, 40];

/// What rank `rank` contributes to call `turn`.
fn term(rank: usize, turn: usize) -> u32 {
    (rank * 1_009 + turn * 7) as u32
}

fn sum(world: usize, turn: usize) -> u32 {
    (0..world).map(|rank| term(rank, turn)).sum()
}

/// An all-reduce of plain memory, checked.
#[track_caller]
fn reduce(comm: &Communicator, len: usize, turn: usize) {
    let mut elements = vec![term(comm.rank(), turn); len];
    comm.all_reduce_in_place(&mut elements, ReduceOp::Sum).unwrap();
    assert!(elements.iter().all(|element| *element == sum(comm.world_size(), turn)), "{len} elements, turn {turn}");
}

/// Calls of every kind of entry, more than channels: 8 bytes, what exceeds a record, barriers; a root in each group.
fn calls(comm: &Communicator, turns: usize) {
    for turn in 0..turns {
        reduce(comm, 2, turn);
        comm.barrier().unwrap();
        reduce(comm, 5_000, turn);
        let root = turn * 16 % comm.world_size();
        let mut word = [if comm.rank() == root { term(root, turn) } else { 0 }; 3];
        comm.broadcast_in_place(&mut word, root).unwrap();
        assert_eq!(word, [term(root, turn); 3]);
    }
}

#[test]
fn calls_of_many_threads() {
    for world in WORLDS {
        threads(world, |comm| {
            calls(&comm, 6);
            for algorithm in ["staged", "ring", "tree", "dissemination"] {
                comm.set_algorithm(Some(algorithm)).unwrap();
                match algorithm {
                    "dissemination" => comm.barrier().unwrap(),
                    "tree" => comm.broadcast_in_place(&mut [7; 2_000], 16).unwrap(),
                    _ => reduce(&comm, 2_000, 3),
                }
            }
        });
    }
}

/// Nobody leaves a barrier before all have come to it.
#[test]
fn a_barrier_of_many_holds() {
    for world in WORLDS {
        let come = AtomicUsize::new(0);
        threads(world, |comm| {
            for turn in 1..=20 {
                // Relaxed: the barrier orders it.
                come.fetch_add(1, Ordering::Relaxed);
                comm.barrier().unwrap();
                assert!(come.load(Ordering::Relaxed) >= turn * world);
                comm.barrier().unwrap();
            }
        });
    }
}

/// As many in flight as there can be, in which nobody waits for anybody in order; and messages between groups.
#[test]
fn started_calls_of_many() {
    threads(33, |comm| {
        let pending: Vec<_> = (0..12)
            .map(|turn| {
                let len = if turn % 2 == 0 { 2 } else { 3_000 };
                comm.start_all_reduce_in_place(vec![term(comm.rank(), turn); len], ReduceOp::Sum).unwrap()
            })
            .collect();
        for (turn, pending) in pending.into_iter().enumerate() {
            let elements = pending.wait().unwrap();
            assert!(elements.iter().all(|element| *element == sum(33, turn)));
        }
        let (next, last) = ((comm.rank() + 1) % 33, (comm.rank() + 32) % 33);
        let mut got = [0];
        comm.send_recv(&[comm.rank() as u64], next, &mut got, last).unwrap();
        assert_eq!(got, [last as u64]);
    });
}

/// The record says who came last, whichever group that is in, and whoever asks.
#[test]
fn the_last_of_many_is_known_to_all() {
    for late in [0, 7, 16, 32] {
        let come = AtomicUsize::new(0);
        threads(33, |comm| {
            comm.barrier().unwrap();
            let pending = (comm.rank() != late).then(|| comm.start_all_reduce_in_place(vec![1_u32], ReduceOp::Sum));
            come.fetch_add(1, Ordering::Relaxed);
            let sum = match pending {
                Some(pending) => pending.unwrap().wait().unwrap(),
                None => {
                    while come.load(Ordering::Relaxed) < 33 {
                        std::thread::yield_now();
                    }
                    let mut sum = vec![1];
                    comm.all_reduce_in_place(&mut sum, ReduceOp::Sum).unwrap();
                    sum
                }
            };
            assert_eq!(sum, [33]);
            assert_eq!(comm.last_call().unwrap().last_rank, late);
        });
    }
}

/// One rank's memory decides for all, wherever it is: contributions ride along if all are private; buffers are used where
/// they lie if all are allocated.
#[test]
fn memory_of_one_rank_decides_for_all() {
    processes(18, "memory_of_one_rank_decides_for_all", |comm| {
        calls(&comm, 2);
        let mut shared = comm.allocate::<u32>(5_000).unwrap();
        let mut ran = |len: usize, is_shared: bool| {
            let mut plain = vec![term(comm.rank(), 5); len];
            let buffer = if is_shared { &mut shared[..len] } else { &mut plain[..] };
            buffer.fill(term(comm.rank(), 5));
            comm.all_reduce_in_place(buffer, ReduceOp::Sum).unwrap();
            assert!(buffer.iter().all(|element| *element == sum(18, 5)));
            comm.last_call().unwrap().algorithm
        };
        assert_eq!(ran(400, false), "one_shot");
        assert_eq!(ran(5_000, true), "direct");
        for odd in [0, 5, 16, 17] {
            assert_ne!(ran(400, comm.rank() == odd), "one_shot", "rank {odd}'s contribution does not ride along");
            assert_ne!(ran(5_000, comm.rank() != odd), "direct", "rank {odd}'s memory is private");
        }
    });
}

/// The odd one is a member, a leader, and the last leader's only member; its group's others and all others are told.
#[test]
fn the_one_that_disagrees_is_named() {
    threads(33, |comm| {
        for odd in [0, 3, 16, 31, 32] {
            let duplicate = comm.duplicate().unwrap();
            duplicate.barrier().unwrap();
            let mut elements = vec![1.0_f32; if comm.rank() == odd { 6 } else { 5 }];
            let error = duplicate.all_reduce_in_place(&mut elements, ReduceOp::Sum).unwrap_err();
            assert!(matches!(error, Error::Mismatch(_)), "{error:?}");
            let named = format!("rank {odd} calls all_reduce_in_place(f32, 6, Sum)");
            assert!(error.to_string().contains(&named), "{error}");
        }
    });
}

/// Groups that agree among themselves and not with one another.
#[test]
fn groups_that_disagree_are_named() {
    threads(17, |comm| {
        let error = match comm.rank() {
            16 => comm.barrier().unwrap_err(),
            _ => comm.all_reduce_in_place(&mut [1_u8; 5], ReduceOp::Sum).unwrap_err(),
        };
        assert!(matches!(error, Error::Mismatch(_)), "{error:?}");
        assert!(error.to_string().contains("rank 16 calls barrier"), "{error}");
    });
}

/// Those that do not come are named, and not the leaders that wait for them.
#[test]
fn those_who_do_not_come_are_named() {
    for late in [&[5][..], &[16], &[0, 20, 32]] {
        let come = AtomicUsize::new(0);
        threads(33, |comm| {
            let duplicate = comm.duplicate().unwrap();
            let error = if late.contains(&comm.rank()) {
                comm.barrier().unwrap();
                duplicate.barrier().unwrap_err()
            } else {
                let pending = duplicate.start_all_reduce_in_place(vec![1.0_f32; 5], ReduceOp::Sum).unwrap();
                come.fetch_add(1, Ordering::Relaxed);
                while come.load(Ordering::Relaxed) < 33 - late.len() {
                    std::thread::yield_now();
                }
                // All others have come.
                duplicate.set_timeout(Duration::from_millis(50));
                let error = pending.wait().unwrap_err();
                comm.barrier().unwrap();
                error
            };
            assert!(matches!(&error, Error::Timeout { missing, .. } if missing == late), "{late:?}: {error:?}");
        });
    }
}

/// A member and a leader die before they enter; a leader dies when it has entered and its group has not, so that what is
/// missing afterwards is its summary alone.
#[test]
fn the_dead_of_many_are_named() {
    for (dead, has_entered) in [(3, false), (16, false), (16, true)] {
        let name = format!("the_dead_of_many_are_named {dead} {has_entered}");
        let all: Vec<usize> = (0..18).collect();
        let ended = start(&all, 18, &name, &[], || {
            let comm = Communicator::from_env().unwrap();
            let another = comm.duplicate().unwrap();
            let mut processes = vec![0; 18];
            comm.all_gather(&[std::process::id()], &mut processes).unwrap();
            // Of a communicator that nobody poisons, by which all have done that call before somebody dies in the next.
            another.barrier().unwrap();
            if comm.rank() == dead {
                let _entered =
                    has_entered.then(|| comm.start_all_reduce_in_place(vec![1_u8; 4], ReduceOp::Sum).unwrap());
                kill_process(getpid(), Signal::KILL).unwrap();
            }
            if comm.rank() == 17 {
                // It comes when the death is past.
                let stat = format!("/proc/{}/stat", processes[dead]);
                while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            let error = comm.all_reduce_in_place(&mut [1_u8; 4], ReduceOp::Sum).unwrap_err();
            let is_named = matches!(error, Error::RankLost { rank, cause: Cause::Died, .. } if rank == dead);
            assert!(is_named, "{error:?}");
            assert_eq!(comm.barrier(), Err(error));
        });
        let failed = |rank: &&ranks::Ended| rank.rank != dead && !rank.status.success();
        assert!(ended.iter().find(failed).is_none(), "{:?}", ended.iter().find(failed));
    }
}
