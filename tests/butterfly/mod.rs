// SPDX-License-Identifier: MPL-2.0
//! A user's own algorithm: the butterfly all-reduce (recursive doubling) for a power of two of ranks.
//!
//! ```text
//!   round   0       1          pairs at distance 1, 2, 4, .. exchange what they have folded so far; the lower
//!   rank 0  ─┐ 01  ─┐ 0123     rank's fold comes first, so that both compute the same bits
//!   rank 1  ─┘ 01  ─│┐ ..
//!   rank 2  ─┐ 23  ─┘│
//!   rank 3  ─┘ 23  ──┘
//! ```
//!
//! Round i leaves its fold, unrounded, in `Partial(i)`, of which there are as many as rounds: none is used twice in a
//! call. log2 n rounds, N log2 n elements read from partners. Fold order: `Tree`.

use annulus::FoldOrder;
use annulus::schedule::{Access, Buffer, Collective, Layout, Place, Program, Resources, Schedule};

/// All-reduce by recursive doubling. In a world that is no power of two, `verify` refuses it.
pub struct Butterfly;

impl Schedule for Butterfly {
    fn name(&self) -> &str {
        "butterfly"
    }

    fn collective(&self) -> Collective {
        Collective::AllReduce
    }

    fn access(&self) -> Access {
        Access::Staged
    }

    fn fold_order(&self) -> FoldOrder {
        FoldOrder::Tree
    }

    fn resources(&self, layout: &Layout) -> Resources {
        let rounds = layout.world().ilog2();
        Resources {
            partial: layout.count(0),
            depth: rounds.max(1) as usize,
            flags: 1,
            advance: u64::from(rounds),
            ..Resources::default()
        }
    }

    fn program(&self, rank: usize, layout: &Layout) -> Program {
        let rounds = layout.world().ilog2();
        let len = layout.count(rank);
        // What a rank has folded before a round; after the last one, the result.
        let folded = |rank, round| match round == rounds {
            true => Place::new(rank, Buffer::Output, 0),
            false => Place::new(rank, Buffer::Partial(round), 0),
        };
        let mut program = Program::new();
        program.fold([Place::new(rank, Buffer::Input, 0)], [folded(rank, 0)], len);
        for round in 0..rounds {
            let partner = rank ^ (1 << round);
            let value = i64::from(round) + 1;
            program.signal(0, [partner], value, 0);
            program.wait(partner, 0, value, 0);
            let from = [rank.min(partner), rank.max(partner)].map(|r| folded(r, round));
            program.fold(from, [folded(rank, round + 1)], len);
        }
        program
    }
}
