// SPDX-License-Identifier: MPL-2.0
//! A barrier in rounds: in each, a rank tells one other that all of whom it has heard have come (D. Hensgen, R. Finkel
//! and U. Manber, "Two Algorithms for Barrier Synchronization", 1988).
//!
//! ```text
//!            1 away          2 away
//!   rank 0   tells 1         tells 2         heard of 3, then from 2 of 1 and 2: all have come
//!   rank 1   tells 2         tells 3
//!   rank 2   tells 3         tells 0
//!   rank 3   tells 0         tells 1
//! ```
//!
//! - Steps: log2 n rounds, rounded up, each one signal and one wait. A call's entry is a barrier already, in one round
//!   in which each rank hears from n - 1; these rounds come on top.
//! - Elements moved: none.
//! - Fold order: nothing is folded.
//! - Chosen: by name only, to compare it with the entry.

use super::halves::levels;
use super::{Access, Collective, Layout, Program, Resources, Schedule};

/// A rank's one flag: how many rounds it has begun.
const ROUNDS: u32 = 0;

/// The algorithm of this file.
#[derive(Debug, Clone, Copy)]
pub struct Dissemination;

/// Nobody leaves before all have come.
pub fn barrier() -> Dissemination {
    Dissemination
}

impl Schedule for Dissemination {
    fn name(&self) -> &str {
        "dissemination"
    }

    fn collective(&self) -> Collective {
        Collective::Barrier
    }

    fn access(&self) -> Access {
        Access::Staged
    }

    fn resources(&self, layout: &Layout) -> Resources {
        let rounds = levels(layout.world());
        Resources { flags: u32::from(rounds > 0), advance: rounds as u64, ..Resources::default() }
    }

    fn program(&self, rank: usize, layout: &Layout) -> Program {
        let n = layout.world();
        let mut program = Program::new();
        for round in 0..levels(n) {
            let (distance, value) = (1 << round, round as i64 + 1);
            program.signal(ROUNDS, [(rank + distance) % n], value, 0);
            program.wait((rank + n - distance) % n, ROUNDS, value, 0);
        }
        program
    }
}
