// SPDX-License-Identifier: MPL-2.0
//! When messages arrive: after they are enqueued, those of a pair one after the other, and again each time a graph is
//! launched; and none of a batch waits for another.

use std::time::Duration;

use annulus::ReduceOp;
use annulus::driver::DeviceBuffer;

use super::{ALGORITHMS, absent, block, everywhere, on, threads};

#[test]
fn a_ring_that_is_written_naively_does_not_wait_in_a_circle() {
    if absent() {
        return;
    }
    everywhere(4, "order::a_ring_that_is_written_naively_does_not_wait_in_a_circle", |comm| {
        let (gpus, stream) = on(&comm);
        let (n, rank) = (comm.world_size(), comm.rank());
        // Longer than what waits in slots, in memory that peers do not see.
        let [mut here, mut there] = [0, 1].map(|_| gpus.device().allocate::<u32>(30_000).unwrap());
        comm.barrier().unwrap();
        stream.fill(&here, rank as u32).unwrap();
        for _ in 0..n {
            gpus.batch(&stream, |batch| {
                batch.send(&here, (rank + 1) % n);
                batch.recv(&there, (rank + n - 1) % n);
            })
            .unwrap();
            std::mem::swap(&mut here, &mut there);
        }
        // It has come round.
        assert!(stream.read(&here).unwrap() == vec![rank as u32; 30_000]);
        assert!(stream.read(&there).unwrap() == vec![((rank + 1) % n) as u32; 30_000]);
    });
}

/// What rank 0 receives in its batch comes of what it sends there, by way of two others' single messages.
#[test]
fn messages_of_a_batch_do_not_wait_for_one_another() {
    if absent() {
        return;
    }
    threads(3, |comm| {
        let (gpus, stream) = on(&comm);
        let [one, other] = [0, 1].map(|_| gpus.device().allocate::<f64>(20_000).unwrap());
        comm.barrier().unwrap();
        stream.fill(&one, comm.rank() as f64).unwrap();
        match comm.rank() {
            0 => gpus.batch(&stream, |batch| {
                batch.recv(&other, 2);
                batch.send(&one, 1);
            }),
            rank => gpus.recv(&other, rank - 1, &stream).and_then(|()| gpus.send(&other, (rank + 1) % 3, &stream)),
        }
        .unwrap();
        assert!(stream.read(&other).unwrap() == [0.0; 20_000]);
    });
}

#[test]
fn messages_of_a_pair_keep_their_order() {
    if absent() {
        return;
    }
    threads(2, |comm| {
        let (gpus, stream) = on(&comm);
        let (rank, other) = (comm.rank(), gpus.device().stream().unwrap());
        let memory: [DeviceBuffer<u16>; 2] = [gpus.allocate(3000).unwrap(), gpus.device().allocate(3000).unwrap()];
        comm.barrier().unwrap();
        for turn in 0..20_u16 {
            let buffer = &memory[usize::from(turn) % 2];
            let part = |number: usize| buffer.part(number * 600..number * 600 + 100 * number + 1).unwrap();
            // On two streams, of which the first is blocked: the order is that of the calls.
            let open = block(&stream);
            if rank == 0 {
                (0..5).for_each(|number| stream.fill(&part(number), turn + number as u16).unwrap());
                gpus.batch(&stream, |batch| (0..3).for_each(|number| batch.send(&part(number), 1))).unwrap();
                gpus.send(&part(3), 1, &other).unwrap();
                gpus.send(&part(4), 1, &stream).unwrap();
            } else {
                gpus.recv(&part(0), 0, &stream).unwrap();
                gpus.recv(&part(1), 0, &other).unwrap();
                gpus.batch(&other, |batch| (2..5).for_each(|number| batch.recv(&part(number), 0))).unwrap();
            }
            drop(open);
            for number in 0..5 {
                assert_eq!(stream.read(&part(number)).unwrap(), vec![turn + number as u16; 100 * number + 1]);
            }
        }
    });
}

#[test]
fn a_message_returns_before_its_stream_comes_to_it() {
    if absent() {
        return;
    }
    threads(2, |comm| {
        let (gpus, stream) = on(&comm);
        let buffer = gpus.allocate::<i64>(1000).unwrap();
        for algorithm in ALGORITHMS {
            gpus.set_algorithm(algorithm).unwrap();
            let open = block(&stream);
            stream.fill(&buffer, 5 + comm.rank() as i64).unwrap();
            // Every rank's stream is blocked, so nothing can proceed before all has been enqueued.
            match comm.rank() {
                0 => gpus.send(&buffer, 1, &stream),
                _ => gpus.recv(&buffer, 0, &stream),
            }
            .unwrap();
            comm.barrier().unwrap();
            drop(open);
            assert_eq!(stream.read(&buffer).unwrap(), [5; 1000]);
        }
    });
}

/// A graph of messages and of calls of all ranks, launched with changing input between the same as they are, while
/// other pairs have messages of their own.
fn launch_many_times(algorithm: Option<&str>, turns: u32) {
    threads(3, |comm| {
        let (gpus, stream) = on(&comm);
        gpus.set_algorithm(algorithm).unwrap();
        let rank = comm.rank();
        let (mine, sum) = (gpus.device().allocate::<f32>(200).unwrap(), gpus.allocate::<f32>(200).unwrap());
        let got = [gpus.allocate::<f32>(200).unwrap(), gpus.device().allocate::<f32>(200).unwrap()];
        comm.barrier().unwrap();
        let peers = [(rank + 1) % 3, (rank + 2) % 3];
        let step = |stream: &annulus::driver::Stream| {
            gpus.batch(stream, |batch| {
                for (peer, got) in peers.iter().zip(&got) {
                    batch.send(&mine, *peer);
                    batch.recv(got, *peer);
                }
            })?;
            gpus.all_reduce(&got[0], &sum, ReduceOp::Sum, stream)?;
            // On one rank's way alone.
            match rank {
                0 => gpus.send(&sum.part(..5)?, 2, stream),
                2 => gpus.recv(&mine.part(3..8)?, 0, stream),
                _ => Ok(()),
            }
        };
        let graph = stream.capture(step).unwrap();
        comm.barrier().unwrap();
        for turn in 0..turns {
            let value = |rank: usize| (turn + 10 * rank as u32) as f32;
            stream.fill(&mine, value(rank)).unwrap();
            match turn % 10 {
                3 => step(&stream).unwrap(),
                7 if rank != 1 => {
                    // Another message, between launches of the graph.
                    gpus.send_recv(&mine, 2 - rank, &got[0], 2 - rank, &stream).unwrap();
                    graph.launch(&stream).unwrap();
                }
                _ => graph.launch(&stream).unwrap(),
            }
            if turn % 20 == 7 || turn < 10 {
                let whole = value(0) + value(1) + value(2);
                for (peer, got) in peers.iter().zip(&got) {
                    assert_eq!(stream.read(got).unwrap(), [value(*peer); 200], "turn {turn}");
                }
                assert_eq!(stream.read(&sum).unwrap(), [whole; 200], "turn {turn}");
                let expected = if rank == 2 { whole } else { value(rank) };
                assert_eq!(stream.read(&mine.part(3..8).unwrap()).unwrap(), [expected; 5], "turn {turn}");
            }
        }
    });
}

#[test]
fn a_graph_of_messages_is_launched_many_times() {
    if !absent() {
        launch_many_times(None, 300);
    }
}

#[test]
fn a_graph_of_messages_by_copies_is_launched_many_times() {
    if !absent() {
        launch_many_times(ALGORITHMS[1], 100);
    }
}

#[test]
fn waiting_for_a_late_peer_is_told_apart_from_moving_data() {
    if absent() {
        return;
    }
    threads(3, |comm| {
        let (gpus, stream) = on(&comm);
        let buffer = gpus.allocate::<f32>(1000).unwrap();
        assert_eq!(gpus.batches(), []);
        // On a busy machine the receiver may be later, or stand still between its entry and its first look: then again.
        let mut told = 0;
        for attempt in 1..=10 {
            gpus.set_algorithm(ALGORITHMS[attempt % 2]).unwrap();
            let open = (comm.rank() == 1).then(|| block(&stream));
            match comm.rank() {
                0 => gpus.recv(&buffer, 1, &stream).unwrap(),
                1 => gpus.send(&buffer, 0, &stream).unwrap(),
                _ => {}
            }
            comm.barrier().unwrap();
            std::thread::sleep(Duration::from_millis(20));
            drop(open);
            stream.synchronize().unwrap();
            let records = gpus.batches();
            assert_eq!(records.len(), if comm.rank() == 2 { 0 } else { attempt });
            let mut arrived = [0; 3];
            comm.all_gather(&[records.last().map_or(0, |record| record.arrived)], &mut arrived).unwrap();
            let Some(record) = records.last() else { continue };
            assert_eq!((record.messages, record.sent + record.received), (1, 4000));
            assert!(record.arrived <= record.last_arrived && record.last_arrived <= record.done, "{record:?}");
            if arrived[1] > arrived[0] + 1_000_000 && comm.rank() == 0 && record.last_rank == 1 {
                told += 1;
                assert_eq!(record.received, 4000, "{record:?}");
                let least = Duration::from_nanos(arrived[1] - arrived[0]);
                assert!(record.wait >= least && !record.transfer.is_zero(), "{record:?}, {arrived:?}");
            }
        }
        assert!(comm.rank() != 0 || told > 0, "rank 1 was never the last by a millisecond, or never said to be");
        gpus.set_algorithm(None).unwrap();
        assert!(gpus.calls().is_empty(), "they are no calls of all ranks");
        let said = [true, false].map(|allocated| gpus.explain_message::<f32>(1 << 20, allocated));
        assert!(said[0].path.contains("zero-copy") && !said[0].staged && said[0].shape.blocks > 1, "{}", said[0]);
        assert!(said[1].reason.contains("into slots") && said[1].staged, "{}", said[1]);
    });
}
