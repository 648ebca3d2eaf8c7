// SPDX-License-Identifier: MPL-2.0
//! Flags: what was written before a signal is seen after the wait for it, call after call, and a waiter that comes late
//! misses nothing.

use std::sync::Arc;

use super::sync::UnsafeCell;
use super::{channel, explore, pages, run, until};

/// One slot, filled by rank 0 and emptied by the others, twice: the consumers' flags tell when it may be filled again.
fn handed_over(ranks: usize, preemptions: Option<usize>) {
    explore(preemptions, move || {
        let pages = pages(ranks);
        let slot = Arc::new(UnsafeCell::new(0));
        run(ranks, move |rank| {
            let own = channel(&pages[rank]);
            for turn in 1..=2 {
                if rank == 0 {
                    for consumer in 1..ranks {
                        until(|| channel(&pages[consumer]).has_reached(0, turn - 1));
                    }
                    // SAFETY: all have read what was there; loom reports it if one has not.
                    slot.with_mut(|slot| unsafe { *slot = turn });
                    own.signal(0, turn);
                } else {
                    until(|| channel(&pages[0]).has_reached(0, turn));
                    // SAFETY: the slot is filled, and stays as it is until this rank's signal; loom checks it.
                    assert_eq!(slot.with(|slot| unsafe { *slot }), turn);
                    own.signal(0, turn);
                }
            }
        });
    });
}

#[test]
fn flags_hand_a_slot_over_and_back() {
    handed_over(2, None);
}

#[test]
fn flags_hand_a_slot_to_two_and_back() {
    handed_over(3, Some(2));
}

/// Two calls without an answer in between: whichever value a waiter finds, what came before it is there.
#[test]
fn flags_grow_past_a_late_waiter() {
    explore(None, || {
        let pages = pages(2);
        let written: Arc<[UnsafeCell<u64>; 2]> = Arc::new([UnsafeCell::new(0), UnsafeCell::new(0)]);
        run(2, move |rank| {
            for value in 1..=2 {
                let cell = &written[value as usize - 1];
                if rank == 0 {
                    // SAFETY: rank 0 alone writes, before the signal; loom checks it.
                    cell.with_mut(|cell| unsafe { *cell = value });
                    channel(&pages[0]).signal(0, value);
                } else {
                    until(|| channel(&pages[0]).has_reached(0, value));
                    // SAFETY: written before the signal, never again; loom checks it.
                    assert_eq!(cell.with(|cell| unsafe { *cell }), value);
                }
            }
        });
    });
}
