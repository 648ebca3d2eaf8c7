// SPDX-License-Identifier: MPL-2.0
//! The bits of every call, against `reference` at tolerance 0, and what is around the output left as it was.

use annulus::driver::{DeviceBuffer, Stream};
use annulus::reference::{self, inputs};
use annulus::{Communicator, DeviceCommunicator, Element, FoldOrder, ReduceOp, bf16, f16};

use super::{absent, on, ranks, types};

/// Lengths around what a line and a block take, and beyond what one low-latency message and one slice take.
const LENGTHS: [usize; 7] = [0, 1, 7, 33, 257, 1025, 3001];

/// Elements of each half of a heap: inputs are in the first, outputs in the second.
const HALF: usize = 8 * 3001 + 64;

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
            (false, _) => (before, HALF + behind),
        };
        let mut image = inputs::random::<T>(8, number, &[2 * HALF]).remove(0);
        image[first..first + given].copy_from_slice(&inputs[rank]);
        stream.write(heap, &image).unwrap();
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
        let got = stream.read(heap).unwrap();
        if let Err(difference) = reference::check::compare(&got, &image, rank) {
            panic!("{n} ranks, {} at {number}, {case:?}: {difference}", T::DATA_TYPE);
        }
    }

    /// Every call of one element type that `number` lets through, in memory of every kind.
    fn check_type<T: Element>(&self, number: &mut u64) {
        let Rank { gpus, .. } = *self;
        let (n, device) = (gpus.world_size(), gpus.device());
        let registered = device.allocate_mappable::<T>(2 * HALF + 3).unwrap();
        gpus.register(&registered).unwrap();
        let heaps =
            [gpus.allocate(2 * HALF).unwrap(), registered.part(3..).unwrap(), device.allocate(2 * HALF).unwrap()];
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
    for n in 1..=8 {
        ranks::threads(n, |comm| everything(&comm));
    }
}

#[test]
fn one_rank_works() {
    if absent() {
        return;
    }
    ranks::threads(2, |comm| {
        let (gpus, stream) = on(&comm);
        let buffer = gpus.device().allocate::<f32>(5).unwrap();
        stream.fill(&buffer, comm.rank() as f32 + 1.0).unwrap();
        gpus.all_reduce_in_place(&buffer, ReduceOp::Sum, &stream).unwrap();
        assert_eq!(stream.read(&buffer).unwrap(), [3.0; 5]);
    });
}
