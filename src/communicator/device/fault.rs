// SPDX-License-Identifier: MPL-2.0
//! A kernel's report, in words: which call failed, and which ranks are to blame.
//!
//! The report says how the kernel ended and the number of the call. What ranks called, and for whom they wait, is in
//! their pads, where it stays once the call has failed (`called`). So at a deadline the rank is named that waits for
//! nobody, and not one that waits itself. Whoever comes first, all ranks return one failure.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::descriptor::{list, mismatch_of};
use super::called::sentence;
use super::delivery::Delivery;
use super::join::{Members, SELF_TESTS};
use super::room::CONNECTIONS;
use crate::driver::{Platform, Words};
use crate::error::Error;
use crate::kernel::{RANKS, Report};

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
    let delivery = Delivery::of(members, &report);
    let title = delivery.map_or_else(|| format!("call {call}"), |delivery| delivery.title());
    let failure = match (report.ended, delivery) {
        (LATE, _) => late(members, &report, delivery, &title),
        (DIFFERS, None) => {
            let calls = called(members, &report);
            mismatch_of(call, calls.into_iter().enumerate().filter_map(|(rank, text)| Some((rank, text?))))
        }
        (DIFFERS, Some(delivery)) => delivery.mismatch(members),
        (GONE, _) => Error::Mismatch(
            format!(
                "{title}: {} names memory that was deregistered, by a graph that was captured before; drop such \
                 graphs, and capture anew",
                name(&ranks(report.missing))
            )
            .into(),
        ),
        // Somebody else has failed, or asked for it, and is about to say so.
        (ended, _) => eventually(|| members.reporter.failure()).unwrap_or_else(|| {
            let deserted = ranks(report.deserted);
            let because = match ended {
                ABORTED => "it was aborted".to_owned(),
                _ => format!("{} gave it up", name(&deserted)),
            };
            Error::Aborted(format!("{title}, of rank {}: {because}", members.rank).into())
        }),
    };
    members.reporter.report(failure)
}

/// Looks until there is something.
pub(super) fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
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

fn late(members: &Members, report: &Report, delivery: Option<Delivery>, title: &str) -> Error {
    let waited_for = report.missing;
    let waits = |rank| if rank == members.rank { waited_for } else { bits(members.awaited(rank)) };
    let at_fault = at_fault(waited_for, waits);
    let missing = ranks(at_fault);
    let what = match report.phase {
        // It is not this rank alone that waits.
        _ if at_fault & !waited_for != 0 => "kept others waiting and did not go on",
        _ if delivery.is_some_and(|delivery| delivery.has_come(members)) => "came to it and did not go on",
        _ if delivery.is_some() => "did not come to it",
        FINISHING => "entered and did not finish",
        RECEIVING.. => "entered and sent nothing",
        _ => "did not enter",
    };
    let own = match delivery {
        Some(delivery) => delivery.own(members),
        None => called_in(members, report, members.rank),
    };
    let own = own.map_or_else(String::new, |own| format!(", {own}"));
    let patience = Duration::from_nanos(members.patience());
    let them = if missing.len() == 1 { "it" } else { "them" };
    let turns = turns(members);
    let context = format!("{title}{own}: {} {what} within {patience:?}; see what keeps {them}{turns}", name(&missing));
    Error::Timeout { missing, context: context.into() }
}

/// What more may keep ranks that are of one process and one card: it attends to no more streams at a time than to a few
/// for each rank, and those that take turns may wait for one another in vain.
fn turns(members: &Members) -> &'static str {
    let on_this = members.arenas.iter().filter(|arena| arena.device() == members.device).count();
    let is_shared = members.transport.kind() == "threads" && on_this > 1;
    let asked = std::env::var(CONNECTIONS).ok().and_then(|asked| asked.parse().ok()).unwrap_or(8_u32);
    match is_shared && members.device.capabilities().platform == Platform::Cuda && asked < 32 {
        true => {
            ", and set CUDA_DEVICE_MAX_CONNECTIONS=32 for the program: streams of ranks that share a card may take turns"
        }
        false => "",
    }
}

/// The ranks at fault, where `missing` are waited for in vain and each rank waits for those of `waits`: from rank to
/// rank, those that wait for nobody. Where all wait, those that are missing.
fn at_fault(missing: u32, waits: impl Fn(usize) -> u32) -> u32 {
    let (mut at_fault, mut seen, mut ahead) = (0, 0, missing);
    while ahead != 0 {
        let rank = ahead.trailing_zeros() as usize;
        seen |= 1 << rank;
        // It always waits for itself, and that is no wait.
        let next = waits(rank) & !(1 << rank);
        at_fault |= if next == 0 { 1 << rank } else { 0 };
        ahead = (ahead | next) & !seen;
    }
    if at_fault == 0 { missing } else { at_fault }
}

/// The failure of the calls by which ranks have tested what they share, in its own words.
pub(super) fn of_self_test(members: &Members, failure: Error) -> Error {
    let Error::Timeout { missing, .. } = failure else { return failure };
    let (patience, them) = (Duration::from_nanos(members.patience()), name(&missing));
    let context = format!(
        "testing device memory: nothing of {them} arrived within {patience:?}; see what keeps it, and whether the \
         machine's peer-to-peer access works{}",
        turns(members)
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

/// Those that are waited for, as bits.
fn bits(threads: [u32; RANKS]) -> u32 {
    (0..RANKS).fold(0, |bits, rank| bits | u32::from(threads[rank] != 0) << rank)
}

/// The ranks whose bits are set.
fn ranks(bits: u32) -> Vec<usize> {
    (0..RANKS).filter(|rank| bits >> rank & 1 == 1).collect()
}

fn name(ranks: &[usize]) -> String {
    format!("{} {}", if ranks.len() == 1 { "rank" } else { "ranks" }, list(ranks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_others_is_not_at_fault() {
        let chain = |rank: usize| [0b0010, 0b0100, 0b1000, 0][rank];
        assert_eq!(at_fault(0b0010, chain), 0b1000, "1 waits for 2, which waits for 3, which waits for nobody");
        assert_eq!(at_fault(0b1000, chain), 0b1000);
        let forked = |rank: usize| [0b0110, 0b1000, 0, 0][rank];
        assert_eq!(at_fault(0b0110, forked), 0b1100);
        let ring = |rank: usize| [0b0010, 0b0100, 0b0001][rank];
        assert_eq!(at_fault(0b0010, ring), 0b0010, "all wait: nobody knows better");
        // A rank that has two that keep it waiting, one of which waits for it.
        let both = |rank: usize| [0b0110, 0b0001, 0][rank];
        assert_eq!(at_fault(0b0110, both), 0b0100);
    }
}
