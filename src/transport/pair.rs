// SPDX-License-Identifier: MPL-2.0
//! What messages from one rank to another go through: a transport of these two, within that of their communicator.
//!
//! To send is to broadcast among two, so a message has everything that a call has: agreement on type and length,
//! deadlines, detection of a dead peer, and the schedules' ways of moving data. For each ordered pair of ranks that
//! exchange messages there are channels and regions apart from the communicator's, and hence a numbering of its own.
//! Everything that is a rank's and not a call's stays the communicator's: doorbell, window, presence and poison. So a
//! rank that waits for several things sleeps on one word, and a failure is everybody's.
#![allow(unsafe_code)] // channels lie in memory that the communicator's transport hands out

use std::ptr::NonNull;
use std::sync::Arc;

use super::doorbell::Scope;
use super::memory::Memory;
use super::page::{CHANNELS, Channel, Page};
use super::{Limits, REGION, Transport};
use crate::error::{Cause, Error, Result};

/// Where the regions begin.
const REGIONS: usize = size_of::<[Channel; CHANNELS]>().next_multiple_of(4096);

/// What a rank needs for each pair: its channels, then its regions.
pub(crate) const BYTES: usize = REGIONS + CHANNELS * REGION;

/// The transport of the sender, rank 0, and the receiver, rank 1.
pub(crate) struct Pair {
    within: Arc<dyn Transport>,
    /// Their ranks in the communicator.
    ranks: [usize; 2],
    memory: [NonNull<u8>; 2],
}

// SAFETY: the memory is read and written through the channels' atomics, and by schedules' rules, from any thread.
unsafe impl Send for Pair {}
// SAFETY: as above.
unsafe impl Sync for Pair {}

impl Pair {
    /// For messages from one rank to another; this rank is one of the two.
    pub fn new(within: Arc<dyn Transport>, from: usize, to: usize) -> Result<Self> {
        let memory = [within.pair_memory(from, from, to)?, within.pair_memory(to, from, to)?];
        Ok(Pair { within, ranks: [from, to], memory })
    }
}

impl Transport for Pair {
    fn kind(&self) -> &'static str {
        self.within.kind()
    }

    fn rank(&self) -> usize {
        usize::from(self.within.rank() == self.ranks[1])
    }

    fn world(&self) -> usize {
        2
    }

    fn page(&self, rank: usize) -> &Page {
        self.within.page(self.ranks[rank])
    }

    fn root(&self) -> &Page {
        self.within.root()
    }

    fn channel(&self, rank: usize, channel: usize) -> &Channel {
        assert!(channel < CHANNELS, "calls use the channels that there are");
        // SAFETY: The memory begins with the channels, aligned to a page, and lives as long as `within`. All-zero memory
        // is a channel in which nothing was called yet; every word is atomic or in an `UnsafeCell`.
        unsafe { &*self.memory[rank].cast::<Channel>().add(channel).as_ptr() }
    }

    fn is_pair(&self) -> bool {
        true
    }

    fn title(&self, rank: usize) -> usize {
        self.within.title(self.ranks[rank])
    }

    fn pair_memory(&self, _: usize, _: usize, _: usize) -> Result<NonNull<u8>> {
        Err(Error::unsupported("a pair of ranks has no pairs of its own"))
    }

    fn region(&self, rank: usize, channel: usize) -> NonNull<u8> {
        let offset = REGIONS + channel.min(CHANNELS - 1) * REGION;
        // SAFETY: within the memory's `BYTES`.
        unsafe { self.memory[rank].add(offset) }
    }

    fn name(&self, data: *const u8, bytes: usize) -> u64 {
        self.within.name(data, bytes)
    }

    fn address(&self, rank: usize, name: u64, bytes: usize) -> Option<NonNull<u8>> {
        self.within.address(self.ranks[rank], name, bytes)
    }

    fn reads(&self) -> bool {
        self.within.reads()
    }

    fn read(&self, rank: usize, address: usize, to: &mut [u8]) -> Result<bool> {
        self.within.read(self.ranks[rank], address, to)
    }

    fn allocate(&self, bytes: usize) -> Result<Memory> {
        self.within.allocate(bytes)
    }

    fn allocate_lasting(&self, bytes: usize) -> Result<NonNull<u8>> {
        self.within.allocate_lasting(bytes)
    }

    fn gone(&self, rank: usize) -> Option<Cause> {
        self.within.gone(self.ranks[rank])
    }

    fn isolate(&self, outputs: &[(NonNull<u8>, usize)]) {
        self.within.isolate(outputs);
    }

    fn limits(&self) -> Limits {
        self.within.limits()
    }

    fn bed(&self) -> Scope {
        self.within.bed()
    }

    fn is_roomy(&self) -> bool {
        self.within.is_roomy()
    }

    fn prepare(&self) -> Result<u64> {
        Err(Error::unsupported("a pair of ranks makes no communicators"))
    }

    fn discard(&self, _: u64) {}

    fn join(&self, _: u64, _: &[(usize, u64)]) -> Result<Arc<dyn Transport>> {
        Err(Error::unsupported("a pair of ranks makes no communicators"))
    }

    /// Ranks leave their communicator.
    fn leave(&self, _: bool) {}

    fn footprint(&self) -> usize {
        BYTES
    }
}
