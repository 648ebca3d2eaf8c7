// SPDX-License-Identifier: MPL-2.0
//! Communicators of some of the ranks: who is in them, in which order, and that each goes its own way.
#![cfg(target_os = "linux")]

mod butterfly;
mod ranks;

use annulus::schedule::{Layout, NAMES, verify};
use annulus::{Communicator, Error, ReduceOp};
use butterfly::Butterfly;
use ranks::{everywhere, processes, threads};

/// The sum of the parent's ranks among the members of `comm`.
fn sum_of_ranks(comm: &Communicator, rank: usize, len: usize) -> Vec<u64> {
    let mut sum = vec![rank as u64; len];
    comm.all_reduce_in_place(&mut sum, ReduceOp::Sum).unwrap();
    sum
}

#[test]
fn colours_and_keys() {
    everywhere(5, "colours_and_keys", |comm| {
        let rank = comm.rank();
        // 0, 2 and 4 in reverse; 1 and 3 in order, since their keys are equal.
        let key = if rank % 2 == 0 { -(rank as i64) } else { 7 };
        let part = comm.split((rank % 2) as u64, key).unwrap().unwrap();
        let expected = [(2, 3, 6), (0, 2, 4), (1, 3, 6), (1, 2, 4), (0, 3, 6)][rank];
        assert_eq!((part.rank(), part.world_size()), (expected.0, expected.1));
        for len in [1, 5_000] {
            assert_eq!(sum_of_ranks(&part, rank, len), vec![expected.2; len]);
        }
        let mut order = vec![0; part.world_size()];
        part.all_gather(&[rank as u64], &mut order).unwrap();
        assert_eq!(order, if rank % 2 == 0 { vec![4, 2, 0] } else { vec![1, 3] });
        // The parent goes on as before, and a part is itself a parent.
        assert_eq!(sum_of_ranks(&comm, rank, 3), [10; 3]);
        let alone = part.split(part.rank() as u64, 0).unwrap().unwrap();
        assert_eq!((alone.rank(), alone.world_size()), (0, 1));
        assert_eq!(sum_of_ranks(&alone, rank, 2), [rank as u64; 2]);
    });
}

#[test]
fn some_take_no_part() {
    everywhere(3, "some_take_no_part", |comm| {
        let color = (comm.rank() != 1).then_some(u64::MAX);
        let part = comm.split(color, 0).unwrap();
        assert_eq!(
            part.as_ref().map(|part| (part.rank(), part.world_size())),
            [Some((0, 2)), None, Some((1, 2))][comm.rank()]
        );
        if let Some(part) = &part {
            assert_eq!(sum_of_ranks(part, comm.rank(), 9_000), vec![2; 9_000]);
        }
        assert!(comm.split(None, 0).unwrap().is_none());
        comm.barrier().unwrap();
    });
}

/// Memory that the parent allocated is as direct in a part; the parts' calls are in flight at once.
#[test]
fn parts_share_what_the_parent_allocated() {
    everywhere(4, "parts_share_what_the_parent_allocated", |comm| {
        let part = comm.split((comm.rank() / 2) as u64, 0).unwrap().unwrap();
        let mut shared = comm.allocate::<f32>(50_000).unwrap();
        shared.fill(comm.rank() as f32);
        let started = comm.start_all_reduce_in_place(vec![1_u32; 30_000], ReduceOp::Sum).unwrap();
        part.all_reduce_in_place(&mut shared, ReduceOp::Sum).unwrap();
        assert_eq!(shared[49_999], [1.0, 5.0][comm.rank() / 2]);
        assert_eq!(part.last_call().unwrap().algorithm, "direct");
        let pending = part.start_all_reduce_in_place(shared, ReduceOp::Max).unwrap();
        assert_eq!(started.wait().unwrap(), vec![4; 30_000]);
        pending.wait().unwrap();
        comm.barrier().unwrap();
    });
}

#[test]
fn a_failed_part_leaves_the_others_alone() {
    everywhere(4, "a_failed_part_leaves_the_others_alone", |comm| {
        let part = comm.split((comm.rank() % 2) as u64, 0).unwrap().unwrap();
        if comm.rank() % 2 == 0 {
            if part.rank() == 0 {
                part.abort("to see what happens");
            }
            let error = loop {
                if let Err(error) = part.barrier() {
                    break error;
                }
            };
            assert!(matches!(&error, Error::Aborted(_)), "{error}");
        } else {
            for _ in 0..20 {
                assert_eq!(sum_of_ranks(&part, comm.rank(), 3_000), vec![4; 3_000]);
            }
        }
        assert_eq!(sum_of_ranks(&comm, comm.rank(), 4), [6; 4]);
    });
}

/// What a communicator took is given back when all its ranks have left it.
#[test]
fn many_one_after_the_other() {
    everywhere(2, "many_one_after_the_other", |comm| {
        for turn in 0..200 {
            let part = comm.split(turn, 0).unwrap().unwrap();
            part.barrier().unwrap();
        }
        // When all have left all of them, memory is found where it is found first.
        let place = || {
            comm.barrier().unwrap();
            comm.allocate::<u8>(1).unwrap().as_ptr() as usize
        };
        let before = place();
        for turn in 0..200 {
            drop(comm.split(turn, 0).unwrap());
        }
        let after = place();
        assert!(comm.transport_kind() == "threads" || after == before);
    });
}

/// Its memory is used anew, and is within peers' reach as any other.
#[test]
fn the_first_communicator_may_go_before_the_others() {
    everywhere(2, "the_first_communicator_may_go_before_the_others", |comm| {
        let duplicate = comm.duplicate().unwrap();
        drop(comm);
        duplicate.barrier().unwrap();
        let mut shared = duplicate.allocate::<f32>(10_000).unwrap();
        shared.fill(1.0);
        duplicate.all_reduce_in_place(&mut shared, ReduceOp::Sum).unwrap();
        assert_eq!((shared[9_999], duplicate.last_call().unwrap().algorithm.as_str()), (2.0, "direct"));
        drop(shared);
        let verified = verify(&Butterfly, &Layout::uniform(2, 5)).unwrap();
        let mut sums = [0.0; 5];
        duplicate.execute(&verified, &[1.0_f32; 5], &mut sums, Some(ReduceOp::Sum)).unwrap();
        assert_eq!(sums, [2.0; 5]);
    });
}

/// An algorithm is set for the user's calls, and not for what ranks tell each other to make communicators.
#[test]
fn an_algorithm_that_is_set_keeps_nobody_from_making_communicators() {
    everywhere(2, "an_algorithm_that_is_set_keeps_nobody_from_making_communicators", |comm| {
        for algorithm in NAMES {
            comm.set_algorithm(Some(algorithm)).unwrap();
            let part = comm.split(0, -(comm.rank() as i64)).unwrap().unwrap();
            let duplicate = comm.duplicate().unwrap();
            assert_eq!((part.rank(), duplicate.rank()), (1 - comm.rank(), comm.rank()));
            // It is the communicator's alone for which it was set.
            assert_eq!(sum_of_ranks(&part, comm.rank(), 3), [1; 3]);
        }
    });
}

/// A communicator that has failed makes no others, and keeps no memory that was to be theirs.
#[test]
fn a_split_of_a_failed_communicator_takes_nothing() {
    processes(2, "a_split_of_a_failed_communicator_takes_nothing", |comm| {
        let part = comm.duplicate().unwrap();
        part.abort("to see what happens");
        // When there is nothing left of what was tried, memory is found where it is found first.
        let place = || comm.allocate::<u8>(1).unwrap().as_ptr() as usize;
        let before = place();
        for color in [Some(1), None] {
            assert!(matches!(part.split(color, 0), Err(Error::Aborted(_))));
        }
        assert_eq!(place(), before);
        comm.barrier().unwrap();
    });
}

#[test]
fn a_split_that_others_do_not_make_is_a_mismatch() {
    threads(2, |comm| {
        let error = match comm.rank() {
            0 => comm.split(0, 0).unwrap_err(),
            _ => comm.barrier().unwrap_err(),
        };
        assert!(matches!(&error, Error::Mismatch(_)), "{error}");
    });
}
