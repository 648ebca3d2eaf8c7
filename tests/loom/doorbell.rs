// SPDX-License-Identifier: MPL-2.0
//! The doorbell: nobody sleeps through a signal. Here sleeps have no time limit, so a signal that a sleeper misses is
//! a deadlock, which loom reports.

use std::sync::Arc;
use std::time::Duration;

use loom::sync::{Condvar, Mutex};

use super::sync::{AtomicU32, Ordering::Relaxed};
use super::transport::Arrival;
use super::transport::groups::{Gathered, Grouped, Look};
use super::transport::page::Page;
use super::transport::waiting::{Bed, LONGEST_SLEEP, announce};
use super::{channel, explore, pages, run};

/// A futex on one word: like the kernel's, it compares and goes to sleep in one step with respect to a wake.
struct Futex {
    queue: Mutex<()>,
    woken: Condvar,
}

impl Futex {
    fn new() -> Self {
        Futex { queue: Mutex::new(()), woken: Condvar::new() }
    }
}

impl Bed for Futex {
    fn sleep(&self, word: &AtomicU32, expected: u32, _longest: Duration) {
        let queue = self.queue.lock().unwrap();
        // Relaxed: the kernel promises no more.
        if word.load(Relaxed) == expected {
            drop(self.woken.wait(queue).unwrap());
        }
    }

    fn wake(&self, _word: &AtomicU32) {
        let _queue = self.queue.lock().unwrap();
        self.woken.notify_all();
    }
}

/// A rank's wait, without the spinning that comes before.
fn sleep_until(page: &Page, bed: &Futex, condition: impl Fn() -> bool) {
    while !condition() {
        page.sleep(bed, LONGEST_SLEEP, &condition);
    }
}

/// Rank 1 raises its flag while `sleepers` threads of rank 0 wait for it.
fn signalled(sleepers: usize, preemptions: Option<usize>) {
    explore(preemptions, move || {
        let pages = pages(2);
        let bed = Arc::new(Futex::new());
        run(1 + sleepers, move |thread| {
            if thread == 0 {
                channel(&pages[1]).signal(0, 1);
                announce();
                pages[0].ring(&*bed);
            } else {
                sleep_until(&pages[0], &bed, || channel(&pages[1]).has_reached(0, 1));
            }
        });
    });
}

#[test]
fn doorbell_wakes_a_rank() {
    signalled(1, None);
}

/// A rank's caller and its progress thread sleep on the same word.
#[test]
fn doorbell_wakes_both_threads_of_a_rank() {
    signalled(2, Some(4));
}

#[test]
fn doorbell_rings_for_a_failure() {
    explore(None, || {
        let pages = pages(2);
        let bed = Arc::new(Futex::new());
        run(2, move |rank| {
            if rank == 0 {
                pages[0].set_poison(0);
                announce();
                pages[1].ring(&*bed);
            } else {
                sleep_until(&pages[1], &bed, || pages[0].poisoned_by() == Some(0));
            }
        });
    });
}

/// Two ranks enter two calls, each waking the other and sleeping until it has come.
#[test]
fn doorbell_carries_two_calls() {
    explore(Some(4), || {
        let pages = pages(2);
        let beds = Arc::new([Futex::new(), Futex::new()]);
        run(2, move |rank| {
            let peer = 1 - rank;
            for epoch in 1..=2 {
                channel(&pages[rank]).record(epoch).post(epoch, &Arrival::default(), &[0]);
                announce();
                pages[peer].ring(&beds[peer]);
                sleep_until(&pages[rank], &beds[rank], || channel(&pages[peer]).record(epoch).has_entered(epoch));
            }
        });
    });
}

/// A world of groups: whoever waits for a record or for a summary is woken by whoever publishes it, and by nobody else.
#[test]
fn doorbell_carries_a_call_in_groups() {
    explore(Some(2), || {
        let pages = pages(3);
        let beds = Arc::new([Futex::new(), Futex::new(), Futex::new()]);
        run(3, move |rank| {
            let grouped = Grouped::of(rank, 3).unwrap();
            let wake = |peers: &[usize]| {
                announce();
                peers.iter().for_each(|peer| pages[*peer].ring(&beds[*peer]));
            };
            channel(&pages[rank]).record(1).post(1, &Arrival::default(), &[0]);
            if !grouped.is_leader() {
                wake(&[grouped.leader()]);
            }
            let mut seen = 0;
            loop {
                let gather = || Gathered::of(rank, &Arrival::default(), 0);
                let look = grouped.look(&mut seen, 1, |rank| channel(&pages[rank]), gather);
                let sleep = |condition: &dyn Fn() -> bool| sleep_until(&pages[rank], &beds[rank], condition);
                match look {
                    Look::Entered => break,
                    Look::Published => wake(&[[1, 2], [0, 2], [0, 1]][rank]),
                    Look::Record(member) => sleep(&|| channel(&pages[member]).record(1).has_entered(1)),
                    Look::Summary(leader) => sleep(&|| channel(&pages[leader]).summary(1).is_published(1)),
                }
            }
        });
    });
}
