// SPDX-License-Identifier: MPL-2.0
//! The bits of every call, against `reference` at tolerance 0, and what is around the output left as it was.

use annulus::driver::{DeviceBuffer, Stream};
use annulus::reference::check::compare;
use annulus::reference::{self, bits, inputs};
use annulus::{Communicator, DeviceCommunicator, Element, FoldOrder, ReduceOp, bf16, f16, run};

use super::{absent, is_cuda, on, ranks, threads, types, variables};

/// Lengths around what a line and a block take, and beyond what one low-latency message and one slice take.
const LENGTHS: [usize; 7] = [0, 1, 7, 33, 257, 600, 2049];

/// Elements of a heap: inputs, and outputs behind them, of up to 8 ranks; and what is between them.
const HEAP: usize = (8 + 1) * 2049 + 64;

/// What an element is that no call has written.
fn guard<T: Element>() -> T {
    bits::element(0x5a5a_5a5a_5a5a_5a5a)
}

const COLLECTIVES: usize = 4;
const BROADCAST: usize = 3;

/// One call.
#[derive(Debug, Clone, Copy)]
struct Case {
    collective: usize,
    op: ReduceOp,
    in_place: bool,
    length: usize,
    /// Elements by which input and output are off the alignment of allocations.
    offsets: [usize; 2],
    root: usize,
}

/// A rank, and what it makes calls with.
struct Rank<'a> {
    gpus: &'a DeviceCommunicator,
    stream: &'a Stream,
    order: &'a FoldOrder,
}

impl Rank<'_> {
    /// Makes the call in a heap, and compares all of the heap.
    fn check<T: Element>(&self, heap: &DeviceBuffer<T>, case: Case, number: u64) {
        let Rank { gpus, stream, order } = *self;
        let (n, rank) = (gpus.world_size(), gpus.rank());
        let Case { collective, op, in_place, length, offsets: [before, behind], root } = case;
        let given = if collective == 1 { n * length } else { length };
        let lengths = vec![given; n];
        let inputs = match number % 3 {
            0 => inputs::special::<T>(7, number, &lengths),
            1 => inputs::cancelling::<T>(7, number, &lengths),
            _ => inputs::random::<T>(7, number, &lengths),
        };
        let outputs = match collective {
            0 => reference::all_reduce(order, op, &inputs),
            1 => reference::reduce_scatter(order, op, &inputs, &vec![length; n]),
            2 => reference::all_gather(&inputs),
            _ => reference::broadcast(&inputs, root),
        };
        let output = &outputs.unwrap()[rank];
        let (first, to) = match (in_place, collective) {
            (true, 1) => (before, before + rank * length),
            (true, 2) => (before + rank * length, before),
            (true, _) => (before, before),
            (false, _) => (before, (before + given).next_multiple_of(16) + behind),
        };
        let heap = heap.part(..(first.max(to) + given.max(output.len()) + 5).min(heap.len())).unwrap();
        let mut image = vec![guard::<T>(); heap.len()];
        image[first..first + given].copy_from_slice(&inputs[rank]);
        stream.write(&heap, &image).unwrap();
        let send = heap.part(first..first + given).unwrap();
        let recv = heap.part(to..to + output.len()).unwrap();
        match (collective, in_place) {
            (0, false) => gpus.all_reduce(&send, &recv, op, stream),
            (0, true) => gpus.all_reduce_in_place(&send, op, stream),
            (1, false) => gpus.reduce_scatter(&send, &recv, op, stream),
            (1, true) => gpus.reduce_scatter_in_place(&send, op, stream),
            (2, false) => gpus.all_gather(&send, &recv, stream),
            (2, true) => gpus.all_gather_in_place(&recv, stream),
            (_, false) => gpus.broadcast((rank == root).then_some(&send), &recv, root, stream),
            (_, true) => gpus.broadcast_in_place(&send, root, stream),
        }
        .unwrap();
        image[to..to + output.len()].copy_from_slice(output);
        let got = stream.read(&heap).unwrap();
        if let Err(difference) = compare(&got, &image, rank) {
            panic!("{n} ranks, {} at {number}, {case:?}: {difference}", T::DATA_TYPE);
        }
    }

    /// Every call of one element type that `number` lets through, in memory of every kind.
    fn check_type<T: Element>(&self, number: &mut u64) {
        let Rank { gpus, .. } = *self;
        let (n, device) = (gpus.world_size(), gpus.device());
        let registered = device.allocate_mappable::<T>(HEAP + 3).unwrap();
        gpus.register(&registered).unwrap();
        let heaps = [gpus.allocate(HEAP).unwrap(), registered.part(3..).unwrap(), device.allocate(HEAP).unwrap()];
        for collective in 0..COLLECTIVES {
            let folds = collective < 2;
            let ops: Vec<ReduceOp> = types::operations(T::DATA_TYPE).take(if folds { 99 } else { 3 }).collect();
            for op in ops {
                for _ in 0..if ranks::full() { 6 * LENGTHS.len() } else { 1 } {
                    *number += 1;
                    let turn = *number as usize;
                    let (in_place, memory) = (turn % 2 == 1, turn / 2 % 3);
                    let case = Case {
                        collective,
                        op,
                        in_place,
                        length: LENGTHS[turn % LENGTHS.len()],
                        offsets: [turn % 5, turn / 2 % 3],
                        root: if collective == BROADCAST { turn % n } else { 0 },
                    };
                    // Now and then ranks differ in where their buffers are.
                    let algorithm = match turn % 4 {
                        _ if collective > 0 => None,
                        0 if case.length * size_of::<T>() <= 4096 => Some("low_latency"),
                        1 => Some("one_shot"),
                        2 => Some("two_shot"),
                        _ => None,
                    };
                    gpus.set_algorithm(algorithm).unwrap();
                    let heap = &heaps[(memory + turn % 4 / 3 * gpus.rank()) % heaps.len()];
                    self.check(heap, case, *number);
                }
            }
        }
    }
}

/// Every collective, of every type and operation. Short of everything, ways of buffers take turns.
fn everything(comm: &Communicator) {
    let (gpus, stream) = on(comm);
    let rank = Rank { gpus: &gpus, stream: &stream, order: &FoldOrder::Rank };
    let mut number = comm.world_size() as u64;
    for_every_type!(check_type(&rank, &mut number));
}

fn check_type<T: Element>(rank: &Rank<'_>, number: &mut u64) {
    rank.check_type::<T>(number);
}

#[test]
fn threads_get_the_bits_of_the_reference() {
    if absent() {
        return;
    }
    // The stand-in takes its time.
    let worlds = if is_cuda() && !ranks::full() { vec![1, 2, 5, 8] } else { (1..=8).collect() };
    for n in worlds {
        threads(n, |comm| everything(&comm));
    }
}

#[test]
fn processes_get_the_bits_of_the_reference() {
    if absent() {
        return;
    }
    for n in [2, 3, 8] {
        ranks::processes(n, "bits::processes_get_the_bits_of_the_reference", |comm| everything(&comm));
    }
}

#[test]
fn ranks_on_several_devices_get_the_bits_of_the_reference() {
    if absent() {
        return;
    }
    for (devices, n) in [("4", 4), ("3", 5)] {
        let name = format!("bits::ranks_on_several_devices_get_the_bits_of_the_reference {devices}");
        let body = || {
            run(n, |comm| {
                everything(&comm);
                Ok(())
            })
            .unwrap();
        };
        for rank in ranks::start(&[0], 1, &name, &variables(&[("ANNULUS_SIM_DEVICES", devices)]), body) {
            assert!(rank.status.success(), "{}", rank.output);
        }
    }
}

#[test]
fn a_ring_folds_in_the_order_of_a_ring() {
    if absent() {
        return;
    }
    for n in [1, 2, 3, 5] {
        threads(n, |comm| {
            let (gpus, stream) = on(&comm);
            gpus.set_algorithm(Some("ring")).unwrap();
            let rank = Rank { gpus: &gpus, stream: &stream, order: &FoldOrder::Ring };
            let heap = gpus.device().allocate::<f32>(HEAP).unwrap();
            for number in 0..14 {
                let (length, in_place) = (LENGTHS[number % LENGTHS.len()], number % 2 == 0);
                let op = if number % 3 == 0 { ReduceOp::Avg } else { ReduceOp::Sum };
                let case = Case { collective: 0, op, in_place, length, offsets: [number % 4, 1], root: 0 };
                rank.check(&heap, case, number as u64);
            }
        });
    }
}

/// What is longer than one launch moves, in memory that peers see and in other memory.
#[test]
fn long_messages_are_cut() {
    if absent() {
        return;
    }
    threads(2, |comm| {
        let (gpus, stream) = on(&comm);
        let (rank, length) = (comm.rank(), (17 << 20) + 3);
        let heaps = [gpus.allocate::<u8>(3 * length).unwrap(), gpus.device().allocate(3 * length).unwrap()];
        let value = |rank: usize, part: usize| (10 * rank + part) as u8 + 1;
        for heap in &heaps {
            let part = |index: usize| heap.part(index * length..(index + 1) * length).unwrap();
            let fill = || (0..3).for_each(|index| stream.fill(&part(index), value(rank, index)).unwrap());
            let is = |index: usize, value: u8| {
                let got = stream.read(&part(index)).unwrap();
                assert!(got == vec![value; length], "part {index} of rank {rank} is not {value}");
            };
            let both = heap.part(..2 * length).unwrap();
            fill();
            gpus.all_reduce(&part(0), &part(1), ReduceOp::Sum, &stream).unwrap();
            is(1, value(0, 0) + value(1, 0));
            fill();
            gpus.reduce_scatter(&both, &part(2), ReduceOp::Sum, &stream).unwrap();
            is(2, value(0, rank) + value(1, rank));
            gpus.reduce_scatter_in_place(&both, ReduceOp::Sum, &stream).unwrap();
            is(rank, value(0, rank) + value(1, rank));
            is(1 - rank, value(rank, 1 - rank));
            fill();
            gpus.all_gather(&part(2), &both, &stream).unwrap();
            is(0, value(0, 2));
            is(1, value(1, 2));
            fill();
            gpus.all_gather_in_place(&both, &stream).unwrap();
            is(0, value(0, 0));
            is(1, value(1, 1));
            fill();
            gpus.broadcast_in_place(&part(0), 1, &stream).unwrap();
            is(0, value(1, 0));
        }
    });
}
