// SPDX-License-Identifier: MPL-2.0
//! A kernel's report, in words: which call failed, and which ranks are to blame.
//!
//! The report says how the kernel ended and the number of the call. What ranks called is in their pads, where it stays
//! once the call has failed (`called`). Whoever comes first, all ranks return one failure.

use std::mem::offset_of;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::descriptor::{list, mismatch_of};
use super::called::sentence;
use super::join::{Members, SELF_TESTS};
use crate::driver::Words;
use crate::error::{Cause, Error};
use crate::kernel::{Called, Pad, RANKS, Report};

const ABORTED: u32 = 1;
const LATE: u32 = 2;
const DIFFERS: u32 = 3;
const GONE: u32 = 5;

const FINISHING: u32 = 2;
const RECEIVING: u32 = 3;

/// How long to look for what must come: other threads of the kernel, what other ranks call, what another rank says of a
/// failure that it has seen first.
const SOON: Duration = Duration::from_secs(1);

/// The failure that all ranks return, where this rank's kernel has reported something.
pub(super) fn explain(members: &Members, words: &Words) -> Error {
    let report = settled(words);
    let call = u64::from(report.calls.wrapping_sub(SELF_TESTS));
    let failure = match report.ended {
        LATE => late(members, &report, call),
        DIFFERS => {
            let calls = called(members, &report);
            mismatch_of(call, calls.into_iter().enumerate().filter_map(|(rank, text)| Some((rank, text?))))
        }
        GONE => Error::Mismatch(
            format!(
                "call {call}: {} names memory that was deregistered, by a graph that was captured before; drop such \
                 graphs, and capture anew",
                name(&ranks(report.missing))
            )
            .into(),
        ),
        // Somebody else has failed, or asked for it, and is about to say so.
        ended => eventually(|| members.reporter.failure()).unwrap_or_else(|| {
            let deserted = ranks(report.deserted);
            let because = match ended {
                ABORTED => "the call was aborted".to_owned(),
                _ => format!("{} gave the call up", name(&deserted)),
            };
            Error::Aborted(format!("call {call} of rank {}: {because}", members.rank).into())
        }),
    };
    members.reporter.report(failure)
}

/// Looks until there is something.
fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let begin = Instant::now();
    loop {
        let found = look();
        if found.is_some() || begin.elapsed() > SOON {
            return found;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The report, once threads of the kernel have ceased to add to it.
fn settled(words: &Words) -> Report {
    let words = words.get();
    // Acquire: what the thread wrote that came first is complete when this word is there.
    let _ = eventually(|| (words[1].load(Ordering::Acquire) != 0).then_some(()));
    // Relaxed: words that are only ever added to, and are looked at until nothing comes.
    let read = || -> [u32; 8] { std::array::from_fn(|word| words[word].load(Ordering::Relaxed)) };
    let mut seen = read();
    let seen = eventually(|| {
        std::thread::sleep(Duration::from_millis(3));
        let before = std::mem::replace(&mut seen, read());
        (before == seen).then_some(seen)
    });
    bytemuck::cast(seen.unwrap_or_else(read))
}

fn late(members: &Members, report: &Report, call: u64) -> Error {
    let missing = ranks(report.missing);
    let what = match report.phase {
        FINISHING => "entered and did not finish",
        RECEIVING.. => "entered and sent nothing",
        _ => "did not enter",
    };
    let own = called_in(members, report, members.rank).map_or_else(String::new, |own| format!(", {own}"));
    let patience = Duration::from_nanos(members.patience());
    let them = if missing.len() == 1 { "it" } else { "them" };
    let context = format!("call {call}{own}: {} {what} within {patience:?}; see what keeps {them}", name(&missing));
    Error::Timeout { missing, context: context.into() }
}

/// The failure of the calls by which ranks have tested what they share, in its own words.
pub(super) fn of_self_test(members: &Members, failure: Error) -> Error {
    let Error::Timeout { missing, .. } = failure else { return failure };
    let (patience, them) = (Duration::from_nanos(members.patience()), name(&missing));
    let context = format!(
        "testing device memory: nothing of {them} arrived within {patience:?}; see what keeps it, and whether the \
         machine's peer-to-peer access works"
    );
    Error::Timeout { missing, context: context.into() }
}

/// What each rank calls, in words, as far as it is known.
fn called(members: &Members, report: &Report) -> Vec<Option<String>> {
    let mut calls: Vec<Option<String>> = vec![None; members.world];
    let _ = eventually(|| {
        for (rank, call) in calls.iter_mut().enumerate().filter(|(_, call)| call.is_none()) {
            *call = called_in(members, report, rank);
        }
        calls.iter().all(Option::is_some).then_some(())
    });
    calls
}

/// What a rank calls, in words, if it has come to the call that failed.
fn called_in(members: &Members, report: &Report, rank: usize) -> Option<String> {
    let called = members.called(rank)?;
    (called.calls == u64::from(report.calls)).then(|| sentence(&called.word))
}

/// Which dead ranks a rank's kernels wait for.
#[derive(Default)]
pub(super) struct Deaths {
    /// Those that were awaited when it was looked last.
    awaited: Vec<usize>,
}

impl Deaths {
    /// Reports a rank whose process has died, where a call of this rank waits for it.
    ///
    /// What the rank had done is there when its death is seen, and a kernel that waits for that goes on. So a wait that
    /// was there at this look and at the last one is in vain.
    pub fn look(&mut self, members: &Members) {
        // A thread that is gone may have left calls on its stream.
        if members.transport.kind() != "processes" {
            return;
        }
        let ranks = (0..members.world).filter(|rank| *rank != members.rank);
        let dead: Vec<usize> = ranks.filter(|rank| members.transport.gone(*rank) == Some(Cause::Died)).collect();
        if dead.is_empty() {
            return;
        }
        let counts = awaited(members);
        let awaited: Vec<usize> = dead.into_iter().filter(|rank| counts[*rank] != 0).collect();
        let before = std::mem::replace(&mut self.awaited, awaited);
        if let Some(rank) = self.awaited.iter().copied().find(|rank| before.contains(rank)) {
            members.reporter.report(lost(members, rank));
        }
    }
}

/// How many threads of this rank's kernels wait for each rank, and have for a while.
fn awaited(members: &Members) -> [u32; RANKS] {
    let first = offset_of!(Pad, awaited);
    let bytes = members.arenas[members.rank]
        .part(first..first + size_of::<[u32; RANKS]>())
        .and_then(|words| members.stream.read(&words));
    bytes.map_or([0; RANKS], |bytes| bytemuck::pod_read_unaligned(&bytes))
}

fn lost(members: &Members, rank: usize) -> Error {
    let own = members.called(members.rank).unwrap_or_default();
    let call = (own.calls as u32).wrapping_sub(SELF_TESTS);
    let has_come = members.called(rank).is_some_and(|Called { calls, .. }| calls == own.calls);
    let what = if has_come { "go on in" } else { "enter" };
    let context = format!("rank {} waited for it to {what} call {call}, {}", members.rank, sentence(&own.word));
    Error::RankLost { rank, cause: Cause::Died, context: context.into() }
}

/// The ranks whose bits are set.
fn ranks(bits: u32) -> Vec<usize> {
    (0..RANKS).filter(|rank| bits >> rank & 1 == 1).collect()
}

fn name(ranks: &[usize]) -> String {
    format!("{} {}", if ranks.len() == 1 { "rank" } else { "ranks" }, list(ranks))
}
