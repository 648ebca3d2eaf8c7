// SPDX-License-Identifier: MPL-2.0
//! What is called: a collective, or messages round the ranks.

use std::fmt;

use crate::schedule::{Collective, Layout};

/// What a benchmark calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A collective.
    Collective(Collective),
    /// Every rank sends to the next one and receives from the one before, at once: the sendrecv of nccl-tests.
    SendRecv,
}

impl From<Collective> for Subject {
    fn from(collective: Collective) -> Self {
        Subject::Collective(collective)
    }
}

impl Subject {
    /// Everything that there is.
    pub fn all() -> impl Iterator<Item = Subject> {
        Collective::ALL.into_iter().map(Subject::from).chain([Subject::SendRecv])
    }

    /// The name: that of the collective, or `send_recv`.
    pub const fn name(self) -> &'static str {
        match self {
            Subject::Collective(collective) => collective.name(),
            Subject::SendRecv => "send_recv",
        }
    }

    /// What goes by that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Subject::all().find(|subject| subject.name() == name)
    }

    /// The collective, if it is one.
    pub const fn collective(self) -> Option<Collective> {
        match self {
            Subject::Collective(collective) => Some(collective),
            Subject::SendRecv => None,
        }
    }

    pub(super) fn is_barrier(self) -> bool {
        self == Subject::Collective(Collective::Barrier)
    }

    /// Whether it has a form in place. NCCL's send and receive have none either.
    pub(super) fn has_in_place(self) -> bool {
        !self.is_barrier() && self != Subject::SendRecv
    }

    /// Whether it folds.
    pub fn folds(self) -> bool {
        self.collective().is_some_and(Collective::folds)
    }

    pub(super) fn is_scan(self) -> bool {
        self.collective().is_some_and(Collective::is_scan)
    }

    pub(super) fn has_root(self) -> bool {
        self.collective().is_some_and(Collective::has_root)
    }

    pub(super) fn has_parts(self) -> bool {
        self.collective().is_some_and(Collective::has_parts)
    }

    /// Elements that a rank passes.
    pub(super) fn input_len(self, layout: &Layout, rank: usize) -> usize {
        self.collective().map_or(layout.count(rank), |collective| layout.input_len(collective, rank))
    }

    /// Elements that it gets.
    pub(super) fn output_len(self, layout: &Layout, rank: usize) -> usize {
        self.collective().map_or(layout.count(rank), |collective| layout.output_len(collective, rank))
    }

    /// Where its input begins in its output, or the other way round, of a call in place ([`Layout::alias`]).
    pub(super) fn alias(self, layout: &Layout, rank: usize) -> isize {
        self.collective().filter(|_| layout.is_in_place()).map_or(0, |collective| layout.alias(collective, rank))
    }
}

/// To whom a rank sends, and from whom it receives.
pub(super) fn neighbours(rank: usize, ranks: usize) -> (usize, usize) {
    ((rank + 1) % ranks, (rank + ranks - 1) % ranks)
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
