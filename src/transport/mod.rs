// SPDX-License-Identifier: MPL-2.0
//! What a rank needs of its peers on one host: their pages, their memory, whether they live, and how to wait for them.
//!
//! | file | subject |
//! |---|---|
//! | `page` | the words that ranks share, who writes which, and the proof of the entry |
//! | `entry` `groups` `flags` `window` `waiting` | the protocols over those words; model-checked with loom |
//! | `threads` | ranks are threads of one process: an address is an address |
//! | `shm` | ranks are processes: memory lives in segments that all map |
//! | `rendezvous` | how processes meet; `star`: the exchange of bytes and descriptors through one of them |
//! | `pair` | what messages from one rank to another go through |
//! | `peers` | where the words are that a rank looks at in every call |
//! | `memory` `doorbell` | allocation, and sleeping on a word |

pub(crate) mod doorbell;
mod entry;
mod flags;
pub(crate) mod groups;
pub(crate) mod memory;
pub(crate) mod page;
pub(crate) mod pair;
pub(crate) mod peers;
pub mod rendezvous;
#[cfg(target_os = "linux")]
pub mod shm;
#[cfg(target_os = "linux")]
mod star;
pub(crate) mod threads;
pub(crate) mod waiting;
mod window;

use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use entry::Arrival;

use crate::error::{Cause, Result};
use memory::Memory;
use page::{Channel, Page};

/// The largest world: what one host could conceivably run, and a bound on what a mistyped number can ask for.
pub(crate) const MOST_RANKS: usize = 4096;

/// Shared scratch of a rank and channel, for the slots of staged schedules. All of a rank's regions together stay
/// below the megabyte that a communicator may cost, and in a second-level cache.
pub(crate) const REGION: usize = 96 << 10;

/// Up to how many bytes contributions ride along with the entry: every rank's, since it decides what runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Whatever the memory.
    pub always: usize,
    /// Where buffers cannot be addressed by all; at most what a record holds.
    pub inline: usize,
}

/// The bit of names of private memory that peers can read: the rest is its address.
pub(crate) const PRIVATE: u64 = 1 << 63;

/// Whether peers cannot address what has this name.
pub(crate) fn is_private(name: u64) -> bool {
    name == 0 || name & PRIVATE != 0
}

/// The peers of one rank in one communicator.
///
/// A *name* says where in a rank's memory something lies, in a way that its peers understand: 0 is private memory that
/// they cannot reach, [`PRIVATE`] and an address is private memory that they can read.
pub(crate) trait Transport: Send + Sync {
    /// What users call it: `threads` or `processes`.
    fn kind(&self) -> &'static str;

    /// This rank.
    fn rank(&self) -> usize;

    /// The number of ranks.
    fn world(&self) -> usize;

    /// A rank's page. It, and a rank's channels, stay where they are while the transport lives.
    fn page(&self, rank: usize) -> &Page;

    /// The page whose `poison` is the communicator's.
    fn root(&self) -> &Page {
        self.page(0)
    }

    /// A rank's entries and flags in the calls of a channel.
    fn channel(&self, rank: usize, channel: usize) -> &Channel {
        &self.page(rank).channels[channel]
    }

    /// Whether it is of the two ranks of a [`pair::Pair`], for messages from the first to the second.
    fn is_pair(&self) -> bool {
        false
    }

    /// What users know a rank as.
    fn title(&self, rank: usize) -> usize {
        rank
    }

    /// Rank `rank`'s memory for messages from one rank to another, of both of which this rank is one and `rank` is one:
    /// [`pair::BYTES`], zeroed when it is first asked for and the same ever after.
    fn pair_memory(&self, rank: usize, from: usize, to: usize) -> Result<NonNull<u8>>;

    /// The first byte of a rank's [`REGION`] for a channel.
    fn region(&self, rank: usize, channel: usize) -> NonNull<u8>;

    /// This rank's name for its own bytes at `data`.
    fn name(&self, data: *const u8, bytes: usize) -> u64;

    /// Where this rank finds the bytes that `rank` named; `None` if they are private or the name cannot be right.
    fn address(&self, rank: usize, name: u64, bytes: usize) -> Option<NonNull<u8>>;

    /// Whether ranks can read each other's private memory.
    fn reads(&self) -> bool {
        false
    }

    /// Fills `to` with the bytes at `address` of `rank`'s private memory. False if that rank's process has ended.
    fn read(&self, rank: usize, address: usize, to: &mut [u8]) -> Result<bool>;

    /// Memory of this rank that peers can reach.
    fn allocate(&self, bytes: usize) -> Result<Memory>;

    /// Zeroed memory of this rank that peers can reach for as long as any of them is there.
    fn allocate_lasting(&self, bytes: usize) -> Result<NonNull<u8>>;

    /// Whether a rank is gone, by its own word or by its death.
    fn gone(&self, rank: usize) -> Option<Cause>;

    /// After the poison is set: returns when no peer can write to this rank's `outputs` any more. What they hold may be
    /// lost. A peer that reads an input meanwhile learns from the poison that what it has read may be anything.
    fn isolate(&self, outputs: &[(NonNull<u8>, usize)]);

    /// What rides along, as all ranks have agreed.
    fn limits(&self) -> Limits;

    /// Sleeps and wakes threads by the word.
    fn bed(&self) -> doorbell::Scope;

    /// Whether every rank can have a core of its own.
    fn is_roomy(&self) -> bool;

    /// This rank's part of a further communicator: a token for all its ranks to see.
    fn prepare(&self) -> Result<u64>;

    /// Gives back what [`Transport::prepare`] took: no rank joins with this token.
    fn discard(&self, token: u64);

    /// The further communicator, made by this one's `call`: of `members`, each a rank of this one and its token, in the
    /// order of their new ranks. This rank is one of them; no rank is among the members of two of a call.
    fn join(&self, call: u64, members: &[(usize, u64)]) -> Result<Arc<dyn Transport>>;

    /// Leaves: says so in the page, and gives back what no peer can still look at.
    fn leave(&self, panicking: bool);

    /// Shared memory that this rank's part of the communicator takes, in bytes, beside users' buffers.
    fn footprint(&self) -> usize;
}

/// The time after which a rank that has not arrived is reported: `ANNULUS_TIMEOUT` in seconds, else 300 s.
pub(crate) fn default_timeout() -> Result<Duration> {
    let Some(text) = std::env::var_os("ANNULUS_TIMEOUT") else { return Ok(Duration::from_secs(300)) };
    text.to_str()
        .and_then(|text| text.trim().parse::<f64>().ok())
        .filter(|seconds| *seconds > 0.0 && *seconds <= 1e9)
        .map(Duration::from_secs_f64)
        .ok_or_else(|| {
            crate::Error::invalid(format!(
                "ANNULUS_TIMEOUT is {text:?}; it must be a number of seconds above zero, such as 300 or 0.5"
            ))
        })
}
