// SPDX-License-Identifier: MPL-2.0
//! Failures of messages: both ranks are told what each said, or which rank did not come; and they are everybody's.
#![allow(unsafe_code)] // memory is closed

use std::time::Duration;

use annulus::error::Cause;
use annulus::{Communicator, Error, Result};
use rustix::mm::{MprotectFlags, mprotect};
use rustix::process::{Signal, getpid, kill_process};

use super::{ALGORITHMS, absent, everywhere, is_simulated, on, ranks, threads};

#[test]
fn ranks_that_disagree_are_named() {
    if absent() {
        return;
    }
    everywhere(3, "failures::ranks_that_disagree_are_named", |comm| {
        // In length, so that the receiver has fewer blocks; and in type.
        for (by_length, algorithm) in
            [true, false].into_iter().flat_map(|by| ALGORITHMS.map(|algorithm| (by, algorithm)))
        {
            let (gpus, stream) = on(&comm);
            gpus.set_algorithm(algorithm).unwrap();
            let [first, floats] = [10, 40_000].map(|length| gpus.device().allocate::<f32>(length).unwrap());
            let words = gpus.device().allocate::<u32>(40_000).unwrap();
            comm.barrier().unwrap();
            let send = |buffer| gpus.send(buffer, 2, &stream);
            match (comm.rank(), by_length) {
                (0, _) => Ok(()),
                (1, _) => send(&first).and_then(|()| send(&floats)),
                (_, true) => gpus.recv(&first, 1, &stream).and_then(|()| gpus.recv(&first, 1, &stream)),
                (_, false) => gpus.recv(&first, 1, &stream).and_then(|()| gpus.recv(&words, 1, &stream)),
            }
            .unwrap();
            let sentence = format!(
                "message 1 from rank 1 to rank 2: rank 1 sends 40000 f32, rank 2 receives {}; both must name the same \
                 type and length",
                if by_length { "10 f32" } else { "40000 u32" }
            );
            if comm.rank() != 0 {
                let error = stream.synchronize().unwrap_err();
                assert!(matches!(error, Error::Mismatch(_)), "{error:?}");
                assert_eq!(error.to_string(), sentence);
            }
            comm.barrier().unwrap();
            // Who took no part learns of it at its next call, and so do later calls on all.
            assert_eq!(gpus.barrier(&stream).unwrap_err().to_string(), sentence);
            assert_eq!(gpus.send(&first, (comm.rank() + 1) % 3, &stream).unwrap_err().to_string(), sentence);
            comm.barrier().unwrap();
        }
    });
}

#[test]
fn ranks_that_set_different_algorithms_are_told() {
    if absent() {
        return;
    }
    threads(2, |comm| {
        for sender in 0..2 {
            let (gpus, stream) = on(&comm);
            gpus.set_algorithm(ALGORITHMS[comm.rank()]).unwrap();
            let buffer = gpus.allocate::<f32>(40_000).unwrap();
            match comm.rank() == sender {
                true => gpus.send(&buffer, 1 - sender, &stream).unwrap(),
                false => gpus.recv(&buffer, sender, &stream).unwrap(),
            }
            let error = stream.synchronize().unwrap_err();
            let expected = format!(
                "message 0 from rank {sender} to rank {}: on rank 1 it goes as a schedule, on rank 0 by a kernel; set the \
                 algorithm alike on all ranks",
                1 - sender
            );
            assert_eq!(error.to_string(), expected);
            comm.barrier().unwrap();
        }
    });
}

#[test]
fn a_peer_that_never_comes_is_named_at_the_deadline() {
    if absent() {
        return;
    }
    everywhere(3, "failures::a_peer_that_never_comes_is_named_at_the_deadline", |comm| {
        for (sends, algorithm) in [true, false].into_iter().zip(ALGORITHMS) {
            let (gpus, stream) = on(&comm);
            gpus.set_algorithm(algorithm).unwrap();
            gpus.set_timeout(Duration::from_millis(200));
            let buffer = gpus.device().allocate::<f64>(3).unwrap();
            comm.barrier().unwrap();
            let what = if sends { "from rank 0 to rank 2" } else { "from rank 2 to rank 0" };
            if comm.rank() == 0 {
                let enqueued = if sends { gpus.send(&buffer, 2, &stream) } else { gpus.recv(&buffer, 2, &stream) };
                enqueued.unwrap();
                let error = stream.synchronize().unwrap_err();
                assert!(matches!(&error, Error::Timeout { missing, .. } if missing == &[2]), "{error:?}");
                let expected =
                    format!("message 0 {what}, 3 f64: rank 2 did not come to it within 200ms; see what keeps it");
                assert_eq!(error.to_string(), expected);
            }
            comm.barrier().unwrap();
            let later = gpus.recv(&buffer, (comm.rank() + 1) % 3, &stream).unwrap_err();
            assert!(matches!(&later, Error::Timeout { missing, .. } if missing == &[2]), "{later:?}");
            comm.barrier().unwrap();
        }
    });
}

/// Rank 0 waits for rank 1, which waits for rank 2.
#[test]
fn who_waits_itself_is_not_at_fault() {
    if absent() {
        return;
    }
    threads(3, |comm| {
        let (gpus, stream) = on(&comm);
        let buffer = gpus.device().allocate::<u8>(30).unwrap();
        comm.barrier().unwrap();
        gpus.set_timeout(Duration::from_millis(if comm.rank() == 0 { 400 } else { 60_000 }));
        match comm.rank() {
            0 => gpus.send(&buffer, 1, &stream).unwrap(),
            1 => gpus.recv(&buffer, 2, &stream).unwrap(),
            _ => {}
        }
        if comm.rank() < 2 {
            let error = stream.synchronize().unwrap_err();
            assert!(matches!(&error, Error::Timeout { missing, .. } if missing == &[2]), "{error:?}");
            assert!(error.to_string().contains("message 0 from rank 0 to rank 1, 30 u8: rank 2 kept"), "{error}");
        }
        comm.barrier().unwrap();
    });
}

#[test]
fn a_dead_peer_is_noticed_by_its_death() {
    if absent() {
        return;
    }
    let name = "failures::a_dead_peer_is_noticed_by_its_death";
    let ended = ranks::start(&[0, 1, 2], 3, name, &[], || {
        let comm = Communicator::from_env().unwrap();
        let (gpus, stream) = on(&comm);
        let buffer = gpus.device().allocate::<u16>(100_000).unwrap();
        let send_recv = |length: usize| {
            let (next, before) = ((comm.rank() + 1) % 3, (comm.rank() + 2) % 3);
            let parts = [0..length, 50_000..50_000 + length].map(|range| buffer.part(range).unwrap());
            gpus.send_recv(&parts[0], next, &parts[1], before, &stream)
        };
        send_recv(50_000).unwrap();
        stream.synchronize().unwrap();
        if comm.rank() == 2 {
            kill_process(getpid(), Signal::KILL).unwrap();
        }
        // The deadline is far away.
        send_recv(40_000).unwrap();
        let error = stream.synchronize().unwrap_err();
        assert!(matches!(&error, Error::RankLost { rank: 2, cause: Cause::Died, .. }), "{error:?}");
        let said = [
            "rank 1 waited for it to go on in message 1 from rank 1 to rank 2, 40000 u16",
            "rank 0 waited for it to go on in message 1 from rank 2 to rank 0, 40000 u16",
        ];
        assert!(said.iter().any(|said| error.to_string().contains(said)), "{error}");
        assert_eq!(send_recv(1), Err(error));
    });
    for rank in ended {
        assert_eq!(rank.status.success(), rank.rank != 2, "rank {}: {}", rank.rank, rank.output);
    }
}

/// Rank 1 dies of touching its own memory, in the middle of what it receives: on simulated devices, whose memory is the
/// process's.
#[test]
fn a_peer_that_dies_within_a_transfer_is_noticed_by_its_death() {
    const PAGE: usize = 4096;
    if absent() || !is_simulated() {
        return;
    }
    for (is_seen, algorithm) in [(false, ALGORITHMS[0]), (true, ALGORITHMS[0]), (false, ALGORITHMS[1])] {
        let how = algorithm.unwrap_or_default();
        let name = format!("failures::a_peer_that_dies_within_a_transfer_is_noticed_by_its_death {is_seen} {how}");
        let ended = ranks::start(&[0, 1], 2, &name, &[], || {
            let comm = Communicator::from_env().unwrap();
            let (gpus, stream) = on(&comm);
            gpus.set_algorithm(algorithm).unwrap();
            let plain = gpus.device().allocate::<u8>(100 * PAGE).unwrap();
            let seen = gpus.allocate::<u8>(100 * PAGE).unwrap();
            if comm.rank() == 1 {
                let closed = (seen.address() as usize + 50 * PAGE) as *mut _;
                // SAFETY: the page is mapped, and of memory that only kernels access: what they find closed, they die of.
                unsafe { mprotect(closed, PAGE, MprotectFlags::empty()) }.unwrap();
                gpus.recv(&seen, 0, &stream).unwrap();
            } else {
                gpus.send(if is_seen { &seen } else { &plain }, 1, &stream).unwrap();
            }
            let error = stream.synchronize().unwrap_err();
            assert!(matches!(&error, Error::RankLost { rank: 1, cause: Cause::Died, .. }), "{error:?}");
        });
        for rank in ended {
            assert_eq!(rank.status.success(), rank.rank == 0, "rank {}: {}", rank.rank, rank.output);
        }
    }
}

#[test]
fn a_peer_that_has_left_is_missed_soon() {
    if absent() {
        return;
    }
    everywhere(2, "failures::a_peer_that_has_left_is_missed_soon", |comm| {
        let (gpus, stream) = on(&comm);
        let buffer = gpus.allocate::<f32>(3000).unwrap();
        if comm.rank() == 1 {
            gpus.send(&buffer, 0, &stream).unwrap();
            drop(gpus);
            comm.barrier().unwrap();
            return;
        }
        // What it has enqueued before it left is done.
        gpus.recv(&buffer, 1, &stream).unwrap();
        stream.synchronize().unwrap();
        // The deadline is far away.
        gpus.recv(&buffer, 1, &stream).unwrap();
        let error = stream.synchronize().unwrap_err();
        assert!(matches!(&error, Error::RankLost { rank: 1, cause: Cause::Left, .. }), "{error:?}");
        assert!(error.to_string().contains("go on in message 1 from rank 1 to rank 0, 3000 f32"), "{error}");
        comm.barrier().unwrap();
    });
}

#[test]
fn an_abort_ends_a_message() {
    if absent() {
        return;
    }
    everywhere(2, "failures::an_abort_ends_a_message", |comm| {
        let (gpus, stream) = on(&comm);
        let buffer = gpus.device().allocate::<u8>(40_000).unwrap();
        comm.barrier().unwrap();
        if comm.rank() == 0 {
            std::thread::sleep(Duration::from_millis(20));
            gpus.abort("enough");
        } else {
            // It may be too late to enqueue it.
            gpus.batch(&stream, |batch| batch.send(&buffer, 0)).unwrap_or_default();
            let ended = stream.synchronize().and_then(|()| gpus.barrier(&stream));
            assert_eq!(ended.unwrap_err().to_string(), "rank 0 aborted: enough");
        }
        comm.barrier().unwrap();
    });
}

/// A graph may not name memory that has been given up.
#[test]
fn a_message_of_memory_that_is_gone_is_refused() {
    if absent() {
        return;
    }
    threads(2, |comm| {
        let (gpus, stream) = on(&comm);
        let buffer = gpus.allocate::<u8>(5000).unwrap();
        let graph = stream
            .capture(|stream| match comm.rank() {
                0 => gpus.send(&buffer, 1, stream),
                _ => gpus.recv(&buffer, 0, stream),
            })
            .unwrap();
        comm.barrier().unwrap();
        graph.launch(&stream).unwrap();
        gpus.deregister(&buffer).unwrap();
        graph.launch(&stream).unwrap();
        let error = stream.synchronize().unwrap_err();
        assert!(matches!(error, Error::Mismatch(_)), "{error:?}");
        let said = "message 1 from rank 0 to rank 1: rank 0 names memory that was deregistered";
        assert!(error.to_string().contains(said), "{error}");
        comm.barrier().unwrap();
    });
}

#[test]
fn what_one_rank_sees_wrong_is_refused_and_sends_nothing() {
    if absent() {
        return;
    }
    threads(2, |comm| {
        let (gpus, stream) = on(&comm);
        let (own, other) = (comm.rank(), 1 - comm.rank());
        let [buffer, got] = [200, 40].map(|length| gpus.device().allocate::<u32>(length).unwrap());
        comm.barrier().unwrap();
        let part = |first: usize, length: usize| buffer.part(first..first + length).unwrap();
        let refused = |result: Result<()>, parts: &[&str]| {
            let Err(Error::InvalidArgument(why)) = result else { panic!("{result:?}") };
            assert!(parts.iter().all(|part| why.contains(part)), "{why}");
        };
        refused(gpus.send(&buffer, 2, &stream), &["send on rank", "no rank 2; the ranks are 0 to 1"]);
        refused(gpus.recv(&buffer, own, &stream), &["cannot wait for itself; use send_recv, or a batch"]);
        refused(gpus.send_recv(&part(0, 5), other, &part(4, 5), other, &stream), &["send_recv", "overlaps"]);
        let twice = |batch: &annulus::communicator::DeviceBatch| {
            batch.recv(&part(0, 5), other);
            batch.recv(&part(2, 2), other);
        };
        refused(gpus.batch(&stream, twice), &["batch on rank", "overlaps"]);
        refused(gpus.batch(&stream, |batch| batch.send(&buffer, own)), &["sends 1 messages to itself and receives 0"]);
        refused(
            gpus.send_recv(&part(0, 3), own, &part(3, 4), own, &stream),
            &["sends 1 messages to itself and receives 1, which must be as many, of the same types and lengths"],
        );
        let many = |batch: &annulus::communicator::DeviceBatch| (0..65).for_each(|_| batch.send(&buffer, other));
        refused(gpus.batch(&stream, many), &["65 messages are too many at once; 64 can be"]);
        // As many as there can be, of which the same may be sent to several, and those to itself do not count.
        stream.fill(&buffer, own as u32).unwrap();
        gpus.batch(&stream, |batch| {
            for number in 0..32 {
                batch.send(&part(number, 1), other);
                batch.recv(&got.part(number..number + 1).unwrap(), other);
            }
            batch.send(&part(0, 8), own);
            batch.recv(&got.part(32..).unwrap(), own);
        })
        .unwrap();
        let expected: Vec<u32> = (0..40).map(|i| if i < 32 { other as u32 } else { own as u32 }).collect();
        assert_eq!(stream.read(&got).unwrap(), expected);
        gpus.batch(&stream, |_| {}).unwrap();
    });
}
