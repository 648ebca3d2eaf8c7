// SPDX-License-Identifier: MPL-2.0
//! Entry in groups: a rank that has seen the leaders' summaries has seen every rank's entry, though it has looked at no
//! record; over back-to-back calls. Groups are of two ranks here: three ranks are two groups, one of them a leader alone.

use super::entry::{check, enter, word};
use super::transport::groups::{Gathered, Grouped, Look};
use super::transport::page::Page;
use super::{channel, explore, pages, run, until};

/// What the records of some ranks say together; the reach is the largest hash.
fn gathered(pages: &[Page], ranks: std::ops::Range<usize>, epoch: u64) -> Gathered {
    let said = ranks.map(|rank| {
        let arrival = channel(&pages[rank]).record(epoch).arrival();
        Gathered::of(rank, &arrival, arrival.hash)
    });
    said.reduce(Gathered::and).unwrap()
}

/// Enters a call, and returns what the summaries say.
fn pass(pages: &[Page], rank: usize, epoch: u64) -> Vec<Gathered> {
    let grouped = Grouped::of(rank, pages.len()).unwrap();
    enter(pages, rank, epoch);
    let mut seen = 0;
    let gather = || gathered(pages, grouped.members(rank), epoch);
    until(|| grouped.look(&mut seen, epoch, |rank| channel(&pages[rank]), gather) == Look::Entered);
    grouped.leaders().map(|leader| channel(&pages[leader]).summary(epoch).gathered()).collect()
}

/// Records are read without a look at their epochs, payloads too.
#[test]
fn groups_order_all_records() {
    explore(Some(2), || {
        let pages = pages(3);
        run(3, move |rank| {
            pass(&pages, rank, 1);
            for peer in 0..3 {
                check(channel(&pages[peer]).record(1), peer, 1);
            }
        });
    });
}

/// Summaries are of their own call, and whole.
#[test]
fn groups_of_two_calls() {
    explore(Some(1), || {
        let pages = pages(3);
        run(3, move |rank| {
            for epoch in 1..=2 {
                let [first, second] = pass(&pages, rank, epoch)[..] else { panic!("two groups") };
                assert_eq!((first.hash, first.agreed, first.reach), (word(0, epoch), false, word(1, epoch)));
                assert_eq!((second.hash, second.agreed, second.reach), (word(2, epoch), true, word(2, epoch)));
            }
        });
    });
}

/// Records and summaries of three calls, of which the last overwrites the first.
#[test]
fn groups_overwrite_nothing_that_is_read() {
    explore(Some(0), || {
        let pages = pages(3);
        run(3, move |rank| {
            for epoch in 1..=3 {
                pass(&pages, rank, epoch);
                for peer in 0..3 {
                    check(channel(&pages[peer]).record(epoch), peer, epoch);
                }
            }
        });
    });
}
