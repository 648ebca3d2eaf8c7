// SPDX-License-Identifier: MPL-2.0
//! Started calls go on while their rank does something else, end in any order, and give their buffers back.
#![cfg(target_os = "linux")]

mod ranks;

use std::io::Read;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use annulus::schedule::Collective;
use annulus::{Communicator, Error, ReduceOp, Shared};

use ranks::{everywhere, processes, threads};

/// Elements of 16 MiB.
const LARGE: usize = (16 << 20) / 4;

/// What rank `rank` contributes to call `call` at `element`; integers, so that sums are exact.
fn value(rank: usize, call: usize, element: usize) -> f32 {
    ((rank + 1) * (call + 1) % 97 + element % 11) as f32
}

fn contribution(comm: &Communicator, call: usize, len: usize) -> Vec<f32> {
    (0..len).map(|element| value(comm.rank(), call, element)).collect()
}

/// The same, in memory that peers map.
fn shared_contribution(comm: &Communicator, call: usize, len: usize) -> Shared<f32> {
    let mut shared = comm.allocate(len).unwrap();
    shared.copy_from_slice(&contribution(comm, call, len));
    shared
}

/// Panics unless `sums` are the sums of all ranks' contributions to `call`.
#[track_caller]
fn check_sums(comm: &Communicator, call: usize, sums: &[f32]) {
    let wrong = sums.iter().enumerate().find(|(element, sum)| {
        let expected: f32 = (0..comm.world_size()).map(|rank| value(rank, call, *element)).sum();
        **sum != expected
    });
    assert_eq!(wrong, None, "call {call} of {} elements on rank {}", sums.len(), comm.rank());
}

#[test]
fn a_call_goes_on_while_its_rank_is_blocked_among_threads() {
    let (sender, receiver) = mpsc::channel();
    let (sender, receiver) = (Mutex::new(sender), Mutex::new(receiver));
    threads(2, |comm| {
        let pending = comm.start_all_reduce_in_place(contribution(&comm, 0, LARGE), ReduceOp::Sum).unwrap();
        if comm.rank() == 0 {
            receiver.lock().unwrap().recv().unwrap();
            check_sums(&comm, 0, &pending.wait().unwrap());
        } else {
            check_sums(&comm, 0, &pending.wait().unwrap());
            sender.lock().unwrap().send(()).unwrap();
        }
    });
}

#[test]
fn a_call_goes_on_while_its_rank_is_blocked_among_processes() {
    for allocated in [true, false] {
        let name = format!("a_call_goes_on_while_its_rank_is_blocked_among_processes {allocated}");
        processes(2, &name, |comm| {
            // Only rank 0's operating system knows what it waits for.
            let address = SocketAddr::from_abstract_name(std::env::var("ANNULUS_JOB").unwrap()).unwrap();
            let listener = (comm.rank() == 0).then(|| UnixListener::bind_addr(&address).unwrap());
            comm.barrier().unwrap();
            let block = || match &listener {
                Some(listener) => assert_eq!(listener.accept().unwrap().0.read(&mut [0]).unwrap(), 0),
                None => drop(UnixStream::connect_addr(&address).unwrap()),
            };
            if allocated {
                let pending =
                    comm.start_all_reduce_in_place(shared_contribution(&comm, 0, LARGE), ReduceOp::Sum).unwrap();
                check_blocked(&comm, pending, block);
            } else {
                let pending = comm.start_all_reduce_in_place(contribution(&comm, 0, LARGE), ReduceOp::Sum).unwrap();
                check_blocked(&comm, pending, block);
            }
        });
    }
}

/// Rank 0 blocks before it waits; rank 1 lets it go on when it has waited.
fn check_blocked<B>(comm: &Communicator, pending: annulus::Pending<B>, block: impl Fn())
where
    B: std::ops::Deref<Target: AsRef<[f32]>> + Send + 'static,
{
    if comm.rank() == 0 {
        block();
        check_sums(comm, 0, (*pending.wait().unwrap()).as_ref());
    } else {
        check_sums(comm, 0, (*pending.wait().unwrap()).as_ref());
        block();
    }
}

/// A look at a call waits for nobody, and moves it on; what is done is done, well or not.
#[test]
fn calls_are_looked_at() {
    let (sender, receiver) = mpsc::channel();
    let (sender, receiver) = (Mutex::new(sender), Mutex::new(receiver));
    threads(2, |comm| {
        let meet = || match comm.rank() {
            0 => sender.lock().unwrap().send(()).unwrap(),
            _ => receiver.lock().unwrap().recv().unwrap(),
        };
        if comm.rank() == 0 {
            let pending = comm.start_all_reduce_in_place(contribution(&comm, 0, LARGE), ReduceOp::Sum).unwrap();
            assert!(!pending.is_done());
            assert_eq!(format!("{pending:?}"), "Pending { call: 0, .. }");
            meet();
            while !pending.is_done() {}
            check_sums(&comm, 0, &pending.wait().unwrap());
            let message = comm.start_recv(vec![0_u8; 10], 1).unwrap();
            assert!(!message.is_done() && message.call() == 0);
            meet();
            while !message.is_done() {}
            assert_eq!(message.wait().unwrap(), [7; 10]);
        } else {
            meet();
            let mut sums = contribution(&comm, 0, LARGE);
            comm.all_reduce_in_place(&mut sums, ReduceOp::Sum).unwrap();
            check_sums(&comm, 0, &sums);
            meet();
            comm.send(&[7_u8; 10], 0).unwrap();
        }
        let mut sums = contribution(&comm, 1, 1000);
        comm.scope(|scope| {
            let pending = scope.start_all_reduce_in_place(&mut sums, ReduceOp::Sum)?;
            assert_eq!((pending.call(), format!("{pending:?}").as_str()), (1, "ScopedPending { call: 1, .. }"));
            while !pending.is_done() {}
            pending.wait().map(drop)
        })
        .unwrap();
        check_sums(&comm, 1, &sums);
        if comm.rank() == 0 {
            let pending = comm.start_barrier().unwrap();
            comm.abort("to see what happens");
            while !pending.is_done() {}
            assert!(matches!(pending.wait(), Err(Error::Aborted(_))));
        }
    });
}

/// A thread that waits for a call which is over already is not kept by another thread's blocking call, which may be
/// waiting for what that thread does next.
#[test]
fn a_call_that_is_over_is_awaited_while_another_thread_is_in_a_call() {
    let (sender, receiver) = mpsc::channel();
    let (sender, receiver) = (Mutex::new(sender), Mutex::new(receiver));
    threads(2, |comm| {
        comm.set_timeout(Duration::from_secs(10));
        let pending = comm.start_all_reduce_in_place(contribution(&comm, 0, 100), ReduceOp::Sum).unwrap();
        if comm.rank() == 1 {
            pending.wait().unwrap();
            receiver.lock().unwrap().recv().unwrap();
            return comm.barrier().unwrap();
        }
        while comm.record(pending.call()).is_none() {
            std::thread::yield_now();
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // By then this rank is in the barrier; if it is not, nothing is shown, and nothing fails.
                std::thread::sleep(Duration::from_millis(100));
                pending.wait().unwrap();
                sender.lock().unwrap().send(()).unwrap();
            });
            comm.barrier().unwrap();
        });
    });
}

#[test]
fn calls_are_awaited_in_any_order() {
    everywhere(3, "calls_are_awaited_in_any_order", |comm| {
        for len in [10, 100_000] {
            let first = comm.start_all_reduce_in_place(contribution(&comm, 1, len), ReduceOp::Sum).unwrap();
            let second = comm.start_all_reduce_in_place(contribution(&comm, 2, len + 1), ReduceOp::Sum).unwrap();
            let (first, second) = if comm.rank() == 0 {
                let second = second.wait().unwrap();
                (first.wait().unwrap(), second)
            } else {
                (first.wait().unwrap(), second.wait().unwrap())
            };
            check_sums(&comm, 1, &first);
            check_sums(&comm, 2, &second);
        }
    });
}

#[test]
fn handles_may_be_forgotten_and_dropped() {
    everywhere(2, "handles_may_be_forgotten_and_dropped", |comm| {
        for call in 0..30 {
            let len = [7, 5_000, 200_000][call % 3];
            let pending = comm.start_all_reduce_in_place(contribution(&comm, call, len), ReduceOp::Sum).unwrap();
            // Each rank does something else with it.
            match (call + comm.rank()) % 3 {
                0 => std::mem::forget(pending),
                1 => drop(pending),
                _ => check_sums(&comm, call, &pending.wait().unwrap()),
            }
        }
        let mut sums = contribution(&comm, 30, 1000);
        comm.all_reduce_in_place(&mut sums, ReduceOp::Sum).unwrap();
        check_sums(&comm, 30, &sums);
        // The last ones are in flight when the communicator is dropped.
        drop(comm.start_all_reduce_in_place(contribution(&comm, 31, LARGE), ReduceOp::Sum).unwrap());
        std::mem::forget(comm.start_all_reduce_in_place(contribution(&comm, 32, 1000), ReduceOp::Sum).unwrap());
    });
}

#[test]
fn more_calls_than_channels_are_started() {
    everywhere(2, "more_calls_than_channels_are_started", |comm| {
        for len in [3, 3_000, 30_000] {
            let before = comm.calls().len() as u64;
            let all: Vec<_> = (0..20)
                .map(|call| {
                    let send = shared_contribution(&comm, call, len);
                    comm.start_all_reduce(send, vec![0.0; len], ReduceOp::Sum).unwrap()
                })
                .collect();
            for (call, pending) in all.into_iter().enumerate().rev() {
                assert_eq!(pending.call(), before + call as u64);
                let (send, recv) = pending.wait().unwrap();
                assert_eq!(&*send, contribution(&comm, call, len));
                check_sums(&comm, call, &recv);
            }
        }
    });
}

#[test]
fn started_and_blocking_calls_mix() {
    everywhere(3, "started_and_blocking_calls_mix", |comm| {
        for round in 0..5 {
            let large = comm.start_all_reduce_in_place(contribution(&comm, round, 300_000), ReduceOp::Sum).unwrap();
            // Blocking calls do not wait for it.
            for call in 0..20 {
                let len = if call % 2 == 0 { 9 } else { 20_000 };
                let mut sums = contribution(&comm, call, len);
                comm.all_reduce_in_place(&mut sums, ReduceOp::Sum).unwrap();
                check_sums(&comm, call, &sums);
                comm.barrier().unwrap();
            }
            let small = comm.start_all_reduce_in_place(contribution(&comm, 50, 2), ReduceOp::Sum).unwrap();
            let mut gathered = vec![0; comm.world_size()];
            comm.all_gather(&[comm.rank() as u64], &mut gathered).unwrap();
            assert_eq!(gathered, [0, 1, 2]);
            check_sums(&comm, 50, &small.wait().unwrap());
            check_sums(&comm, round, &large.wait().unwrap());
        }
    });
}

#[test]
fn scopes_borrow() {
    everywhere(2, "scopes_borrow", |comm| {
        let mut awaited = contribution(&comm, 0, 100_000);
        let mut forgotten = contribution(&comm, 1, 100_000);
        let mut dropped = shared_contribution(&comm, 2, 100_000);
        let (send, mut recv) = (contribution(&comm, 3, 5), vec![0.0; 5]);
        let returned = comm.scope(|scope| {
            let first = scope.start_all_reduce_in_place(&mut awaited, ReduceOp::Sum)?;
            std::mem::forget(scope.start_all_reduce_in_place(&mut forgotten, ReduceOp::Sum)?);
            drop(scope.start_all_reduce_in_place(&mut dropped, ReduceOp::Sum)?);
            let second = scope.start_all_reduce(&send, &mut recv, ReduceOp::Sum)?;
            check_sums(&comm, 3, second.wait()?);
            let sums = first.wait()?;
            check_sums(&comm, 0, sums);
            // The borrow is back: it may be written again before the scope ends.
            sums[0] = -1.0;
            Ok(17)
        });
        assert_eq!(returned.unwrap(), 17);
        assert_eq!(awaited[0], -1.0);
        check_sums(&comm, 1, &forgotten);
        check_sums(&comm, 2, &dropped);
        check_sums(&comm, 3, &recv);
    });
}

#[test]
fn a_panic_inside_a_scope_leaves_the_buffers_usable() {
    everywhere(2, "a_panic_inside_a_scope_leaves_the_buffers_usable", |comm| {
        let mut sums = contribution(&comm, 4, 200_000);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            comm.scope(|scope| {
                std::mem::forget(scope.start_all_reduce_in_place(&mut sums, ReduceOp::Sum)?);
                match comm.rank() {
                    0 => std::panic::resume_unwind(Box::new("on purpose")), // without a message on standard error
                    _ => Ok(()),
                }
            })
        }));
        assert_eq!(outcome.is_err(), comm.rank() == 0);
        // The call was completed before the borrow ended, and the communicator goes on.
        check_sums(&comm, 4, &sums);
        sums.fill(1.0);
        comm.all_reduce_in_place(&mut sums, ReduceOp::Sum).unwrap();
        assert_eq!(sums[7], 2.0);
    });
}

#[test]
fn an_error_inside_a_scope_comes_out_of_it() {
    everywhere(2, "an_error_inside_a_scope_comes_out_of_it", |comm| {
        let (send, mut recv) = (contribution(&comm, 0, 3), vec![0.0; 4]);
        let error = comm.scope(|scope| scope.start_all_reduce(&send, &mut recv, ReduceOp::Sum).map(drop)).unwrap_err();
        assert!(error.to_string().contains("send has 3 elements and recv 4"), "{error}");
        comm.barrier().unwrap();
    });
}

#[test]
fn duplicates_are_used_from_other_threads() {
    everywhere(2, "duplicates_are_used_from_other_threads", |comm| {
        let duplicate = comm.duplicate().unwrap();
        let second = duplicate.duplicate().unwrap();
        assert_eq!((duplicate.rank(), duplicate.world_size()), (comm.rank(), 2));
        // Alternately, the ranks in another order.
        for call in 0..10 {
            let mut sums = [contribution(&comm, call, 4), contribution(&comm, call + 1, 40_000)];
            let [small, large] = &mut sums;
            let started = comm.start_all_reduce_in_place(large.clone(), ReduceOp::Sum).unwrap();
            duplicate.all_reduce_in_place(small, ReduceOp::Sum).unwrap();
            *large = started.wait().unwrap();
            check_sums(&comm, call, small);
            check_sums(&comm, call + 1, large);
        }
        let work = |comm: &Communicator, len: usize| {
            for call in 0..50 {
                let mut sums = contribution(comm, call, len);
                comm.all_reduce_in_place(&mut sums, ReduceOp::Sum).unwrap();
                check_sums(comm, call, &sums);
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let duplicate = duplicate; // moved here, and dropped here
                work(&duplicate, 3_000);
            });
            scope.spawn(|| {
                let second = second;
                work(&second, 11);
            });
            work(&comm, 5_000);
        });
        // They are gone; the one they were made of is not.
        comm.barrier().unwrap();
    });
}

#[test]
fn a_failed_duplicate_leaves_its_parent_alone() {
    everywhere(2, "a_failed_duplicate_leaves_its_parent_alone", |comm| {
        let mut buffer = shared_contribution(&comm, 0, 100_000);
        for _ in 0..2 {
            let duplicate = comm.duplicate().unwrap();
            duplicate.barrier().unwrap();
            if comm.rank() == 0 {
                duplicate.abort("to see what happens");
            }
            // Its pages are taken away from the peers on the way.
            while duplicate.all_reduce_in_place(&mut buffer, ReduceOp::Sum).is_ok() {}
            buffer.copy_from_slice(&contribution(&comm, 3, 100_000));
            comm.all_reduce_in_place(&mut buffer, ReduceOp::Sum).unwrap();
            check_sums(&comm, 3, &buffer);
            let sums = comm.start_all_reduce_in_place(shared_contribution(&comm, 5, 9_000), ReduceOp::Sum).unwrap();
            check_sums(&comm, 5, &sums.wait().unwrap());
        }
    });
}

#[test]
fn parts_of_a_shared_buffer_are_in_flight_by_themselves() {
    everywhere(2, "parts_of_a_shared_buffer_are_in_flight_by_themselves", |comm| {
        let len = 5 * Shared::<f32>::PAGE + 3;
        let whole = shared_contribution(&comm, 0, len);
        let error = comm.allocate::<f32>(10).unwrap().split_at(4).unwrap_err();
        assert!(error.to_string().contains("is split at a multiple of 1024"), "{error}");
        let (first, rest) = whole.split_at(Shared::<f32>::PAGE).unwrap();
        let (second, third) = rest.split_at(3 * Shared::<f32>::PAGE).unwrap();
        let mut parts = vec![first, second, third];
        let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
        assert_eq!(lengths, [1024, 3072, 1027]);
        for part in 0..3 {
            parts[part].copy_from_slice(&contribution(&comm, part, lengths[part]));
        }
        let in_flight: Vec<_> =
            parts.into_iter().map(|part| comm.start_all_reduce_in_place(part, ReduceOp::Sum).unwrap()).collect();
        for (part, pending) in in_flight.into_iter().enumerate().rev() {
            check_sums(&comm, part, &pending.wait().unwrap());
        }
    });
}

#[test]
fn calls_are_numbered_and_recorded() {
    everywhere(2, "calls_are_numbered_and_recorded", |comm| {
        assert_eq!(comm.last_call(), None);
        comm.barrier().unwrap();
        let started = comm.start_all_reduce_in_place(vec![1.0_f64; 1000], ReduceOp::Avg).unwrap();
        assert_eq!(started.call(), 1);
        let mut back = started.wait().unwrap();
        back.push(3.0); // the vector itself
        comm.broadcast_in_place(&mut back, 1).unwrap();
        let calls = comm.calls();
        let numbers: Vec<u64> = calls.iter().map(|record| record.call).collect();
        assert_eq!(numbers, [0, 1, 2]);
        let record = comm.record(1).unwrap();
        assert_eq!((record.collective, record.op, record.bytes), (Collective::AllReduce, Some(ReduceOp::Avg), 8000));
        assert!(record.arrived <= record.last_arrived && record.last_arrived <= record.done, "{record:?}");
        assert!(record.last_rank < 2);
        assert_eq!(comm.last_call().unwrap().bytes, 8008);
        assert_eq!(comm.record(3), None);
        // Only so many are remembered.
        for _ in 0..300 {
            comm.barrier().unwrap();
        }
        assert_eq!(comm.calls().len(), 256);
        assert_eq!((comm.record(2), comm.last_call().unwrap().call), (None, 302));
    });
}

#[test]
fn a_world_of_one() {
    everywhere(1, "a_world_of_one", |comm| {
        for len in [0, 1, 600, 100_000] {
            let send = contribution(&comm, 0, len);
            let mut recv = vec![0.0; len];
            comm.all_reduce(&send, &mut recv, ReduceOp::Avg).unwrap();
            assert_eq!(recv, send);
            comm.reduce_scatter(&send, &mut recv, ReduceOp::Prod).unwrap();
            comm.all_gather(&send, &mut recv).unwrap();
            comm.broadcast(Some(&send), &mut recv, 0).unwrap();
            comm.all_gather_in_place(&mut recv).unwrap();
            comm.barrier().unwrap();
            let both = comm.start_all_reduce(send.clone(), recv, ReduceOp::Min).unwrap().wait().unwrap();
            assert_eq!(both, (send.clone(), send));
        }
        // A fold of one is a fold: not-a-number becomes the canonical one.
        let mut value = [f32::from_bits(0xffc0_1234)];
        comm.all_reduce_in_place(&mut value, ReduceOp::Max).unwrap();
        assert_eq!(value[0].to_bits(), 0x7fc0_0000);
        drop(comm.duplicate().unwrap());
    });
}

#[test]
fn a_communicator_moves_to_another_thread() {
    everywhere(2, "a_communicator_moves_to_another_thread", |comm| {
        let started = comm.start_all_reduce_in_place(contribution(&comm, 0, 50_000), ReduceOp::Sum).unwrap();
        let comm = std::thread::spawn(move || {
            let mut sums = contribution(&comm, 1, 50_000);
            comm.all_reduce_in_place(&mut sums, ReduceOp::Sum).unwrap();
            check_sums(&comm, 1, &sums);
            comm
        });
        // A handle, meanwhile, is awaited here.
        let sums = started.wait().unwrap();
        let comm = comm.join().unwrap();
        check_sums(&comm, 0, &sums);
        comm.barrier().unwrap();
    });
}

/// Within the deadline, a rank may be as late as it likes.
#[test]
fn a_late_rank_is_waited_for() {
    everywhere(3, "a_late_rank_is_waited_for", |comm| {
        for late in 0..3 {
            if comm.rank() == late {
                std::thread::sleep(Duration::from_millis(40));
            }
            let mut sums = contribution(&comm, late, 100);
            comm.all_reduce_in_place(&mut sums, ReduceOp::Sum).unwrap();
            check_sums(&comm, late, &sums);
            let record = comm.last_call().unwrap();
            assert_eq!(record.last_rank, late);
        }
    });
}
