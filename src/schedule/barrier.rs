// SPDX-License-Identifier: MPL-2.0
//! The barrier: a call's entry and nothing else.
//!
//! ```text
//!   rank 0   enter ──┬── leave        every rank announces itself in its entry record
//!   rank 1     enter ┼── leave        and reads the records of all others
//!   rank 2   enter ──┼── leave
//!   rank 3      enter┴── leave
//! ```
//!
//! Above 16 ranks, the entry goes through the first rank of each group of 16:
//!
//! ```text
//!   ranks  0 .. 15   enter ──▶ rank  0 ──┐              a leader reads the records of its group and publishes a
//!   ranks 16 .. 31   enter ──▶ rank 16 ──┼──▶ leave     summary; every rank reads all leaders' summaries
//!   ranks 32 .. n-1  enter ──▶ rank 32 ──┘
//! ```
//!
//! - Steps: none. Every collective begins with an entry that no rank passes before all have reached it, so a barrier
//!   is the empty program.
//! - Cost: one core-to-core latency, in which a rank reads n records; above 16 ranks two latencies, and n / 16 summaries
//!   and, for a leader, 16 records.
//! - Bytes moved: none.
//! - Fold order: nothing is folded.
//! - Chosen: for every barrier.

use super::{Access, Collective, Layout, Program, Resources, Schedule};

/// The algorithm of this file.
#[derive(Debug, Clone, Copy)]
pub struct Barrier;

/// Nobody leaves before all have come.
pub fn barrier() -> Barrier {
    Barrier
}

impl Schedule for Barrier {
    fn name(&self) -> &str {
        "barrier"
    }

    fn collective(&self) -> Collective {
        Collective::Barrier
    }

    fn access(&self) -> Access {
        Access::Staged
    }

    fn resources(&self, _: &Layout) -> Resources {
        Resources::default()
    }

    fn program(&self, _: usize, _: &Layout) -> Program {
        Program::new()
    }
}
