// SPDX-License-Identifier: MPL-2.0
//! A kernel's report, in words: which call failed, and which ranks are to blame.
//!
//! The report says how the kernel ended and the number of the call. What ranks called is in the entries of block 0,
//! which is in every launch, so that its count of turns is the number of calls; the hash there leads to the descriptor
//! on that rank's board. Whoever comes first, all ranks return one failure.

use std::mem::offset_of;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::descriptor::{Descriptor, list, mismatch_of};
use super::board::WORDS;
use super::call::Algorithm;
use super::join::{Members, SELF_TESTS};
use crate::driver::Words;
use crate::error::{Cause, Error};
use crate::kernel::{BLOCKS, Pad, RANKS, Report};

const ABORTED: u32 = 1;
const LATE: u32 = 2;
const DIFFERS: u32 = 3;

const FINISHING: u32 = 2;
const RECEIVING: u32 = 3;

/// How long to look for what must come: other threads of the kernel, entries and descriptors of other ranks, what
/// another rank says of a failure that it has seen first.
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
    let own = entries(members, report)[members.rank].and_then(|hash| members.posted(members.rank, hash));
    let own = own.map_or_else(String::new, |words| format!(", {}", sentence(&words)));
    let patience = Duration::from_nanos(members.patience());
    let them = if missing.len() == 1 { "it" } else { "them" };
    let context = format!("call {call}{own}: {} {what} within {patience:?}; see what keeps {them}", name(&missing));
    Error::Timeout { missing, context: context.into() }
}

/// What each rank calls, in words, as far as it is known.
fn called(members: &Members, report: &Report) -> Vec<Option<String>> {
    let mut calls: Vec<Option<String>> = vec![None; members.world];
    let _ = eventually(|| {
        let entries = entries(members, report);
        for (rank, call) in calls.iter_mut().enumerate().filter(|(_, call)| call.is_none()) {
            *call = entries[rank].and_then(|hash| members.posted(rank, hash)).map(|words| sentence(&words));
        }
        calls.iter().all(Option::is_some).then_some(())
    });
    calls
}

/// Words of an entry: two of a turn and half of a hash, and two that do not matter here.
type Entry = [u64; 4];

/// The entries of all ranks, in block 0 of this rank's pad, of an odd or an even turn.
fn entries_of(members: &Members, parity: u32) -> Vec<Entry> {
    const SLOT: usize = size_of::<[[Entry; RANKS]; BLOCKS]>();
    let first = offset_of!(Pad, entries) + (parity % 2) as usize * SLOT;
    let bytes = members.arenas[members.rank]
        .part(first..first + size_of::<[Entry; RANKS]>())
        .and_then(|entries| members.stream.read(&entries));
    bytes.map_or_else(|_| Vec::new(), |bytes| bytemuck::pod_collect_to_vec(&bytes))
}

/// The hash of the call that failed, of each rank whose entry is still there.
fn entries(members: &Members, report: &Report) -> [Option<u64>; RANKS] {
    let turn = report.calls.wrapping_add(1);
    let mut hashes = [None; RANKS];
    for (hash, [low, high, ..]) in hashes.iter_mut().zip(entries_of(members, turn)) {
        let is_of_the_call = low >> 32 == u64::from(turn) && high >> 32 == u64::from(turn);
        *hash = is_of_the_call.then_some(high << 32 | low & 0xffff_ffff);
    }
    hashes
}

/// Reports a rank whose process has died, where a call of this rank waits for it to enter.
pub(super) fn report_death(members: &Members) {
    // A thread that is gone may have left calls on its stream.
    if members.transport.kind() != "processes" {
        return;
    }
    let ranks = (0..members.world).filter(|rank| *rank != members.rank);
    let dead: Vec<usize> = ranks.filter(|rank| members.transport.gone(*rank) == Some(Cause::Died)).collect();
    if dead.is_empty() {
        return;
    }
    // Read when the death has been seen: what the rank had entered by then is there.
    for entries in [entries_of(members, 0), entries_of(members, 1)] {
        let turn = |rank: usize| entries.get(rank).map_or(0, |entry| (entry[0] >> 32) as u32);
        let awaited = turn(members.rank);
        let is_before = |rank: usize| awaited.wrapping_sub(turn(rank)) as i32 > 0;
        if let Some(rank) = dead.iter().copied().find(|rank| is_before(*rank)) {
            let call = awaited.wrapping_sub(1 + SELF_TESTS);
            let context = format!("rank {} waited for it to enter call {call} on its device", members.rank);
            members.reporter.report(Error::RankLost { rank, cause: Cause::Died, context: context.into() });
            return;
        }
    }
}

fn sentence(words: &[u64; WORDS]) -> String {
    let (own, last) = (std::array::from_fn(|word| words[word]), words[WORDS - 1]);
    let algorithm = (last as usize).checked_sub(1).and_then(|place| Algorithm::ALL.get(place));
    let by = algorithm.map_or_else(String::new, |algorithm| format!(" by algorithm {}", algorithm.name()));
    Descriptor::sentence(&own) + &by
}

/// The ranks whose bits are set.
fn ranks(bits: u32) -> Vec<usize> {
    (0..RANKS).filter(|rank| bits >> rank & 1 == 1).collect()
}

fn name(ranks: &[usize]) -> String {
    format!("{} {}", if ranks.len() == 1 { "rank" } else { "ranks" }, list(ranks))
}
