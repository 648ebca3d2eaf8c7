// SPDX-License-Identifier: MPL-2.0
//! The arguments of the kernels that these tests launch (`kernels/probe.cu`, `kernels/fold.cu`), as their bytes.

use annulus::{DataType, ReduceOp, kernel};

/// 32- and 64-bit words in the order of the kernel's struct, with the padding that its alignment asks for.
pub struct Argument(Vec<u8>);

impl Argument {
    pub fn new() -> Self {
        Argument(Vec::new())
    }

    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    pub fn u64(mut self, value: u64) -> Self {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        self.0.extend(value.to_ne_bytes());
        self
    }

    /// The bytes of a struct that holds words of 64 bits.
    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        self.0
    }
}

/// `fold_f32` and `fold_bf16`, adding.
pub fn fold(from: &[u64], to: u64, elements: usize) -> Vec<u8> {
    let fold = kernel::Fold::new(ReduceOp::Sum, DataType::F32, elements, from, &[to], from.len());
    bytemuck::bytes_of(&fold).to_vec()
}

/// `probe_advance`: an epoch, and where it is kept, `length` words.
pub fn advance(epoch: u64, kept: u64, length: u32) -> Vec<u8> {
    Argument::new().u64(epoch).u64(kept).u32(length).end()
}

/// `probe_meet`: arrivals, three words of how blocks ended, an abort word, nanoseconds, how many are to meet.
pub fn meet(arrivals: u64, ended: u64, abort: u64, patience: u64, expected: u32) -> Vec<u8> {
    Argument::new().u64(arrivals).u64(ended).u64(abort).u64(patience).u32(expected).end()
}

/// `probe_ping`: for each side its word and the other's; four words of 64 bits, an abort word, nanoseconds.
pub fn ping(sides: [[u64; 2]; 2], out: u64, abort: u64, patience: u64, first: u32, rounds: u32) -> Vec<u8> {
    let sides = sides.into_iter().flatten().fold(Argument::new(), Argument::u64);
    sides.u64(out).u64(abort).u64(patience).u32(first).u32(rounds).u32(0).end()
}

/// `probe_wait`: a counter, an abort word, a word that becomes 1, two words of 64 bits, nanoseconds, a value.
pub fn wait(counter: u64, abort: u64, begun: u64, out: u64, patience: u64, value: u32) -> Vec<u8> {
    Argument::new().u64(counter).u64(abort).u64(begun).u64(out).u64(patience).u32(value).end()
}
