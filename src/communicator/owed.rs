// SPDX-License-Identifier: MPL-2.0
//! Waking peers that sleep, when it costs nothing that matters.
//!
//! Not at once: the fence that must come first waits until the store has reached the cache, a core-to-core latency in
//! which this rank could be looking at its peers' words already. A peer that sleeps has posted or signalled before, so it
//! does not keep this rank from going on; and none is left asleep, since a rank pays after a few looks in vain, before it
//! sleeps itself, before it moves much data, when the caller turns to something else, and at the call's end.

use crate::transport::groups::Grouped;
use crate::transport::peers::Peers;
use crate::transport::waiting;

/// Whom a call has still to wake for what its rank has posted, published or signalled. The later include the earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owed {
    Nobody,
    /// This rank's leader, who alone waits for its entry record in a world of groups.
    Leader(usize),
    Everybody,
}

impl Owed {
    /// For an entry record: a leader waits for its own to be looked at by itself.
    pub fn for_entering(grouped: Option<Grouped>) -> Self {
        match grouped {
            None => Owed::Everybody,
            Some(grouped) if grouped.is_leader() => Owed::Nobody,
            Some(grouped) => Owed::Leader(grouped.leader()),
        }
    }

    /// Wakes those peers that sleep; nothing is owed any more.
    pub fn pay(&mut self, transport: &Peers) {
        let peers = match std::mem::replace(self, Owed::Nobody) {
            Owed::Nobody => return,
            Owed::Leader(leader) => leader..leader + 1,
            Owed::Everybody => 0..transport.world(),
        };
        waiting::announce();
        let bed = transport.bed();
        for peer in peers.filter(|peer| *peer != transport.rank()) {
            transport.page(peer).ring(&bed);
        }
    }
}
