// SPDX-License-Identifier: MPL-2.0
//! Ranks that are gone, and missed by a call of this rank.

use super::called::sentence;
use super::join::{Members, SELF_TESTS};
use crate::error::{Cause, Error};
use crate::kernel::Called;

/// What was seen of ranks that are gone.
#[derive(Default)]
pub(super) struct Gone {
    /// Those that had died and were waited for when it was looked last.
    awaited: Vec<usize>,
}

impl Gone {
    /// Reports a rank that is gone, where a call of this rank waits for it.
    ///
    /// A rank that has left has done all of its calls (`leave`), and makes no other: so it is missed if this rank is in
    /// a call to which it has not come.
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
        let (died, left): (Vec<_>, Vec<_>) = gone.into_iter().partition(|(_, cause)| may_be_cut_short(*cause));
        let counts = members.awaited(members.rank);
        let awaited = died.into_iter().map(|(rank, _)| rank).filter(|rank| counts[*rank] != 0).collect();
        let before = std::mem::replace(&mut self.awaited, awaited);
        let dead = self.awaited.iter().find(|rank| before.contains(rank)).map(|rank| (*rank, Cause::Died));
        let missed = || left.into_iter().find(|(rank, _)| !has_come(members, *rank, &own));
        if let Some((rank, cause)) = dead.or_else(missed) {
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
    let call = (own.calls as u32).wrapping_sub(SELF_TESTS);
    let what = if has_come(members, rank, own) { "go on in" } else { "enter" };
    let context = format!("rank {} waited for it to {what} call {call}, {}", members.rank, sentence(&own.word));
    Error::RankLost { rank, cause, context: context.into() }
}
