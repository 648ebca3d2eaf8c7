// SPDX-License-Identifier: MPL-2.0
//! Waiting: spin, then yield, then sleep until somebody rings.
//!
//! # The doorbell
//!
//! A rank that has found nothing to do for a while announces itself in its own page's `sleepers`, looks once more, and
//! then sleeps on its `word`. Whoever posts an entry, raises a flag or sets the poison looks at its peers' `sleepers`
//! afterwards, and where there are any changes their `word` and wakes them.
//!
//! Nobody sleeps through a signal: the sleeper stores `sleepers`, fences, reads the flag; the signaller stores the
//! flag, fences, reads `sleepers`. One of the two fences comes first, so either the sleeper sees the flag or the
//! signaller sees the sleeper. In the second case the signaller's change of `word` comes after the sleeper's reading
//! of it (which precedes the announcement), so the sleep ends or does not begin. Sleeps are bounded all the same, at
//! five milliseconds, because between them the deadline and the peers' liveness are looked at.

use std::time::Duration;

use super::page::Page;
use crate::sync::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
    fence,
};

/// The longest sleep: how soon a death or a deadline is noticed.
pub(crate) const LONGEST_SLEEP: Duration = Duration::from_millis(5);

/// What to do next while nothing has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Look again at once, or after a pause instruction.
    Spin,
    /// Let another thread of this core run, then look again.
    Yield,
    /// See whether the awaited ranks live and the deadline has not passed, then sleep until the doorbell rings.
    Sleep,
}

/// How long each stage lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stages {
    /// Looks without a pause: a peer that is on its way arrives within these.
    pub looks: u32,
    /// Looks with a pause instruction between them.
    pub pauses: u32,
    /// Looks with a yield between them.
    pub yields: u32,
}

impl Stages {
    /// For a world whose ranks have a core each: some tens of microseconds of spinning.
    pub const ROOMY: Stages = Stages { looks: 400, pauses: 1500, yields: 50 };
    /// For more ranks than cores: the awaited rank can only run if this one does not.
    pub const CROWDED: Stages = Stages { looks: 20, pauses: 0, yields: 200 };
    /// For the progress thread, which must not take its own rank's core from it.
    pub const PROGRESS: Stages = Stages { looks: 50, pauses: 50, yields: 20 };
}

/// One wait's way through the stages.
#[derive(Debug)]
pub(crate) struct Patience {
    stages: Stages,
    rounds: u32,
}

impl Patience {
    pub fn new(stages: Stages) -> Self {
        Patience { stages, rounds: 0 }
    }

    /// What to do next; pauses by itself while spinning.
    #[inline]
    pub fn next(&mut self) -> Next {
        self.rounds = self.rounds.saturating_add(1);
        if self.rounds <= self.stages.looks {
            return Next::Spin;
        }
        let Stages { looks, pauses, yields } = self.stages;
        match self.rounds - looks {
            n if n <= pauses => {
                crate::sync::spin_loop();
                Next::Spin
            }
            n if n <= pauses.saturating_add(yields) => Next::Yield,
            _ => Next::Sleep,
        }
    }

    /// Starts again: something came.
    #[inline]
    pub fn reset(&mut self) {
        self.rounds = 0;
    }
}

/// How a thread is put to sleep on a word and woken: the operating system's part.
pub(crate) trait Bed {
    /// Sleeps while `word` holds `expected`, at most for `longest`. May wake early.
    fn sleep(&self, word: &AtomicU32, expected: u32, longest: Duration);
    /// Wakes all who sleep on `word`.
    fn wake(&self, word: &AtomicU32);
}

/// The fence between the two accesses of either side. The broken variant, for the model checker to catch, has none.
#[inline]
fn barrier() {
    if !cfg!(annulus_broken_sleep) {
        fence(SeqCst);
    }
}

impl Page {
    /// Sleeps on this rank's own doorbell, unless `ready` answers true once the sleep is announced.
    pub fn sleep(&self, bed: &impl Bed, longest: Duration, ready: impl FnOnce() -> bool) {
        // Acquire: what the waker did before ringing is visible after a sleep that did not begin.
        let before = self.doorbell.word.load(Acquire);
        // An addition, since a rank's caller and its progress thread may both sleep here. Relaxed: the fence orders it.
        self.doorbell.sleepers.fetch_add(1, Relaxed);
        barrier();
        if !ready() {
            bed.sleep(&self.doorbell.word, before, longest);
        }
        // Relaxed: a signaller that still sees this rings once in vain.
        self.doorbell.sleepers.fetch_sub(1, Relaxed);
    }

    /// Wakes this page's rank if it sleeps. [`announce`] must come between the change it is woken for and this.
    #[inline]
    pub fn ring(&self, bed: &impl Bed) {
        if self.doorbell.sleepers.load(Relaxed) != 0 {
            // Release: pairs with the acquire load in `sleep`.
            self.doorbell.word.fetch_add(1, Release);
            bed.wake(&self.doorbell.word);
        }
    }
}

/// To be called between a change of a shared word and [`Page::ring`].
#[inline]
pub(crate) fn announce() {
    barrier();
}

#[cfg(not(annulus_loom))]
impl Bed for super::doorbell::Scope {
    fn sleep(&self, word: &AtomicU32, expected: u32, longest: Duration) {
        super::doorbell::wait(word, expected, longest, *self);
    }

    fn wake(&self, word: &AtomicU32) {
        super::doorbell::wake_all(word, *self);
    }
}
