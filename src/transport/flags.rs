// SPDX-License-Identifier: MPL-2.0
//! Flags within a call: monotone counters with one writer each.
//!
//! Rank w's flag f is a word in w's own page that w alone writes and that never shrinks. A waiter reads it over the
//! interconnect; that costs one cache line a change, the same as a store into the waiter's memory would, and lets one
//! store wake any number of waiters.
//!
//! A wait for value v passes once the flag is at least v. Since the flag only grows, a waiter that comes late cannot
//! miss it, and nothing is ever reset: a call's values start above the largest of the calls before on that channel.
//! The release store orders everything its rank did before; the acquire load orders everything its reader does after.
//! Counters of 64 bits do not wrap.

use super::page::Channel;
use crate::sync::Ordering::{Acquire, Relaxed, Release};

impl Channel {
    /// Raises this rank's flag to `value`. The broken variant, for the model checker to catch, orders nothing.
    #[inline]
    pub fn signal(&self, flag: usize, value: u64) {
        self.flags[flag].store(value, if cfg!(annulus_broken_flag) { Relaxed } else { Release });
    }

    /// Whether the flag has reached `value`.
    #[inline]
    pub fn has_reached(&self, flag: usize, value: u64) -> bool {
        self.flags[flag].load(Acquire) >= value
    }

    /// Notes in this rank's own channel that it is about to sleep until `flag` of `rank` reaches `value`, for those who
    /// wait for this rank: at their deadline they name whom it waits for. Nothing else depends on it, so it is relaxed;
    /// and it is never taken back, since a flag that has been reached stays so.
    pub fn note_awaited(&self, rank: usize, flag: usize, value: u64) {
        self.awaited.store(value << 24 | (flag as u64 & 0xff) << 16 | rank as u64 & 0xffff, Relaxed);
    }

    /// What was noted last: the rank, its flag, and the low 40 bits of the value.
    pub fn noted_awaited(&self) -> (usize, usize, u64) {
        let word = self.awaited.load(Relaxed);
        ((word & 0xffff) as usize, (word >> 16 & 0xff) as usize, word >> 24)
    }

    /// Whether the flag has reached a value of which the low 40 bits are known; they wrap after years.
    pub fn has_reached_noted(&self, flag: usize, value: u64) -> bool {
        let reached = self.flags.get(flag).map_or(0, |flag| flag.load(Acquire));
        (reached << 24).wrapping_sub(value << 24) as i64 >= 0
    }
}
