// SPDX-License-Identifier: MPL-2.0
//! Who keeps a call from going on: ranks that are dead, have left or are late, by name.

use std::time::{Duration, Instant};

use super::super::descriptor;
use super::super::execute::Awaited;
use super::{Calls, Poll};
use crate::error::{Error, Result};

impl Calls {
    /// Whether the ranks that a call waits for are alive, and its deadline ahead; else fails.
    pub(super) fn look_after(&mut self, channel: usize) -> Result<()> {
        let missing = self.missing(channel);
        let gone = missing.iter().find_map(|rank| Some((*rank, self.transport.gone(*rank)?)));
        let Some(operation) = self.channels[channel].operation.as_ref() else { return Ok(()) };
        let waited = match cfg!(annulus_bare) {
            true => Duration::ZERO, // the bare build takes no stamps, and so has no deadline
            false => Instant::now() - self.instant(operation.stamps.arrived),
        };
        if gone.is_none() && waited < self.timeout {
            return Ok(());
        }
        let plan = self.plans.get(operation.plan);
        let transport = self.transport.transport().clone();
        let title = |rank: usize| transport.title(rank);
        let sentence = self.sentence(&plan.words);
        let (call, own) = (operation.call, title(transport.rank()));
        let phase = if operation.running.is_some() { "to do its part" } else { "to enter" };
        // What it did before it went may have arrived since: a death counts only if the awaited thing is still missing.
        let still = self.missing(channel);
        let error = match gone.filter(|(rank, _)| still.contains(rank)) {
            Some((rank, cause)) => Error::RankLost {
                rank: title(rank),
                cause,
                context: format!("rank {own} waited for it {phase} in call {call}, {sentence}").into(),
            },
            None if waited >= self.timeout && !still.is_empty() => {
                let late: Vec<usize> = self.at_fault(channel, &still).into_iter().map(title).collect();
                let (ranks, them) = if late.len() == 1 { ("rank", "it") } else { ("ranks", "them") };
                Error::Timeout {
                    context: format!(
                        "call {call}, {sentence}: rank {own} waited {:.3} s for {ranks} {} {phase}; see what keeps \
                         {them}, or raise ANNULUS_TIMEOUT",
                        self.timeout.as_secs_f64(),
                        descriptor::list(&late),
                    )
                    .into(),
                    missing: late,
                }
            }
            None => return Ok(()),
        };
        Err(self.fail(error))
    }

    /// The ranks without which a call cannot go on.
    fn missing(&mut self, channel: usize) -> Vec<usize> {
        let Poll::Blocked(awaited) = self.poll(channel) else { return Vec::new() };
        let transport = &self.transport;
        match awaited {
            Awaited::Flag { rank, flag, value } => {
                transport.channel(transport.rank(), channel).note_awaited(rank, flag, value);
                vec![rank]
            }
            Awaited::End(rank) => vec![rank],
            Awaited::Entry(_) | Awaited::Summary(_) => self.absent(channel),
        }
    }

    /// The ranks that have not entered, and the leaders that have not yet said that their groups have.
    fn absent(&self, channel: usize) -> Vec<usize> {
        let (transport, epoch) = (&self.transport, self.channels[channel].epoch);
        let absent = |rank: &usize| !Awaited::Entry(*rank).is_there(&**transport, channel, epoch);
        let Some(grouped) = self.grouped else { return (0..transport.world()).filter(absent).collect() };
        let silent =
            grouped.leaders().filter(|leader| !Awaited::Summary(*leader).is_there(&**transport, channel, epoch));
        let wanted =
            silent.flat_map(|leader| grouped.members(leader).filter(move |rank| *rank == leader || absent(rank)));
        // Its own group may have been completed since this rank last looked.
        wanted.filter(|rank| *rank != transport.rank()).collect()
    }

    /// Who keeps the ranks `missing`, and through them this one: a rank that waits for another is not late itself, and a
    /// leader that has entered is late only if all others have too.
    fn at_fault(&self, channel: usize, missing: &[usize]) -> Vec<usize> {
        let transport = &self.transport;
        let keeper = |rank: usize| {
            let (next, flag, value) = transport.channel(rank, channel).noted_awaited();
            let waits = next < transport.world() && !transport.channel(next, channel).has_reached_noted(flag, value);
            waits.then_some(next)
        };
        // No verified program has ranks that wait for one another; whatever the pages say, this comes to an end.
        let last = |rank: &usize| {
            let chain = std::iter::successors(Some(*rank), |rank| keeper(*rank));
            chain.take(transport.world()).last().unwrap_or(*rank)
        };
        let epoch = self.channels[channel].epoch;
        let entered = |rank: &&usize| Awaited::Entry(**rank).is_there(&**transport, channel, epoch);
        let all_entered = missing.iter().all(|rank| entered(&rank));
        let mut late: Vec<usize> = missing.iter().filter(|rank| all_entered || !entered(rank)).map(last).collect();
        late.sort_unstable();
        late.dedup();
        late
    }

    /// When a stamp was taken.
    fn instant(&self, ticks: u64) -> Instant {
        let ago = self.clock.duration(self.clock.now().saturating_sub(ticks));
        Instant::now().checked_sub(ago).unwrap_or_else(Instant::now)
    }
}
