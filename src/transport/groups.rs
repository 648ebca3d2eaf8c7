// SPDX-License-Identifier: MPL-2.0
//! Entering a call in groups: above [`GROUP`] ranks, no rank looks at every other's record.
//!
//! ```text
//!   rank  0  record ──┐
//!   rank  1  record ──┼─▶ summary ──┐        every rank posts its entry record, as in a small world;
//!     ..              │   of rank 0 │        the first rank of a group, its *leader*, waits for the
//!   rank 15  record ──┘             ├─▶ all  records of its group, and publishes a summary of them;
//!   rank 16  record ──┐             │        every rank waits for the leaders' summaries, and for
//!   rank 17  record ──┼─▶ summary ──┘        nothing else
//!     ..              │   of rank 16
//! ```
//!
//! A rank of n looks at n / 16 summaries and a leader at 16 records besides, instead of n records each. What a summary
//! says (whether its group makes one and the same call, who came last, whether contributions ride along, what can be
//! done with its buffers) spares the records themselves; they are read by whoever needs what they alone have: names of
//! buffers, payloads, and, where ranks disagree, descriptors. [`super::page`] has the proof that they may be.
//!
//! An entry then takes two core-to-core latencies and not one. Groups of groups would take a third, and save nothing
//! below 256 ranks.

use std::ops::Range;

use super::Arrival;
use super::page::{CARRIED, Channel, Summary};
use crate::sync::Ordering::{Acquire, Relaxed, Release};

/// Ranks in a group, and ranks up to which there are no groups.
pub(crate) const GROUP: usize = if cfg!(annulus_loom) { 2 } else { 16 };

/// What some ranks say together in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gathered {
    /// The descriptor's hash of one of them.
    pub hash: u64,
    /// Whether all have that hash.
    pub agreed: bool,
    /// When the last of them arrived, in ticks.
    pub stamp: u64,
    /// The rank that did.
    pub last: usize,
    /// Whether all contributions ride along.
    pub carried: bool,
    /// What cannot be done with all their buffers: the largest of the ranks' numbers, which are the communicator's affair.
    pub reach: u64,
}

impl Gathered {
    /// What one rank says.
    #[inline]
    pub fn of(rank: usize, arrival: &Arrival, reach: u64) -> Self {
        Gathered {
            hash: arrival.hash,
            agreed: true,
            stamp: arrival.stamp,
            last: rank,
            carried: arrival.region == CARRIED,
            reach,
        }
    }

    /// What these and others say. Of two that came at the same time, these came last. The bare build compares nothing
    /// and takes no stamps.
    #[inline]
    pub fn and(mut self, others: Gathered) -> Self {
        if !cfg!(annulus_bare) {
            self.agreed &= others.agreed && others.hash == self.hash;
            if others.stamp > self.stamp {
                (self.stamp, self.last) = (others.stamp, others.last);
            }
        }
        self.carried &= others.carried;
        self.reach = self.reach.max(others.reach);
        self
    }
}

impl Channel {
    /// The summary that the `epoch`-th call of this channel uses. The broken variant, for the model checker to catch, uses
    /// one for all.
    #[inline]
    pub fn summary(&self, epoch: u64) -> &Summary {
        let index = if cfg!(annulus_broken_summary) { 0 } else { epoch & 1 };
        &self.summaries[index as usize]
    }
}

impl Summary {
    /// Publishes what the leader's group says, under `epoch`. The broken variant, for the model checker to catch, orders
    /// nothing.
    fn publish(&self, epoch: u64, gathered: &Gathered) {
        // Relaxed: the release store of the epoch publishes them all.
        self.hash.store(gathered.hash, Relaxed);
        self.agreed.store(u64::from(gathered.agreed), Relaxed);
        self.stamp.store(gathered.stamp, Relaxed);
        self.last.store(gathered.last as u64, Relaxed);
        self.carried.store(u64::from(gathered.carried), Relaxed);
        self.reach.store(gathered.reach, Relaxed);
        self.epoch.store(epoch, if cfg!(annulus_broken_publish) { Relaxed } else { Release });
    }

    /// Whether the leader has published it for call `epoch` of this channel. Everything that it and its group wrote before
    /// they entered is visible to a caller that gets `true`.
    #[inline]
    pub fn is_published(&self, epoch: u64) -> bool {
        self.epoch.load(Acquire) == epoch
    }

    /// What it says. To be read between `is_published` and the end of the call.
    pub fn gathered(&self) -> Gathered {
        // Relaxed: ordered by the acquire load in `is_published`.
        Gathered {
            hash: self.hash.load(Relaxed),
            agreed: self.agreed.load(Relaxed) != 0,
            stamp: self.stamp.load(Relaxed),
            last: self.last.load(Relaxed) as usize,
            carried: self.carried.load(Relaxed) != 0,
            reach: self.reach.load(Relaxed),
        }
    }
}

/// A rank's place in a world of groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grouped {
    rank: usize,
    world: usize,
}

/// What a look at a call's entry has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// All ranks have entered.
    Entered,
    /// This rank has published its group's summary just now; to be looked at again.
    Published,
    /// This leader waits for the record of a rank of its group.
    Record(usize),
    /// A leader's summary is missing.
    Summary(usize),
}

impl Grouped {
    /// `None` in a world that is small enough for every rank to look at every other's record.
    pub fn of(rank: usize, world: usize) -> Option<Self> {
        (world > GROUP).then_some(Grouped { rank, world })
    }

    /// This rank's leader.
    pub fn leader(self) -> usize {
        self.rank - self.rank % GROUP
    }

    /// Whether this rank is a leader.
    pub fn is_leader(self) -> bool {
        self.leader() == self.rank
    }

    /// All leaders.
    pub fn leaders(self) -> impl Iterator<Item = usize> {
        (0..self.world).step_by(GROUP)
    }

    /// The ranks of a leader's group, itself among them.
    pub fn members(self, leader: usize) -> Range<usize> {
        leader..self.world.min(leader + GROUP)
    }

    /// Goes on with entering call `epoch` of a channel, which `channel` finds of each rank. A leader whose group has
    /// entered publishes what `gather` says of it. `seen` is 0 in a call's first look, and then this function's alone:
    /// how many records, and later summaries, it need not look at again.
    pub fn look<'c>(
        self,
        seen: &mut usize,
        epoch: u64,
        channel: impl Fn(usize) -> &'c Channel,
        gather: impl FnOnce() -> Gathered,
    ) -> Look {
        let own = channel(self.rank).summary(epoch);
        // Its own word tells a leader whether it has still to publish.
        if self.is_leader() && !own.is_published(epoch) {
            // The broken variant, for the model checker to catch, waits for nobody.
            let members = self.members(self.rank).skip(*seen).filter(|_| !cfg!(annulus_broken_leader));
            for member in members {
                if !channel(member).record(epoch).has_entered(epoch) {
                    return Look::Record(member);
                }
                *seen += 1;
            }
            own.publish(epoch, &gather());
            *seen = 0;
            return Look::Published;
        }
        for leader in self.leaders().skip(*seen) {
            if !channel(leader).summary(epoch).is_published(epoch) {
                return Look::Summary(leader);
            }
            *seen += 1;
        }
        Look::Entered
    }
}

#[cfg(all(test, not(annulus_loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_rank_has_one_leader_and_small_worlds_have_none() {
        for world in 0..=GROUP {
            assert_eq!(Grouped::of(0, world), None);
        }
        for world in GROUP + 1..=3 * GROUP + 1 {
            let first = Grouped::of(0, world).unwrap();
            let all: Vec<usize> = first.leaders().flat_map(|leader| first.members(leader)).collect();
            assert_eq!(all, (0..world).collect::<Vec<_>>(), "{world} ranks");
            for rank in 0..world {
                let own = Grouped::of(rank, world).unwrap();
                assert!(own.members(own.leader()).contains(&rank) && own.members(own.leader()).len() <= GROUP);
                assert_eq!(own.is_leader(), own.leaders().any(|leader| leader == rank));
            }
        }
    }
}
