// SPDX-License-Identifier: MPL-2.0
//! What follows when all ranks have entered a call: they compare what they call, and choose, from what all of them have
//! seen, what runs.

use std::ops::Range;

use super::super::addresses::reach;
use super::super::descriptor::{self, Descriptor};
use super::super::execute::{Awaited, Cursor};
use super::super::owed::Owed;
use super::super::plan::{Chosen, Plan};
use super::{Calls, Poll, Running};
use crate::error::Error;
use crate::reduce::Stores;
use crate::schedule::{Access, Collective};
use crate::transport::Arrival;
use crate::transport::groups::{Gathered, Grouped, Look};
use crate::transport::peers::Peers;

/// From how many bytes on results are stored past the caches: where peers' buffers are reached, and where what is shared
/// is in a cache.
const STREAMING: [usize; 2] = [4 << 20, 8 << 20];

impl Calls {
    /// Goes on with the entry in a world of groups; `Ok` once all ranks have entered.
    pub(super) fn look_at_groups(&mut self, grouped: Grouped, channel: usize) -> Result<(), Poll> {
        let transport = &self.transport;
        let state = &mut self.channels[channel];
        let Some(operation) = state.operation.as_mut() else { return Err(Poll::Moved) };
        let (epoch, plan) = (state.epoch, self.plans.get(operation.plan));
        let own = operation.said;
        let gather = || gathered(transport, channel, epoch, plan, own, grouped.members(transport.rank()));
        match grouped.look(&mut operation.seen, epoch, |rank| transport.channel(rank, channel), gather) {
            Look::Entered => Ok(()),
            Look::Published => {
                (operation.owed, operation.looks) = (Owed::Everybody, 0);
                Err(Poll::Moved)
            }
            Look::Record(rank) => Err(self.blocked(channel, Awaited::Entry(rank))),
            Look::Summary(leader) => Err(self.blocked(channel, Awaited::Summary(leader))),
        }
    }

    /// All ranks have entered: compares what they call, and chooses what runs.
    pub(super) fn enter(&mut self, channel: usize) -> Result<(), Poll> {
        let transport = &self.transport;
        let (rank, world) = (transport.rank(), transport.world());
        let state = &mut self.channels[channel];
        let Some(operation) = state.operation.as_mut() else { return Err(Poll::Moved) };
        let record = |rank: usize| transport.channel(rank, channel).record(state.epoch);
        let plan = self.plans.get_mut(operation.plan);
        let all = match self.grouped {
            None => gathered(transport, channel, state.epoch, plan, operation.said, 0..world),
            Some(grouped) => grouped
                .leaders()
                .map(|leader| transport.channel(leader, channel).summary(state.epoch).gathered())
                .fold(operation.said, Gathered::and),
        };
        (operation.stamps.last_arrived, operation.stamps.last_rank) = (all.stamp, all.last);
        if !all.agreed {
            let call = operation.call;
            let descriptors: Vec<_> = (0..world).map(|peer| record(peer).descriptor()).collect();
            let error = self.fail(match self.transport.is_pair() {
                true => descriptor::message_mismatch(call, [transport.title(0), transport.title(1)], &descriptors),
                false => descriptor::mismatch(call, &descriptors),
            });
            return Err(Poll::Done(Err(error)));
        }
        let buffers = (operation.input, operation.output);
        if plan.inline.is_some() && (plan.always_inline || all.carried) {
            state.addresses.find_payloads(rank, buffers, (0..world).map(record));
            let program = Chosen::Inline;
            operation.running = Some(Running { program, cursor: Cursor::default(), stores: Stores::Cached });
            return Ok(());
        }
        let access = [Access::Direct, Access::Read, Access::Staged][all.reach.min(2) as usize];
        let program = match plan.program(access) {
            Ok(program) => program,
            Err(error) => return Err(Poll::Done(Err(self.fail(error)))),
        };
        let Some(loaded) = plan.chosen(program) else { return Err(Poll::Moved) };
        if loaded.access < access {
            let does = if loaded.access == Access::Direct { "reads and writes" } else { "reads" };
            let error = Error::unsupported(format!(
                "call {}: the schedule {} {does} peers' buffers, and not all ranks' buffers are allocated by the \
                 communicator; use `Communicator::allocate`",
                operation.call, loaded.name
            ));
            // All ranks come to this, so nobody is left waiting, and the communicator goes on.
            self.end(channel, Err(error.clone()));
            return Err(Poll::Done(Err(error)));
        }
        let records = (0..world).map(record);
        if let Err(error) = state.addresses.find(&**transport, channel, plan, buffers, loaded.access, records) {
            return Err(Poll::Done(Err(self.fail(error))));
        }
        // Results that exceed what caches keep are stored past them, unless they overwrite what was just read.
        let Descriptor { collective, in_place, .. } = plan.descriptor;
        let overwrites = in_place && (collective.folds() || collective == Collective::AllToAll);
        let large = plan.bytes >= STREAMING[usize::from(access != Access::Direct)] && !overwrites;
        let stores = if large { Stores::Streaming } else { Stores::Cached };
        operation.running = Some(Running { program, cursor: Cursor::default(), stores });
        Ok(())
    }
}

/// What a rank says when it arrives.
#[inline]
pub(super) fn said(plan: &Plan, rank: usize, arrival: &Arrival) -> Gathered {
    // What always rides along names no buffers.
    let reach = if plan.always_inline { Access::Direct } else { reach(plan, rank, arrival) };
    Gathered::of(rank, arrival, reach as u64)
}

/// What this rank says, as it knows itself, and others, which have entered. It does not look at its own record: peers
/// have that line by now, and to get it back takes as long as the entry itself.
#[inline]
pub(super) fn gathered(
    transport: &Peers,
    channel: usize,
    epoch: u64,
    plan: &Plan,
    own: Gathered,
    ranks: Range<usize>,
) -> Gathered {
    if cfg!(annulus_bare) && plan.always_inline {
        return own;
    }
    let others = ranks.filter(|rank| *rank != own.last);
    let record = |rank| transport.channel(rank, channel).record(epoch);
    others.map(|rank| said(plan, rank, &record(rank).arrival())).fold(own, Gathered::and)
}
