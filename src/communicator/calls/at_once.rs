// SPDX-License-Identifier: MPL-2.0
//! A small call that all ranks make at about the same time: entered, done and over in its caller's hands.
//!
//! What rides along with the entries needs nothing of the peers but their records. So the caller waits for those a
//! moment, before the call gets a place among those in flight: to fill that place, find it again and clear it is most of
//! what such a call costs beyond the way of the words from core to core. What can be made ready is made ready before the
//! peers' records are looked at, since that time is spent waiting. Whoever is not there in that moment, or calls something
//! else, is `poll`'s affair: the call is *kept*, entered as it is.

use super::super::addresses::Run;
use super::super::execute::{Cursor, Execution, Went};
use super::super::plan::Chosen;
use super::entry::gathered;
use super::{Call, Calls, Posted};
use crate::error::Result;
use crate::record::Stamps;
use crate::reduce::Stores;

/// How often a peer's record is looked at before the peer is woken.
const PATIENT: u32 = 64;

/// What became of a call that was begun.
pub(crate) enum Begun {
    /// It is over, and well.
    Over,
    /// It is in flight, in this channel.
    Kept(usize),
}

impl Calls {
    /// Makes a call whose caller waits for it, while nothing else is in flight. It looks `looks` times at each peer
    /// before the call is kept. `None` if its channel is still in use.
    pub fn at_once(&mut self, call: &Call<'_>, looks: u32) -> Result<Option<Begun>> {
        let Some(posted) = self.post(call)? else { return Ok(None) };
        let brief = posted.said.carried && self.grouped.is_none() && call.operator.is_none();
        if !brief || !self.carry_out(&posted, call.input, call.output, looks) {
            return Ok(Some(Begun::Kept(self.keep(call, posted, None))));
        }
        Ok(Some(Begun::Over))
    }

    /// Everything from the entry to the end; false if it has to be left to `poll`, which finds all as it was.
    fn carry_out(&mut self, posted: &Posted, input: Run, output: Run, looks: u32) -> bool {
        let Posted { channel, plan, ref said, .. } = *posted;
        let (rank, world) = (self.transport.rank(), self.transport.world());
        let (state, transport) = (&mut self.channels[channel], &self.transport);
        let (epoch, base) = (state.epoch, state.base);
        let record = |peer: usize| transport.channel(peer, channel).record(epoch);
        state.addresses.find_payloads(rank, (input, output), (0..world).map(record));
        let plan = self.plans.get(plan);
        let Some(loaded) = plan.chosen(Chosen::Inline) else { return false };
        let mut owed = posted.owed;
        for peer in (0..world).filter(|peer| *peer != rank) {
            let mut looked = 0;
            while !record(peer).has_entered(epoch) {
                looked += 1;
                if looked == PATIENT {
                    owed.pay(transport);
                }
                if looked >= looks {
                    return false;
                }
            }
        }
        let all = gathered(transport, channel, epoch, plan, *said, 0..world);
        if !all.agreed || !all.carried {
            return false;
        }
        let mut cursor = Cursor::default();
        let mut execution = Execution {
            transport,
            loaded,
            addresses: &state.addresses,
            lists: &mut self.lists,
            fold: plan.fold,
            operator: None,
            channel,
            base,
            stores: Stores::Cached,
            owed: &mut owed,
        };
        // Nothing is awaited in it and no window opened: it reaches this rank's buffers and the records.
        loop {
            match execution.go_on(&mut cursor) {
                Went::On => {}
                Went::Through => break,
                _ => return false,
            }
        }
        let done = if cfg!(annulus_bare) { 0 } else { self.clock.now() };
        owed.pay(transport);
        let stamps = Stamps { arrived: said.stamp, last_arrived: all.stamp, last_rank: all.last, done };
        self.in_flight -= 1;
        self.remember(posted.call, channel, posted.plan, Chosen::Inline, stamps);
        true
    }
}
