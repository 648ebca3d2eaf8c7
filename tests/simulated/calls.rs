// SPDX-License-Identifier: MPL-2.0
//! One call on device memory, in a heap that holds input and output: made, and all of the heap compared with what
//! `reference` says and with what was there before.

use annulus::driver::{DeviceBuffer, Stream};
use annulus::reference::check::compare;
use annulus::reference::{self, bits, inputs};
use annulus::schedule::Collective;
use annulus::{DeviceCommunicator, Element, FoldOrder, ReduceOp};

/// Elements of a heap: inputs, and outputs behind them, of up to 8 ranks and 2049 elements; and what is between them.
pub const HEAP: usize = (8 + 8) * 2049 + 64;

/// The collectives, by number.
const REDUCE_SCATTER: usize = 1;
const ALL_GATHER: usize = 2;
const REDUCE: usize = 4;
const SCATTER: usize = 5;
const GATHER: usize = 6;
const ALL_TO_ALL: usize = 7;

/// By their numbers.
pub const KINDS: [Collective; 8] = [
    Collective::AllReduce,
    Collective::ReduceScatter,
    Collective::AllGather,
    Collective::Broadcast,
    Collective::Reduce,
    Collective::Scatter,
    Collective::Gather,
    Collective::AllToAll,
];

/// What an element is that no call has written.
fn guard<T: Element>() -> T {
    bits::element(0x5a5a_5a5a_5a5a_5a5a)
}

/// One call.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub collective: usize,
    pub op: ReduceOp,
    pub in_place: bool,
    pub length: usize,
    /// Elements by which input and output are off the alignment of allocations.
    pub offsets: [usize; 2],
    pub root: usize,
}

/// A rank, and what it makes calls with.
pub struct Rank<'a> {
    pub gpus: &'a DeviceCommunicator,
    pub stream: &'a Stream,
}

impl Rank<'_> {
    /// Makes the call in a heap, and compares all of the heap.
    pub fn check<T: Element>(&self, heap: &DeviceBuffer<T>, order: &FoldOrder, case: Case, number: u64) {
        let Rank { gpus, stream } = *self;
        let (n, rank) = (gpus.world_size(), gpus.rank());
        let Case { collective, op, in_place, length, offsets: [before, behind], root } = case;
        let is_root = rank == root;
        let lengths: Vec<usize> = (0..n)
            .map(|rank| match collective {
                REDUCE_SCATTER | ALL_TO_ALL => n * length,
                SCATTER if rank == root => n * length,
                SCATTER => 0,
                _ => length,
            })
            .collect();
        let given = lengths[rank];
        let inputs = match number % 3 {
            0 => inputs::special::<T>(7, number, &lengths),
            1 => inputs::cancelling::<T>(7, number, &lengths),
            _ => inputs::random::<T>(7, number, &lengths),
        };
        let outputs = match collective {
            0 => reference::all_reduce(order, op, &inputs),
            REDUCE_SCATTER => reference::reduce_scatter(order, op, &inputs, &vec![length; n]),
            ALL_GATHER => reference::all_gather(&inputs),
            REDUCE => reference::reduce(order, op, &inputs, root),
            SCATTER => reference::scatter(&inputs, root, &vec![length; n]),
            GATHER => reference::gather(&inputs, root),
            ALL_TO_ALL => reference::all_to_all(&inputs, &vec![vec![length; n]; n]),
            _ => reference::broadcast(&inputs, root),
        };
        let output = &outputs.unwrap()[rank];
        let (first, to) = match (in_place, collective) {
            (true, REDUCE_SCATTER) => (before, before + rank * length),
            (true, ALL_GATHER) => (before + rank * length, before),
            (true, SCATTER) if is_root => (before, before + rank * length),
            (true, GATHER) if is_root => (before + rank * length, before),
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
            (REDUCE_SCATTER, false) => gpus.reduce_scatter(&send, &recv, op, stream),
            (REDUCE_SCATTER, true) => gpus.reduce_scatter_in_place(&send, op, stream),
            (ALL_GATHER, false) => gpus.all_gather(&send, &recv, stream),
            (ALL_GATHER, true) => gpus.all_gather_in_place(&recv, stream),
            (REDUCE, false) => gpus.reduce(&send, is_root.then_some(&recv), op, root, stream),
            (REDUCE, true) => gpus.reduce_in_place(&send, op, root, stream),
            (SCATTER, false) => gpus.scatter(is_root.then_some(&send), &recv, root, stream),
            (SCATTER, true) => gpus.scatter_in_place(if is_root { &send } else { &recv }, root, stream),
            (GATHER, false) => gpus.gather(&send, is_root.then_some(&recv), root, stream),
            (GATHER, true) => gpus.gather_in_place(if is_root { &recv } else { &send }, root, stream),
            (ALL_TO_ALL, false) => gpus.all_to_all(&send, &recv, stream),
            (ALL_TO_ALL, true) => gpus.all_to_all_in_place(&send, stream),
            (_, false) => gpus.broadcast(is_root.then_some(&send), &recv, root, stream),
            (_, true) => gpus.broadcast_in_place(&send, root, stream),
        }
        .unwrap();
        image[to..to + output.len()].copy_from_slice(output);
        let got = stream.read(&heap).unwrap();
        if let Err(difference) = compare(&got, &image, rank) {
            panic!("{n} ranks, {} at {number}, {case:?}: {difference}", T::DATA_TYPE);
        }
    }
}
