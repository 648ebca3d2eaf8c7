// SPDX-License-Identifier: MPL-2.0
//! Entry: every rank sees what every other said in this call, payload included, over back-to-back calls. The payload is
//! a loom cell, so a record that is overwritten while somebody reads it is reported as a race.

use super::transport::Arrival;
use super::transport::page::{EntryRecord, Page};
use super::{channel, explore, pages, run, until};

/// What a rank says in a call: different for each.
pub fn word(rank: usize, epoch: u64) -> u64 {
    16 * epoch + rank as u64
}

pub fn enter(pages: &[Page], rank: usize, epoch: u64) {
    let record = channel(&pages[rank]).record(epoch);
    let said = word(rank, epoch);
    // SAFETY: the bytes are this rank's own to write before it posts; loom reports it if they are not.
    record.payload.0.with_mut(|bytes| unsafe { (*bytes)[0] = said as u8 });
    record.post(epoch, &Arrival { hash: said, ..Arrival::default() }, &[said]);
}

fn read(pages: &[Page], rank: usize, epoch: u64) {
    let record = channel(&pages[rank]).record(epoch);
    until(|| record.has_entered(epoch));
    check(record, rank, epoch);
}

/// Everything that a rank said.
pub fn check(record: &EntryRecord, rank: usize, epoch: u64) {
    let said = word(rank, epoch);
    assert_eq!(record.arrival(), Arrival { hash: said, ..Arrival::default() });
    assert_eq!(record.descriptor(), [said]);
    // SAFETY: nobody writes the bytes between the entry and the end of the call; loom reports it if somebody does.
    assert_eq!(record.payload.0.with(|bytes| unsafe { (*bytes)[0] }), said as u8);
}

/// `calls` back-to-back calls of all ranks.
fn calls(ranks: usize, calls: u64, preemptions: Option<usize>) {
    explore(preemptions, move || {
        let pages = pages(ranks);
        run(ranks, move |rank| {
            for epoch in 1..=calls {
                enter(&pages, rank, epoch);
                for peer in (0..ranks).filter(|peer| *peer != rank) {
                    read(&pages, peer, epoch);
                }
            }
        });
    });
}

/// Three calls use one record twice, after the other in between.
#[test]
fn entry_two_ranks_three_calls() {
    calls(2, 3, None);
}

#[test]
fn entry_three_ranks_two_calls() {
    calls(3, 2, Some(1));
}
