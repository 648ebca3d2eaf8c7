// SPDX-License-Identifier: MPL-2.0
//! Entering a call: post one's own record, see everyone's, or see the summaries of [`super::groups`] that stand for them.
//! [`super::page`] has the proof.

use std::mem::offset_of;

use super::page::{Channel, DESCRIPTOR, EntryRecord, INLINE};
use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::sync::prefetch_for_write;

/// Bytes of a cache line.
const LINE: usize = 64;

/// What a rank says when it enters a call, beside its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Arrival {
    /// The descriptor's hash.
    pub hash: u64,
    /// When the rank arrived, in ticks.
    pub stamp: u64,
    /// Where the input is, as the transport names places.
    pub input: u64,
    /// Where the output is.
    pub output: u64,
    /// Where the scratch of a user's own schedule is.
    pub region: u64,
}

impl Channel {
    /// The record that the `epoch`-th call of this channel uses. The broken variant, for the model checker to catch,
    /// uses one for all.
    #[inline]
    pub fn record(&self, epoch: u64) -> &EntryRecord {
        let index = if cfg!(annulus_broken_entry) { 0 } else { epoch & 1 };
        &self.entries[index as usize]
    }
}

impl EntryRecord {
    /// Enters: publishes what was written, and the payload that was put in before, under `epoch`.
    #[inline]
    pub fn post(&self, epoch: u64, arrival: &Arrival, descriptor: &[u64; DESCRIPTOR]) {
        // Relaxed: the release store of the epoch publishes them all.
        self.hash.store(arrival.hash, Relaxed);
        self.stamp.store(arrival.stamp, Relaxed);
        self.input.store(arrival.input, Relaxed);
        self.output.store(arrival.output, Relaxed);
        self.region.store(arrival.region, Relaxed);
        for (word, value) in self.descriptor.iter().zip(descriptor) {
            word.store(*value, Relaxed);
        }
        self.epoch.store(epoch, Release);
    }

    /// Fetches the record's lines for this rank to write, as far as a contribution of so many bytes goes, ahead of the call
    /// that will, or all at once where none were. The peers have read them last; taking a line back costs a core-to-core
    /// latency, which stores would wait for a few at a time, in their order, and the entry after them.
    #[inline]
    pub fn expect(&self, carried: usize) {
        let first: *const u8 = std::ptr::from_ref(self).cast();
        for line in (0..offset_of!(EntryRecord, payload) + carried.min(INLINE)).step_by(LINE) {
            prefetch_for_write(first.wrapping_add(line));
        }
    }

    /// Whether the record's rank has entered call `epoch` of this channel. Everything that it wrote before is visible
    /// to a caller that gets `true`.
    #[inline]
    pub fn has_entered(&self, epoch: u64) -> bool {
        self.epoch.load(Acquire) == epoch
    }

    /// What the record's rank said. To be read between `has_entered` and the end of the call.
    #[inline]
    pub fn arrival(&self) -> Arrival {
        // Relaxed: ordered by the acquire load in `has_entered`.
        Arrival {
            hash: self.hash.load(Relaxed),
            stamp: self.stamp.load(Relaxed),
            input: self.input.load(Relaxed),
            output: self.output.load(Relaxed),
            region: self.region.load(Relaxed),
        }
    }

    /// The descriptor in full, likewise.
    pub fn descriptor(&self) -> [u64; DESCRIPTOR] {
        std::array::from_fn(|i| self.descriptor[i].load(Relaxed))
    }
}
