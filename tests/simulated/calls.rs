// SPDX-License-Identifier: MPL-2.0
//! One call on device memory, in a heap that holds input and output: made, and all of the heap compared with what
//! `reference` says and with what was there before.

use annulus::driver::{DeviceBuffer, Stream};
use annulus::reference::check::compare;
use annulus::reference::{self, bits, inputs};
use annulus::{DeviceCommunicator, Element, FoldOrder, ReduceOp};

/// Elements of a heap: inputs, and outputs behind them, of up to 8 ranks and 2049 elements; and what is between them.
pub const HEAP: usize = (8 + 1) * 2049 + 64;

/// The collectives, by number.
pub const REDUCE_SCATTER: usize = 1;
pub const ALL_GATHER: usize = 2;
pub const BROADCAST: usize = 3;

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
        let given = if collective == REDUCE_SCATTER { n * length } else { length };
        let lengths = vec![given; n];
        let inputs = match number % 3 {
            0 => inputs::special::<T>(7, number, &lengths),
            1 => inputs::cancelling::<T>(7, number, &lengths),
            _ => inputs::random::<T>(7, number, &lengths),
        };
        let outputs = match collective {
            0 => reference::all_reduce(order, op, &inputs),
            REDUCE_SCATTER => reference::reduce_scatter(order, op, &inputs, &vec![length; n]),
            ALL_GATHER => reference::all_gather(&inputs),
            _ => reference::broadcast(&inputs, root),
        };
        let output = &outputs.unwrap()[rank];
        let (first, to) = match (in_place, collective) {
            (true, REDUCE_SCATTER) => (before, before + rank * length),
            (true, ALL_GATHER) => (before + rank * length, before),
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
}
