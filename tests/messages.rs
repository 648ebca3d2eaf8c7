// SPDX-License-Identifier: MPL-2.0
//! Messages from one rank to another: what arrives, in which order, what proceeds together, and what ends it.
#![cfg(target_os = "linux")]

mod ranks;

use std::sync::Barrier;
use std::time::Duration;

use annulus::{Communicator, Element, Error, ReduceOp};
use ranks::{everywhere, threads};

/// A message that no other is like.
fn payload(from: usize, to: usize, number: usize, len: usize) -> Vec<u32> {
    (0..len).map(|i| (from * 1_000_003 + to * 10_007 + number * 101 + i) as u32).collect()
}

/// Lengths around those of a record, a region and several segments.
const LENGTHS: [usize; 8] = [0, 1, 511, 512, 513, 20_000, 24_577, 100_000];

#[test]
fn every_length_arrives() {
    everywhere(2, "every_length_arrives", |comm| {
        for (number, len) in LENGTHS.into_iter().enumerate() {
            for is_shared in [false, true] {
                let sent = payload(0, 1, number, len);
                let mut shared = comm.allocate::<u32>(len).unwrap();
                let mut plain = vec![0; len];
                let buffer: &mut [u32] = if is_shared { &mut shared } else { &mut plain };
                if comm.rank() == 0 {
                    buffer.copy_from_slice(&sent);
                    comm.send(buffer, 1).unwrap();
                } else {
                    comm.recv(buffer, 0).unwrap();
                }
                assert!(*buffer == *sent, "{len} elements, shared: {is_shared}");
            }
        }
    });
}

/// One of each pair allocated, the other not; an odd place; another type.
#[test]
fn memory_of_two_kinds() {
    everywhere(2, "memory_of_two_kinds", |comm| {
        let mut shared = comm.allocate::<u8>(70_001).unwrap();
        let sent: Vec<u8> = (0..70_000).map(|i| (i % 251) as u8).collect();
        for turn in 0..4 {
            let is_sender = comm.rank() == turn % 2;
            let is_shared = (comm.rank() == 0) == (turn < 2);
            let mut plain = vec![0; 70_000];
            let buffer = if is_shared { &mut shared[1..] } else { &mut plain[..] };
            if is_sender {
                buffer.copy_from_slice(&sent);
                comm.send(buffer, 1 - comm.rank()).unwrap();
            } else {
                buffer.fill(0);
                comm.recv(buffer, 1 - comm.rank()).unwrap();
                assert!(*buffer == *sent, "turn {turn}");
            }
        }
    });
}

#[test]
fn a_ring_written_naively_does_not_lock() {
    everywhere(4, "a_ring_written_naively_does_not_lock", |comm| {
        let (rank, world) = (comm.rank(), comm.world_size());
        let (next, previous) = ((rank + 1) % world, (rank + world - 1) % world);
        for (number, len) in LENGTHS.into_iter().enumerate() {
            let sent = payload(rank, next, number, len);
            let mut got = vec![0; len];
            comm.batch(|batch| {
                batch.send(&sent, next);
                batch.recv(&mut got, previous);
            })
            .unwrap();
            assert!(got == payload(previous, rank, number, len));
            got.fill(0);
            comm.send_recv(&sent, next, &mut got, previous).unwrap();
            assert!(got == payload(previous, rank, number, len));
        }
    });
}

/// More messages than proceed at once, both ways, posted in opposite orders; every one arrives where it belongs.
#[test]
fn many_in_a_batch() {
    everywhere(3, "many_in_a_batch", |comm| {
        const EACH: usize = 30;
        let (rank, world) = (comm.rank(), comm.world_size());
        let len = |number: usize| [3, 700, 9_000][number % 3];
        let sent: Vec<Vec<Vec<u32>>> =
            (0..world).map(|to| (0..EACH).map(|k| payload(rank, to, k, len(k))).collect()).collect();
        let mut got: Vec<Vec<Vec<u32>>> = (0..world).map(|_| (0..EACH).map(|k| vec![0; len(k)]).collect()).collect();
        comm.batch(|batch| {
            let sends = || sent.iter().enumerate().for_each(|(to, all)| all.iter().for_each(|one| batch.send(one, to)));
            if rank % 2 == 0 {
                sends();
            }
            for (from, all) in got.iter_mut().enumerate().rev() {
                all.iter_mut().for_each(|one| batch.recv(one, from));
            }
            if rank % 2 == 1 {
                sends();
            }
        })
        .unwrap();
        for (from, all) in got.iter().enumerate() {
            for (k, one) in all.iter().enumerate() {
                assert!(*one == payload(from, rank, k, len(k)), "message {k} from {from} to {rank}");
            }
        }
    });
}

/// Started messages and collectives are in flight together, and are awaited in any order.
#[test]
fn started_messages_and_collectives() {
    everywhere(2, "started_messages_and_collectives", |comm| {
        let other = 1 - comm.rank();
        for turn in 0..20 {
            let send = comm.start_send(payload(comm.rank(), other, turn, 5_000), other).unwrap();
            let sum = comm.start_all_reduce_in_place(vec![1_u32; 30_000], ReduceOp::Sum).unwrap();
            let recv = comm.start_recv(vec![0; 5_000], other).unwrap();
            comm.barrier().unwrap();
            assert_eq!(recv.wait().unwrap(), payload(other, comm.rank(), turn, 5_000));
            assert_eq!(sum.wait().unwrap(), vec![2; 30_000]);
            assert_eq!(send.wait().unwrap(), payload(comm.rank(), other, turn, 5_000));
        }
        // Nobody waits for these; they are done all the same.
        drop(comm.start_send(vec![7_u8], other).unwrap());
        drop(comm.start_recv(vec![0_u8], other).unwrap());
    });
}

#[test]
fn parts_have_messages_of_their_own() {
    everywhere(4, "parts_have_messages_of_their_own", |comm| {
        let part = comm.split((comm.rank() % 2) as u64, -(comm.rank() as i64)).unwrap().unwrap();
        let (mut whole, mut own) = ([0_u64], [0_u64]);
        // The same two ranks here and there, under other numbers.
        let (peer, peer_there) = ((comm.rank() + 2) % 4, 1 - part.rank());
        comm.batch(|batch| {
            batch.send(&[1_u64], peer);
            batch.recv(&mut whole, peer);
        })
        .unwrap();
        part.send_recv(&[2_u64], peer_there, &mut own, peer_there).unwrap();
        assert_eq!((whole, own), ([1], [2]));
    });
}

#[test]
fn what_one_rank_can_see_wrong_is_said_and_nothing_is_sent() {
    threads(2, |comm| {
        let (own, other) = (comm.rank(), 1 - comm.rank());
        let sentence = |result: annulus::Result<()>| match result {
            Err(Error::InvalidArgument(sentence)) => sentence.to_string(),
            other => panic!("{other:?}"),
        };
        let missing = format!("send on rank {own}: there is no rank 2; the ranks are 0 to 1");
        assert_eq!(sentence(comm.send(&[1], 2)), missing);
        assert!(sentence(comm.recv(&mut [1], own)).contains("cannot wait for itself; use send_recv, or a batch"));
        assert!(
            sentence(comm.batch(|batch| batch.send(&[1], own))).contains("sends 1 messages to itself and receives 0")
        );
        let mut got = [0_u8; 4];
        let wrong = comm.batch(|batch| {
            batch.send(&[1_u32], own);
            batch.recv(&mut got, own);
        });
        assert!(sentence(wrong).contains("of the same types and lengths"));
        let (sent, mut got) = ([own as u32, 5], [0, 0]);
        comm.batch(|batch| {
            batch.send(&sent, other);
            batch.recv(&mut got, other);
        })
        .unwrap();
        assert_eq!(got, [other as u32, 5]);
    });
}

fn disagree<T: Element, U: Element>(comm: &Communicator, sent: &[T], got: &mut [U]) -> String {
    let result = if comm.rank() == 1 { comm.send(sent, 2) } else { comm.recv(got, 1) };
    match result {
        Err(Error::Mismatch(sentence)) => sentence.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn ranks_that_disagree_are_named() {
    everywhere(3, "ranks_that_disagree_are_named", |comm| {
        if comm.rank() == 0 {
            // It takes no part, and learns of it at its next call.
            let error = loop {
                if let Err(error) = comm.barrier() {
                    break error;
                }
            };
            assert!(matches!(&error, Error::Mismatch(_) | Error::RankLost { .. }), "{error}");
            return;
        }
        let sentence = disagree(&comm, &[1.0_f32; 10], &mut [0.0_f32; 11]);
        assert_eq!(
            sentence,
            "message 0 from rank 1 to rank 2: rank 1 sends 10 f32, rank 2 receives 11 f32; both must name the same type \
             and length"
        );
        // A failure is the communicator's.
        assert!(matches!(comm.barrier(), Err(Error::Mismatch(_))));
    });
    threads(3, |comm| {
        if comm.rank() > 0 {
            assert!(
                disagree(&comm, &[1_u16; 4], &mut [0_i16; 4]).contains("rank 1 sends 4 u16, rank 2 receives 4 i16")
            );
        }
    });
}

#[test]
fn a_rank_that_leaves_is_named() {
    everywhere(3, "a_rank_that_leaves_is_named", |comm| {
        // Rank 1 takes no part, and does not leave before rank 0 has found out.
        let pair = comm.split((comm.rank() < 2) as u64, 0).unwrap().unwrap();
        match comm.rank() {
            0 => {
                let error = comm.recv(&mut [0_u8; 9_000], 2).unwrap_err();
                assert!(matches!(&error, Error::RankLost { rank: 2, .. }), "{error}");
                assert!(error.to_string().contains("a message of 9000 u8 from rank 2 to rank 0"), "{error}");
                pair.barrier().unwrap();
            }
            1 => pair.barrier().unwrap(),
            _ => drop(comm),
        }
    });
}

#[test]
fn a_late_rank_is_named_at_the_deadline() {
    let over = Barrier::new(2);
    threads(2, |comm| {
        if comm.rank() == 0 {
            comm.set_timeout(Duration::from_millis(50));
            let error = comm.send(&[1.0_f64; 3], 1).unwrap_err();
            let Error::Timeout { missing, context } = &error else { panic!("{error}") };
            assert_eq!(missing, &[1]);
            assert!(context.contains("a message of 3 f64 from rank 0 to rank 1: rank 0 waited 0.050 s"), "{context}");
            over.wait();
        } else {
            over.wait();
            assert!(matches!(comm.recv(&mut [0.0_f64; 3], 0), Err(Error::Timeout { .. })));
        }
    });
}

#[test]
fn an_abort_wakes_who_waits_for_a_message() {
    everywhere(2, "an_abort_wakes_who_waits_for_a_message", |comm| {
        if comm.rank() == 0 {
            std::thread::sleep(Duration::from_millis(20));
            comm.abort("enough");
        } else {
            let error = comm.batch(|batch| batch.send(&[0_u8; 40_000], 0)).unwrap_err();
            assert_eq!(error.to_string(), "rank 0 aborted: enough");
        }
    });
}
