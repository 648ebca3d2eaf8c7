// SPDX-License-Identifier: MPL-2.0
//! Operations of one's own: against the reference, bit for bit, on threads and on processes; what is agreed on; and what
//! becomes of a panic.
#![cfg(target_os = "linux")]
#![allow(unsafe_code)] // the floating-point environment is set

mod ranks;

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annulus::reference::check::compare;
use annulus::reference::{self, inputs};
use annulus::{Communicator, Element, Error, FoldOrder, Operator, ReduceOp, Shared};

use ranks::{everywhere, threads};

/// Neither commutative nor, of integers, blind to any bit of any contribution.
fn append(a: &mut [u64], b: &[u64]) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a = a.wrapping_mul(31).wrapping_add(*b));
}

/// Affine maps x -> p x + q over integers modulo 2^16, p in the upper half and q in the lower: first `a`, then `b`.
/// Associative, but not commutative.
fn compose(a: &mut [u32], b: &[u32]) {
    for (a, b) in a.iter_mut().zip(b) {
        let (p, q, r, s) = (*a >> 16, *a & 0xffff, *b >> 16, *b & 0xffff);
        *a = p.wrapping_mul(r) << 16 | r.wrapping_mul(q).wrapping_add(s) & 0xffff;
    }
}

/// Whichever is farther from zero; rounds nothing, and keeps every bit.
fn farther(a: &mut [f32], b: &[f32]) {
    for (a, b) in a.iter_mut().zip(b) {
        *a = if b.abs() > a.abs() { *b } else { *a };
    }
}

/// A sum that rounds at each step: its bits show the order of the fold and a start from zero.
fn halved_sum(a: &mut [f32], b: &[f32]) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a = (*a + *b) * 0.5);
}

fn shorter(a: &mut [u8], b: &[u8]) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a = a.rotate_left(3) ^ *b);
}

/// Every call with this operator on these inputs, in every kind of memory, against the reference in this order.
fn every_call<T: Element>(comm: &Communicator, operator: &Operator<T>, order: &FoldOrder, f: fn(&mut [T], &[T])) {
    let (world, rank) = (comm.world_size(), comm.rank());
    // Of one part, in a reduce-scatter: none, few, about what rides in the entry record, and more than one block.
    for (number, part) in [0, 1, 3, 511 / world, 700, 5001].into_iter().enumerate() {
        let len = part * world;
        let inputs = inputs::random::<T>(7, number as u64, &vec![len; world]);
        let folded = reference::fold_with(order, &inputs, f).unwrap();
        let own = rank * part..(rank + 1) * part;
        let allocated = || -> Shared<T> {
            let mut shared = comm.allocate(len).unwrap();
            shared.copy_from_slice(&inputs[rank]);
            shared
        };
        let whole = |got: &[T]| compare(got, &folded, rank).unwrap();
        let one = |got: &[T]| compare(got, &folded[own.clone()], rank).unwrap();
        let rest_is_untouched = |got: &[T]| {
            compare(&got[..own.start], &inputs[rank][..own.start], rank).unwrap();
            compare(&got[own.end..], &inputs[rank][own.end..], rank).unwrap();
        };

        let mut recv = vec![T::zeroed(); len];
        comm.all_reduce_with(&inputs[rank], &mut recv, operator).unwrap();
        whole(&recv);
        let last = comm.last_call().unwrap();
        assert_eq!((last.op, last.operator.as_deref(), last.bytes), (None, Some("own"), len * size_of::<T>()));
        let mut recv = comm.allocate(len).unwrap();
        comm.all_reduce_with(&allocated(), &mut recv, operator).unwrap();
        whole(&recv);
        let mut buffer = inputs[rank].clone();
        comm.all_reduce_in_place_with(&mut buffer, operator).unwrap();
        whole(&buffer);
        let mut shared = allocated();
        comm.all_reduce_in_place_with(&mut shared, operator).unwrap();
        whole(&shared);

        let mut recv = vec![T::zeroed(); part];
        comm.reduce_scatter_with(&inputs[rank], &mut recv, operator).unwrap();
        one(&recv);
        let mut buffer = inputs[rank].clone();
        comm.reduce_scatter_in_place_with(&mut buffer, operator).unwrap();
        one(&buffer[own.clone()]);
        rest_is_untouched(&buffer);

        // Four in flight, awaited in another order.
        let (send, recv) = (inputs[rank].clone(), vec![T::zeroed(); len]);
        let first = comm.start_all_reduce_with(send, recv, operator).unwrap();
        let second = comm.start_all_reduce_in_place_with(allocated(), operator).unwrap();
        let third = comm.start_reduce_scatter_with(allocated(), vec![T::zeroed(); part], operator).unwrap();
        let fourth = comm.start_reduce_scatter_in_place_with(inputs[rank].clone(), operator).unwrap();
        let buffer = fourth.wait().unwrap();
        one(&buffer[own.clone()]);
        rest_is_untouched(&buffer);
        whole(&second.wait().unwrap());
        whole(&first.wait().unwrap().1);
        one(&third.wait().unwrap().1);
    }
}

#[test]
fn ordered_operators_fold_in_rank_order() {
    for world in 1..=5 {
        everywhere(world, "ordered_operators_fold_in_rank_order", |comm| {
            every_call(&comm, &Operator::ordered("own", append), &FoldOrder::Rank, append);
            every_call(&comm, &Operator::ordered("own", compose), &FoldOrder::Rank, compose);
            every_call(&comm, &Operator::ordered("own", halved_sum), &FoldOrder::Rank, halved_sum);
            for algorithm in ["direct", "staged"] {
                comm.set_algorithm(Some(algorithm)).unwrap();
                every_call(&comm, &Operator::ordered("own", shorter), &FoldOrder::Rank, shorter);
            }
        });
    }
}

/// Reductions to a root and over prefixes, whatever the length and the memory.
#[test]
fn prefixes_and_a_root() {
    everywhere(4, "prefixes_and_a_root", |comm| {
        let (rank, world, operator) = (comm.rank(), comm.world_size(), Operator::ordered("own", append));
        for (number, len) in [1, 30, 700, 9_001].into_iter().enumerate() {
            let inputs = inputs::random::<u64>(5, number as u64, &vec![len; world]);
            let prefix = |ranks: usize| reference::fold_with(&FoldOrder::Rank, &inputs[..ranks], append).unwrap();
            let (root, mut shared) = (number % world, comm.allocate::<u64>(len).unwrap());
            for is_shared in [false, true] {
                let mut plain = vec![0; len];
                let buffer: &mut [u64] = if is_shared { &mut shared } else { &mut plain };

                comm.scan_with(&inputs[rank], buffer, &operator).unwrap();
                compare(buffer, &prefix(rank + 1), rank).unwrap();
                buffer.copy_from_slice(&inputs[rank]);
                comm.scan_in_place_with(buffer, &operator).unwrap();
                compare(buffer, &prefix(rank + 1), rank).unwrap();

                let before = if rank == 0 { inputs[0].clone() } else { prefix(rank) };
                buffer.copy_from_slice(&inputs[rank]);
                comm.exclusive_scan_with(&inputs[rank], buffer, &operator).unwrap();
                compare(buffer, &before, rank).unwrap();
                buffer.copy_from_slice(&inputs[rank]);
                comm.exclusive_scan_in_place_with(buffer, &operator).unwrap();
                compare(buffer, &before, rank).unwrap();

                let at_root = if rank == root { prefix(world) } else { inputs[rank].clone() };
                buffer.copy_from_slice(&inputs[rank]);
                comm.reduce_in_place_with(buffer, &operator, root).unwrap();
                compare(buffer, &at_root, rank).unwrap();
                comm.reduce_with(&inputs[rank], (rank == root).then_some(buffer), &operator, root).unwrap();
            }
        }
    });
}

/// Flush-to-zero and rounding down, set by whichever rank, change no bit of what an operator computes, and are found again.
#[cfg(target_arch = "x86_64")]
#[test]
fn operators_compute_in_the_default_environment() {
    use std::arch::asm;
    let read = || {
        let mut control = 0u32;
        // SAFETY: stores four bytes to `control`.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut control) };
        control
    };
    // SAFETY: only ever given a value that was read, with defined bits set.
    let write = |control: u32| unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const control) };
    threads(2, |comm| {
        let inputs = inputs::cancelling::<f32>(3, 0, &[500; 2]);
        let tiny = |rank: usize| inputs[rank].iter().map(|x| x * f32::MIN_POSITIVE).chain(inputs[rank].clone());
        let inputs = [0, 1].map(|rank| tiny(rank).collect::<Vec<f32>>());
        let expected = reference::fold_with(&FoldOrder::Rank, &inputs, halved_sum).unwrap();
        let operator = Operator::ordered("halved_sum", halved_sum);
        let mut folded = inputs[comm.rank()].clone();
        let before = read();
        let strange = if comm.rank() == 1 { before | 1 << 15 | 1 << 6 | 1 << 13 } else { before };
        write(strange);
        let outcome = comm.all_reduce_in_place_with(&mut folded, &operator);
        let after = read();
        write(before);
        outcome.unwrap();
        assert_eq!(after & !0x3f, strange & !0x3f, "the control register was not restored");
        compare(&folded, &expected, comm.rank()).unwrap();
    });
}

/// The tests' operators do what they are for.
#[test]
fn the_order_shows() {
    let inputs = inputs::random::<u64>(1, 0, &[10; 3]);
    let fold = |order| reference::fold_with(&order, &inputs, append).unwrap();
    assert_ne!(fold(FoldOrder::Rank), fold(FoldOrder::linear([0, 2, 1])));
    let inputs = inputs::random::<u32>(1, 0, &[10; 4]);
    let fold = |order| reference::fold_with(&order, &inputs, compose).unwrap();
    assert_ne!(fold(FoldOrder::Rank), fold(FoldOrder::Ring));
    assert_eq!(fold(FoldOrder::Rank), fold(FoldOrder::Tree), "maps compose in any brackets");
}

#[test]
fn commutative_operators_fold_in_any_order() {
    for world in [1, 2, 4] {
        everywhere(world, "commutative_operators_fold_in_any_order", |comm| {
            every_call(&comm, &Operator::commutative("own", farther), &FoldOrder::Rank, farther);
            comm.set_algorithm(Some("ring")).unwrap();
            every_call(&comm, &Operator::commutative("own", farther), &FoldOrder::Ring, farther);
            // It is not, but the declaration counts; and its bits show whether the ring's order was kept.
            every_call(&comm, &Operator::commutative("own", halved_sum), &FoldOrder::Ring, halved_sum);
        });
    }
}

#[test]
fn invalid_arguments_post_nothing() {
    everywhere(3, "invalid_arguments_post_nothing", |comm| {
        let operator = Operator::ordered("own", append);
        let refused = |outcome: annulus::Result<()>, named: &str| {
            let error = outcome.unwrap_err();
            assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
            assert!(error.to_string().contains(named), "{error}");
        };
        let mut value = [comm.rank() as u64; 3];
        if comm.rank() == 1 {
            refused(comm.all_reduce_with(&[1], &mut value, &operator), "send has 1 elements and recv 3");
            refused(comm.reduce_scatter_with(&[1], &mut value, &operator), "send has 1 elements");
            refused(comm.reduce_scatter_in_place_with(&mut [1, 2], &operator), "a multiple of 3");
            let started = comm.start_reduce_scatter_in_place_with(vec![1, 2], &operator);
            refused(started.map(drop), "a multiple of 3");
            comm.set_algorithm(Some("ring")).unwrap();
            let named = "by algorithm ring on rank 1: the operator \"own\" is ordered, and the algorithm ring does not fold \
                         in the order of the ranks";
            refused(comm.all_reduce_in_place_with(&mut value, &operator), named);
            refused(comm.reduce_scatter_in_place_with(&mut value, &operator), named);
            comm.set_algorithm(None).unwrap();
        }
        comm.all_reduce_in_place_with(&mut value, &operator).unwrap();
        assert_eq!((value, comm.last_call().unwrap().call), ([33; 3], 0));
    });
}

/// What two ranks have and what the third has, in words.
#[test]
fn operators_that_differ_are_a_mismatch_on_all() {
    let long = "a name of more than thirty-two bytes, which sentences cut";
    let longer = format!("{long}, and then some");
    let of = |name: &str, ordered: bool| match ordered {
        true => Operator::ordered(name, append),
        false => Operator::commutative(name, append),
    };
    everywhere(3, "operators_that_differ_are_a_mismatch_on_all", |comm| {
        for (usual, odd, [in_words, odd_in_words]) in [
            (of("own", true), of("other", true), ["\"own\", ordered)", "\"other\", ordered)"]),
            (of("own", true), of("own", false), ["\"own\", ordered)", "\"own\", commutative)"]),
            (of(long, true), of(&longer, true), ["\"a name of more than thirty-two b.. ", "two b.. "]),
        ] {
            let comm = comm.duplicate().unwrap();
            let operator = if comm.rank() == 2 { odd } else { usual };
            let error = comm.all_reduce_in_place_with(&mut [1, 2], &operator).unwrap_err();
            assert!(matches!(error, Error::Mismatch(_)), "{error:?}");
            let sentence = error.to_string();
            let [first, second] = [
                format!("ranks 0, 1 call all_reduce_in_place_with(u64, 2, {in_words}"),
                "rank 2 calls all_reduce_in_place_with(u64, 2, ".to_owned(),
            ];
            assert!(sentence.contains(&first) && sentence.contains(&second), "{sentence}");
            assert!(sentence.contains(odd_in_words), "{sentence}");
        }
        let comm = comm.duplicate().unwrap();
        let error = match comm.rank() {
            0 => comm.all_reduce_in_place_with(&mut [1, 2], &of("own", true)).unwrap_err(),
            _ => comm.all_reduce_in_place(&mut [1_u64, 2], ReduceOp::Sum).unwrap_err(),
        };
        assert!(error.to_string().contains("ranks 1, 2 call all_reduce_in_place(u64, 2, Sum)"), "{error}");
    });
}

/// All ranks get the failure of the rank whose operator panics, now and in every later call, however the call was made.
#[test]
fn a_panic_is_everybodys_error() {
    everywhere(3, "a_panic_is_everybodys_error", |comm| {
        for len in [1, 100_000] {
            for started in [false, true] {
                for allocated in [false, true] {
                    let comm = comm.duplicate().unwrap();
                    let rank = comm.rank();
                    let operator = Operator::ordered("brittle", move |a: &mut [u64], b: &[u64]| {
                        assert!(rank != 1, "no more");
                        append(a, b);
                    });
                    let outcome = match (started, allocated) {
                        (false, false) => comm.all_reduce_in_place_with(&mut vec![1; len], &operator),
                        (false, true) => comm.all_reduce_in_place_with(&mut comm.allocate(len).unwrap(), &operator),
                        (true, false) => done(comm.start_all_reduce_in_place_with(vec![1; len], &operator)),
                        (true, true) => {
                            done(comm.start_all_reduce_in_place_with(comm.allocate(len).unwrap(), &operator))
                        }
                    };
                    // A small call is folded by each rank for itself: those that did not panic may have succeeded.
                    let error = outcome.and_then(|()| comm.barrier()).unwrap_err();
                    let sentence = format!(
                        "call 0, all_reduce_in_place_with(u64, {len}, \"brittle\", ordered): the operator panicked on \
                         rank 1: no more"
                    );
                    assert_eq!(error, Error::Aborted(sentence.into()));
                    assert_eq!(comm.barrier(), Err(error));
                }
            }
        }
    });
}

fn done<B: Send + 'static>(pending: annulus::Result<annulus::Pending<B>>) -> annulus::Result<()> {
    pending.and_then(annulus::Pending::wait).map(drop)
}

/// A failing call does not wait for an operator that is at work on another rank: no window is open meanwhile.
#[test]
fn operators_run_in_no_window() {
    let (sender, receiver) = channel();
    let ends = Mutex::new(Some(receiver));
    threads(2, |comm| {
        let len = 100_000;
        let (abort, rank) = (comm.abort_handle(), comm.rank());
        let receiver = if rank == 0 { ends.lock().unwrap().take() } else { None };
        let receiver = Arc::new(Mutex::new(receiver));
        let operator = Operator::ordered("patient", move |_: &mut [f32], _: &[f32]| {
            if let Some(receiver) = receiver.lock().unwrap().take() {
                abort.abort("enough");
                receiver.recv_timeout(Duration::from_secs(30)).expect("the other rank's call must have ended");
            }
        });
        let error = comm.all_reduce_in_place_with(&mut vec![1.0; len], &operator).unwrap_err();
        assert_eq!(error, Error::Aborted("rank 0 aborted: enough".into()));
        if rank == 1 {
            sender.send(()).unwrap();
        }
    });
}
