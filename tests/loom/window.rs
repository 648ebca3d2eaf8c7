// SPDX-License-Identifier: MPL-2.0
//! Access windows: once a failing rank has set the poison and seen every window closed, its buffer is its own again.
//! Buffers are loom cells, so a peer that still touches one while its owner uses it anew is reported as a race.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::sync::{AtomicU64, UnsafeCell};
use super::transport::page::Page;
use super::{explore, pages, run, until};

/// What each rank would report.
const SENTENCES: [&str; 2] = ["zero", "one"];

/// Each rank's buffer.
fn buffers(ranks: usize) -> Arc<[UnsafeCell<usize>]> {
    (0..ranks).map(|_| UnsafeCell::new(0)).collect()
}

/// One step of a schedule: writes these ranks' buffers inside a window, unless the communicator has failed.
fn step(pages: &[Page], rank: usize, buffers: &[UnsafeCell<usize>], peers: &[usize]) {
    if pages[rank].open_window(&pages[0]) {
        for peer in peers {
            // SAFETY: the window is open and there was no poison; loom reports it if that is not enough.
            buffers[*peer].with_mut(|buffer| unsafe { *buffer += 1 });
        }
        pages[rank].close_window();
    }
}

/// A failing call's end: the poison, then every peer's window, then the buffer is used for something else.
fn fail(pages: &[Page], rank: usize, buffers: &[UnsafeCell<usize>]) {
    pages[0].set_poison(rank);
    for (_, page) in pages.iter().enumerate().filter(|(peer, _)| *peer != rank) {
        if let Some(turn) = page.open_turn() {
            until(|| page.window_moved(turn));
        }
    }
    // SAFETY: nobody else touches the buffer any more; loom reports it if somebody does.
    buffers[rank].with_mut(|buffer| unsafe { *buffer = 0 });
}

/// Rank 1 makes two steps on rank 0's buffer, while rank 0 fails.
#[test]
fn window_of_a_peer_closes_before_the_buffer_is_reused() {
    explore(None, || {
        let (pages, buffers) = (pages(2), buffers(2));
        run(2, move |rank| match rank {
            0 => fail(&pages, 0, &buffers),
            _ => (0..2).for_each(|_| step(&pages, 1, &buffers, &[0])),
        });
    });
}

/// Both fail, each after a step on the other's buffer.
#[test]
fn window_of_a_rank_that_fails_too() {
    explore(None, || {
        let (pages, buffers) = (pages(2), buffers(2));
        run(2, move |rank| {
            step(&pages, rank, &buffers, &[1 - rank]);
            fail(&pages, rank, &buffers);
        });
    });
}

/// Ranks 1 and 2 fail at once, while rank 0 writes both their buffers in one step.
#[test]
fn window_on_two_ranks_that_fail() {
    explore(Some(4), || {
        let (pages, buffers) = (pages(3), buffers(3));
        run(3, move |rank| match rank {
            0 => step(&pages, 0, &buffers, &[1, 2]),
            rank => fail(&pages, rank, &buffers),
        });
    });
}

/// Rank 1 reads rank 0's input in a window, while rank 0 fails and, without waiting for that window, uses it for
/// something else: whoever has read that knows.
#[test]
fn window_of_a_reader_of_what_is_given_back() {
    explore(None, || {
        let (pages, input) = (pages(2), Arc::new(AtomicU64::new(7)));
        run(2, move |rank| match rank {
            0 => {
                pages[0].set_poison(0);
                input.store(8, Relaxed);
            }
            _ if pages[1].open_window(&pages[0]) => {
                let read = input.load(Relaxed);
                assert!(read == 7 || !pages[0].was_sound(), "it takes for good what was written after the failure");
                pages[1].close_window();
            }
            _ => {}
        });
    });
}

/// Whoever was first is everybody's first, and what it wrote before is there to be read.
#[test]
fn window_poison_publishes_one_failure() {
    explore(None, || {
        let pages = pages(2);
        let failures = Arc::new([const { AtomicUsize::new(usize::MAX) }; 2]);
        let seen = failures.clone();
        run(2, move |rank| {
            pages[rank].failure.write_sentence(SENTENCES[rank]);
            pages[0].set_poison(rank);
            let reporter = pages[0].poisoned_by().expect("this rank at least has set it");
            assert_eq!(pages[reporter].failure.read_sentence(), SENTENCES[reporter]);
            seen[rank].store(reporter, Relaxed);
        });
        assert_eq!(failures[0].load(Relaxed), failures[1].load(Relaxed));
    });
}
