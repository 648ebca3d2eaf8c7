// SPDX-License-Identifier: MPL-2.0
//! Ranks that die within a call: they are noticed by their death, long before the deadline.
//!
//! A rank dies of touching memory that this test has closed to it, so that it dies in the same place each time: on
//! simulated devices, whose memory is the process's.

use std::mem::offset_of;

use annulus::error::Cause;
use annulus::kernel::{Arena, Pad};
use annulus::{Communicator, DeviceCommunicator, Error, ReduceOp};
use rustix::mm::{MprotectFlags, mprotect};

use super::{absent, failure, is_simulated, on, ranks};

const PAGE: usize = 4096;
const RANKS: usize = 3;

/// Ends the process when it touches these bytes, which begin on a page.
fn close(address: usize, bytes: usize) {
    assert!(address.is_multiple_of(PAGE) && bytes.is_multiple_of(PAGE));
    // SAFETY: the bytes are mapped, and of memory that only kernels access: what they find closed, they die of.
    unsafe { mprotect(address as *mut _, bytes, MprotectFlags::empty()) }.unwrap();
}

/// Closes the part of every arena that this process maps in which ranks say that they are done.
fn close_where_ranks_finish() {
    let arena = Arena::new(RANKS, DeviceCommunicator::LOW_LATENCY, 16 << 20).bytes as usize;
    let mut arenas = 0;
    for line in std::fs::read_to_string("/proc/self/maps").unwrap().lines() {
        let (begin, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [begin, end] = [begin, end].map(|address| usize::from_str_radix(address, 16).unwrap());
        if end - begin == arena.next_multiple_of(PAGE) && line.contains("/memfd:") {
            close(begin + offset_of!(Pad, done), offset_of!(Pad, passed) - offset_of!(Pad, done));
            arenas += 1;
        }
    }
    assert_eq!(arenas, RANKS, "arenas are found by their length");
}

/// Makes one good call; then `prepare` on rank 2, with the bytes' address, and another call, in which that rank dies.
fn dying(name: &str, algorithm: &str, length: usize, prepare: impl Fn(usize)) {
    let ended = ranks::start(&[0, 1, 2], RANKS, name, &[], || {
        let comm = Communicator::from_env().unwrap();
        let (gpus, stream) = on(&comm);
        gpus.set_algorithm(Some(algorithm)).unwrap();
        let buffer = gpus.allocate::<u32>(length).unwrap();
        gpus.all_reduce_in_place(&buffer, ReduceOp::Sum, &stream).unwrap();
        stream.synchronize().unwrap();
        comm.barrier().unwrap();
        if comm.rank() == 2 {
            prepare(buffer.address() as usize);
        }
        let enqueued = gpus.all_reduce_in_place(&buffer, ReduceOp::Sum, &stream);
        // Behind it is more, which must end too.
        gpus.barrier(&stream).unwrap_or_default();
        let error = failure(enqueued, &stream);
        assert!(matches!(&error, Error::RankLost { rank: 2, cause: Cause::Died, .. }), "{error:?}");
        // The first block of the rank, which says that it has come, may be behind the one that dies.
        let call = format!("call 1, all_reduce_in_place(u32, {length}, Sum) by algorithm {algorithm}");
        let said = ["to go on in ", "to enter "].map(|what| what.to_owned() + &call);
        assert!(said.iter().any(|said| error.to_string().contains(said)), "{error}");
        assert_eq!(gpus.barrier(&stream), Err(error));
    });
    for rank in ended {
        assert_eq!(rank.status.success(), rank.rank != 2, "rank {}: {}", rank.rank, rank.output);
    }
}

#[test]
fn a_rank_that_dies_within_a_transfer_is_noticed_by_its_death() {
    if absent() || !is_simulated() {
        return;
    }
    let name = "deaths::a_rank_that_dies_within_a_transfer_is_noticed_by_its_death";
    for (place, algorithm) in ["two_shot", "one_shot", "ring"].into_iter().enumerate() {
        // Lengths tell the worlds apart, for processes that look for theirs.
        let length = 60 * PAGE + place;
        // In the middle of what is left to rank 2 of its input, some of which it has folded and stored by then.
        dying(&format!("{name} {algorithm}"), algorithm, length, |address| close(address + 50 * 4 * PAGE, PAGE));
    }
}

#[test]
fn a_rank_that_dies_after_its_last_store_is_noticed_by_its_death() {
    if absent() || !is_simulated() {
        return;
    }
    let name = "deaths::a_rank_that_dies_after_its_last_store_is_noticed_by_its_death";
    dying(name, "two_shot", 1000, |_| close_where_ranks_finish());
}
