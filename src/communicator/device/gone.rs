// SPDX-License-Identifier: MPL-2.0
//! Ranks that are gone, and missed by a call of this rank.

use super::called::sentence;
use super::delivery::Delivery;
use super::join::{Members, SELF_TESTS};
use crate::error::{Cause, Error};
use crate::kernel::Called;

/// What was seen of ranks that are gone.
#[derive(Default)]
pub(super) struct Gone {
    /// Those that were waited for, in vain if they still are, when it was looked last.
    awaited: Vec<usize>,
}

impl Gone {
    /// Reports a rank that is gone, where a call of this rank waits for it.
    ///
    /// A rank that has left has done all of its calls (`leave`), and makes no other: so it is missed if this rank is in
    /// a call to which it has not come. Of messages a rank does not know whether another has come to them; but what that
    /// had done is there when it is seen to have left, so it is as with one that has died.
    ///
    /// A process that has died may have been in the middle of a call. What it had done is there when its death is seen,
    /// and a kernel that waits for that goes on. So a wait that was there at this look and at the last one is in vain.
    pub fn look(&mut self, members: &Members) {
        let ranks = (0..members.world).filter(|rank| *rank != members.rank);
        let gone: Vec<(usize, Cause)> = ranks.filter_map(|rank| Some((rank, members.transport.gone(rank)?))).collect();
        if gone.is_empty() {
            return;
        }
        let own = members.called(members.rank).unwrap_or_default();
        let may_be_cut_short = |cause| cause == Cause::Died && members.transport.kind() == "processes";
        let counts = members.awaited(members.rank);
        let is_awaited = |rank: usize, cause| {
            counts[rank] != 0 && (may_be_cut_short(cause) || Delivery::with(members, rank).is_some())
        };
        let awaited: Vec<(usize, Cause)> =
            gone.iter().copied().filter(|(rank, cause)| is_awaited(*rank, *cause)).collect();
        let before = std::mem::replace(&mut self.awaited, awaited.iter().map(|(rank, _)| *rank).collect());
        let in_vain = awaited.into_iter().find(|(rank, _)| before.contains(rank));
        let mut left = gone.into_iter().filter(|(_, cause)| !may_be_cut_short(*cause));
        let missed = || left.find(|(rank, _)| !has_come(members, *rank, &own));
        if let Some((rank, cause)) = in_vain.or_else(missed) {
            members.reporter.report(lost(members, rank, cause, &own));
        }
    }
}

/// Whether a rank has come to the call that this rank is in, as far as it is known.
fn has_come(members: &Members, rank: usize, own: &Called) -> bool {
    // Counts are of 32 bits, and wrap.
    members.called(rank).is_none_or(|theirs| (theirs.calls as u32).wrapping_sub(own.calls as u32) as i32 >= 0)
}

fn lost(members: &Members, rank: usize, cause: Cause, own: &Called) -> Error {
    if let Some(delivery) = Delivery::with(members, rank) {
        let title = delivery.title();
        let what = delivery.own(members).map_or_else(String::new, |what| format!(", {what}"));
        let context = format!("rank {} waited for it to go on in {title}{what}", members.rank);
        return Error::RankLost { rank, cause, context: context.into() };
    }
    let call = (own.calls as u32).wrapping_sub(SELF_TESTS);
    let what = if has_come(members, rank, own) { "go on in" } else { "enter" };
    let context = format!("rank {} waited for it to {what} call {call}, {}", members.rank, sentence(&own.word));
    Error::RankLost { rank, cause, context: context.into() }
}
