// SPDX-License-Identifier: MPL-2.0
//! The memory in which kernels meet: how large it is and what lies where. What it is for, and why it suffices, is said
//! in `kernels/pad.h`.

use super::shape::{BLOCKS, FLAGS, RANKS};

/// The first part of each rank's arena, which its peers write (`kernels/pad.h`).
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Pad {
    /// By parity of the turn, block and writer: two words of epoch and hash, the places of input and output.
    pub entries: [[[[u64; 4]; RANKS]; BLOCKS]; 2],
    /// By block and writer.
    pub done: [[u64; RANKS]; BLOCKS],
    /// By block, from the rank before.
    pub passed: [u64; BLOCKS],
    /// By block, from the rank after.
    pub taken: [u64; BLOCKS],
    /// By writer and flag.
    pub flags: [[u64; FLAGS]; RANKS],
    /// Which call the rank is in, or which has failed.
    pub called: Called,
    /// By rank: how many threads of this one wait for it, and have for a while.
    pub awaited: [u32; RANKS],
    /// By block and writer: what it sends to this rank.
    pub sent: [[Sent; RANKS]; BLOCKS],
    /// By block and writer: how far it has received what this rank sends to it.
    pub received: [[u64; RANKS]; BLOCKS],
    /// The messages that this rank is in, sent and received, by the other rank.
    pub said: [[Said; RANKS]; 2],
}

/// What a block of one rank sends to another.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Sent {
    /// The message in the upper half, the pieces of it that are there in the lower one.
    pub count: u64,
    /// Its type and length.
    pub contents: u64,
    /// The [`Place`] of it, or staged.
    pub from: u64,
    /// Zero.
    pub unused: u64,
}

/// A message that a rank is in, or that has failed, for hosts to read.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Said {
    /// How many there were of the pair before, modulo 2^32.
    pub number: u64,
    /// Its type and length; 0: the rank is in none.
    pub contents: u64,
}

/// Words of a call's descriptor.
pub const WORDS: usize = 6;

/// The call that a rank is in, for hosts to read.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Called {
    /// How many there were before.
    pub calls: u64,
    /// Of the words.
    pub hash: u64,
    /// The descriptor.
    pub word: [u64; WORDS],
}

/// Launches of which a journal has room.
pub const LAUNCHES: usize = 1024;

/// What block 0 of a launch tells the host, by the device's clock in nanoseconds. Bits 48 to 63 of each word are the
/// launch's tag: 8 bits of its number divided by [`LAUNCHES`], and 8 of `calls`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Stamps {
    /// When the rank entered, modulo 2^48.
    pub entered: u64,
    /// From the launch's begin until then.
    pub before: u64,
    /// From then until the last rank had entered.
    pub waited: u64,
    /// From then to the end.
    pub after: u64,
    /// Bits 32 to 47: the rank that entered last; 0 to 31, `calls`: how many calls there were before.
    pub who: u64,
}

/// Bytes of a rank's private state: four words a block, four more, and two for each block and rank.
pub const STATE_BYTES: usize = (BLOCKS + 1) * 16 + 2 * BLOCKS * RANKS * 4;

/// Why the first failing call of a rank failed. Bits of ranks: bit r is rank r.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Report {
    /// How often something went wrong; 0: all is well.
    pub claims: u32,
    /// 1: aborted, 2: late, 3: a rank makes another call, 4: a rank gave up, 5: a rank names memory that is gone.
    pub ended: u32,
    /// 1: entering, 2: finishing, 3: receiving (a chunk or a flag), 4: sending, 5: giving a message, 6: taking one.
    pub phase: u32,
    /// Which block it was.
    pub block: u32,
    /// How many calls the rank had made before this one, modulo 2^32; of a message, how many there were of its pair.
    pub calls: u32,
    /// Ranks that were waited for when it ended.
    pub missing: u32,
    /// Ranks that made another call.
    pub differing: u32,
    /// Ranks that had given up.
    pub deserted: u32,
}

/// Where peers find a buffer: a region, numbered alike on all ranks, and an offset in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(u64);

impl Place {
    /// The kernel copies the buffer into, or out of, the arena.
    pub const STAGED: Place = Place(0);

    /// The place of that offset in bytes, below 2^48, in a region, of which 0 are the arenas.
    pub const fn new(region: u16, offset: u64) -> Self {
        Place((region as u64) << 48 | offset & ((1 << 48) - 1))
    }

    /// Its region.
    pub const fn region(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// Bytes from the region's beginning.
    pub const fn offset(self) -> u64 {
        self.0 & ((1 << 48) - 1)
    }

    /// The place as an argument.
    pub const fn word(self) -> u64 {
        self.0
    }
}

/// Slots of a message for each block.
pub const PIECES: usize = 4;

/// Bytes of each.
const SLOT: u64 = 4 << 10;

/// What lies where in an arena, in bytes from its beginning, a multiple of 16. The same on all ranks; zero at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arena {
    /// Where the packets of the low-latency kernel begin.
    pub packets: u64,
    /// Packets of one rank and parity: each carries 8 bytes.
    pub lines: u64,
    /// Where the staging halves begin.
    pub staging: u64,
    /// Bytes of each half: the most that a staged call moves.
    pub half: u64,
    /// Where the slots of messages begin: [`PIECES`] for each receiver and block.
    pub slots: u64,
    /// Bytes of a slot.
    pub slot: u64,
    /// Bytes of a receiver's slots.
    pub room: u64,
    /// Bytes in all.
    pub bytes: u64,
}

impl Arena {
    /// The arena of `world` ranks, for low-latency messages of up to `small` bytes and staged ones of up to `staged`
    /// bytes.
    pub const fn new(world: usize, small: usize, staged: usize) -> Self {
        let packets = size_of::<Pad>() as u64;
        let lines = small.div_ceil(8) as u64;
        let staging = packets + 2 * world as u64 * lines * 16;
        let half = staged.next_multiple_of(16) as u64;
        let (slots, slot, room) = (staging + 2 * half, SLOT, (BLOCKS * PIECES) as u64 * SLOT);
        let bytes = slots + world as u64 * room;
        Arena { packets, lines, staging, half, slots, slot, room, bytes }
    }
}
