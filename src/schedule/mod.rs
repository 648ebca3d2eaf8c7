// SPDX-License-Identifier: MPL-2.0
//! Collectives as values: programs of copies, folds, signals and waits, one a rank.
//!
//! Pure: nothing here touches memory, threads or devices. A [`Schedule`] is asked for one rank's [`Program`] at a time,
//! for one [`Layout`]; the communicator executes it, [`mod@verify`] proves it, [`draw()`] prints it.

pub mod barrier;
pub mod bruck;
mod catalogue;
pub mod chain;
pub mod cost;
pub mod direct;
pub mod dissemination;
mod draw;
mod halves;
mod layout;
pub mod one_shot;
pub mod partition;
mod prefix;
mod program;
pub mod pull;
pub mod recursive_doubling;
pub mod recursive_halving;
pub mod relay;
pub mod ring;
pub mod rounds;
mod segments;
pub(crate) mod select;
pub mod staged;
pub mod table;
pub mod tree;
pub mod verify;

pub use catalogue::{NAMES, built_in, named, names};
pub use draw::draw;
pub use layout::{Collective, Layout};
pub use program::{Access, Buffer, Entry, Place, Program, Resources, Step};
pub use verify::{Fault, Verified, verify, verify_pair};

use crate::element::FoldOrder;

/// An algorithm for a collective, as data.
///
/// Everything a schedule answers depends only on its own parameters and the arguments, so that ranks that ask
/// separately get programs that fit together.
pub trait Schedule: Send + Sync {
    /// The algorithm's name, as users type it: `ring`, `direct`, ..
    fn name(&self) -> &str;

    /// Which collective this is an algorithm for.
    fn collective(&self) -> Collective;

    /// What it needs to reach: peers' inputs and outputs, to read and write or to read, or only shared scratch.
    fn access(&self) -> Access;

    /// Whether the call's entry precedes the program or the program's first flags are the entry.
    fn entry(&self) -> Entry {
        Entry::Barrier
    }

    /// The order in which contributions are folded. Collectives that fold nothing answer `Rank`.
    fn fold_order(&self) -> FoldOrder {
        FoldOrder::Rank
    }

    /// The shared memory and flags it needs, the same on every rank.
    fn resources(&self, layout: &Layout) -> Resources;

    /// What `rank` does. `rank` is less than `layout.world()`.
    fn program(&self, rank: usize, layout: &Layout) -> Program;
}
