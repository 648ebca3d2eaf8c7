// SPDX-License-Identifier: MPL-2.0
//! The protocols of shared memory, model-checked: loom runs each model under every interleaving, and every value that a
//! load may legally return. Models of two ranks are explored entirely where that ends, the others within a bound on
//! preemptions.
//!
//! This crate compiles the shipped files themselves, with loom's atomics in place of the standard library's, and so
//! needs a flag of its own; without it, it is empty. One of the `annulus_broken_*` variants of those files can be asked
//! for beside it, and must then fail. `.ci/loom` does all of that; by hand, with the name of a protocol or of a model:
//!
//! ```text
//! cargo rustc --profile test --test loom -- --cfg annulus_loom
//! target/debug/deps/loom-... window
//! ```
//!
//! | models | of | broken variant |
//! |---|---|---|
//! | `entry` | records by parity of the epoch | `annulus_broken_entry`: one record |
//! | `groups` | entry by summaries of groups, of two ranks here | `annulus_broken_publish`: its store orders nothing; `annulus_broken_leader`: published before the group has entered; `annulus_broken_summary`: one summary |
//! | `flags` | monotone counters | `annulus_broken_flag`: the store orders nothing |
//! | `window` | access windows and poison | `annulus_broken_window`: no fences |
//! | `doorbell` | sleeping and ringing | `annulus_broken_sleep`: no fences |
#![cfg(annulus_loom)]
#![allow(unsafe_code)] // payloads and buffers are loom's cells, whose contents are behind raw pointers

mod doorbell;
mod entry;
mod flags;
mod groups;
mod window;

#[path = "../../src/sync.rs"]
mod sync;

#[allow(dead_code)] // the parts that the models do not touch
#[path = "../../src/transport"]
mod transport {
    mod entry;
    mod flags;
    pub(crate) mod groups;
    pub(crate) mod page;
    pub(crate) mod waiting;
    mod window;

    pub(crate) use entry::Arrival;
}

use std::sync::Arc;

use transport::page::{Channel, Page};

/// Explores `model`, entirely or up to `preemptions` switches away from a thread that could have gone on.
fn explore(preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(model);
}

/// One page a rank, and nothing done yet. Made by a thread of its own, since a page is larger than a stack of loom's
/// usual ones can hold several times; nothing else runs meanwhile.
fn pages(ranks: usize) -> Arc<[Page]> {
    let make = move || (0..ranks).map(|_| Page::new()).collect();
    loom::thread::Builder::new().stack_size(1 << 20).spawn(make).unwrap().join().unwrap()
}

/// The one channel of a page.
fn channel(page: &Page) -> &Channel {
    &page.channels[0]
}

/// Runs `rank(r)` for each rank, rank 0 on the model's own thread.
fn run<F: Fn(usize) + Clone + 'static>(ranks: usize, rank: F) {
    let threads: Vec<_> = (1..ranks)
        .map(|number| {
            let rank = rank.clone();
            loom::thread::spawn(move || rank(number))
        })
        .collect();
    rank(0);
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Spins as a rank does. Loom takes a yield for "others may move first", and would also explore ever longer schedules in
/// which two spinning ranks keep each other from a third; after a few looks it goes on by one fair schedule.
fn until(mut condition: impl FnMut() -> bool) {
    for looks in 1.. {
        if condition() {
            return;
        }
        if looks == 3 {
            loom::skip_branch();
        }
        sync::yield_now();
    }
}
