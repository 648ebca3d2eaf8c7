// SPDX-License-Identifier: MPL-2.0
//! The proof that a schedule does what its collective says.
//!
//! [`verify`] runs all ranks' programs on symbolic memory, in `depth + 1` calls back to back (at least two), because
//! slots and flags are used again *between* calls. It proves, for one layout:
//!
//! - each element ends as exactly the contributions that it should, in the declared fold order, rounded once
//!   (`value`, `results`);
//! - no step reads or overwrites what another may be writing or reading, under every order that the signals allow
//!   (`clocks`, `memory`), the users' own reads and writes before and after the call included (`replay`);
//! - every step keeps the rules of the language: bounds, access, kinds of memory, aliasing, flags (`arena`);
//! - nothing waits for ever (`replay`).
//!
//! Memory is described by runs of addresses, so the cost depends on the number of steps, not on the lengths.
//! [`verify_pair`] proves the same of two schedules that use the same scratch one after the other.

mod arena;
mod clocks;
mod cursor;
mod declared;
mod fault;
mod fingerprint;
mod memory;
mod replay;
mod results;
mod value;

use declared::Declared;
pub use fault::{Fault, Moment, Race, Site};

use super::{Access, Collective, Entry, Layout, Program, Resources, Schedule};
use crate::element::FoldOrder;

/// A schedule that was proved right for one layout: every rank's program, as data. Only [`verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    declared: Declared,
    rounds: u32,
    hash: u64,
}

/// Proves a schedule right for a layout.
///
/// # Errors
///
/// The first [`Fault`] that it finds, which names rank, step and elements.
pub fn verify(schedule: &dyn Schedule, layout: &Layout) -> Result<Verified, Fault> {
    let declared = Declared::new(schedule, layout)?;
    let rounds = replay::replay(&vec![&declared; declared.calls()])?;
    let hash = fingerprint::fingerprint(&declared);
    Ok(Verified { declared, rounds, hash })
}

/// Proves that two schedules, each with its layout, can share scratch, slots and flags: `first`, `second` and `first`
/// again, back to back. Both layouts have the same number of ranks.
///
/// # Errors
///
/// The first [`Fault`] that it finds; its calls 0 and 2 are of `first`, call 1 is of `second`.
pub fn verify_pair(first: (&dyn Schedule, &Layout), second: (&dyn Schedule, &Layout)) -> Result<(), Fault> {
    let first = Declared::new(first.0, first.1)?;
    let second = Declared::new(second.0, second.1)?;
    replay::replay(&[&first, &second, &first]).map(|_| ())
}

impl Verified {
    /// The schedule's name.
    pub fn name(&self) -> &str {
        &self.declared.name
    }

    /// Which collective it is.
    pub fn collective(&self) -> Collective {
        self.declared.collective
    }

    /// The layout for which it was proved, and the only one for which it may be executed.
    pub fn layout(&self) -> &Layout {
        &self.declared.layout
    }

    /// What it reaches of other ranks.
    pub fn access(&self) -> Access {
        self.declared.access
    }

    /// How a call of it begins.
    pub fn entry(&self) -> Entry {
        self.declared.entry
    }

    /// The order in which it folds.
    pub fn fold_order(&self) -> &FoldOrder {
        &self.declared.order
    }

    /// The shared memory and flags that it needs of each rank.
    pub fn resources(&self) -> Resources {
        self.declared.resources
    }

    /// What `rank` does; nothing for a rank that the layout does not have.
    pub fn program(&self, rank: usize) -> &Program {
        static NOTHING: Program = Program::new();
        self.declared.programs.get(rank).unwrap_or(&NOTHING)
    }

    /// The longest chain of signals and waits, the entry included: how often the latency between two ranks is paid.
    pub fn rounds(&self) -> u32 {
        self.rounds
    }

    /// One number for all of the above but the rounds, the same on every rank that verified the same.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}
