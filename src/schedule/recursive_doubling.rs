// SPDX-License-Identifier: MPL-2.0
//! Ranks exchange what they have with partners ever farther away, and have twice as much after each exchange.
//!
//! All-reduce of four ranks; each reads its partner's fold so far and makes the next one:
//!
//! ```text
//!            publish        fold with 1 away    fold with 2 away
//!   rank 0      0  ─┐┌─▶      0 1    ─┐ ┌─▶      (0 1) (2 3)
//!   rank 1      1  ─┘└─▶      0 1    ─┼┐│┌▶      (0 1) (2 3)
//!   rank 2      2  ─┐┌─▶      2 3    ─┘│└┼▶      (0 1) (2 3)
//!   rank 3      3  ─┘└─▶      2 3     ─┘ └▶      (0 1) (2 3)
//! ```
//!
//! With another number of ranks, too, every rank is in every exchange: the halves of a range then differ by one rank,
//! and one rank is read by two (`halves`). That spares the two rounds in which the ranks beyond a power of two would hand
//! in their contributions and get the result.
//!
//! - Steps: log2 n rounds, rounded up, for each segment. All-gather exchanges parts in [`rounds`](super::rounds).
//! - Elements moved by a rank, of a length N over n ranks: all-reduce publishes N, reads 2 N and writes N in each round,
//!   as accumulators, so it is for short messages; all-gather reads N (n-1)/n.
//! - Fold order: `Tree`, for any number of ranks.
//! - Partials: one a depth of the tree, so that what a rank reads is not what its partner writes; and as many again, used
//!   by every other segment. A rank finishes a segment only when all have begun it, that is, finished the one before: two
//!   sets are enough.
//! - Chosen: by name only, all-reduce since its fold order is not that of the ranks.

use super::halves::{distinct, levels, other_half, partner, partnered, path};
use super::rounds::{Gathering, Round};
use super::segments::{len_in, marks, repeat, turns};
use super::{Access, Buffer, Collective, Layout, Place, Program, Resources, Schedule};
use crate::element::FoldOrder;

/// The algorithm's name.
const NAME: &str = "recursive_doubling";

/// Elements of a segment of an all-reduce, unless asked otherwise: 16 KiB of f32.
pub const SEGMENT: usize = 4 * 1024;

/// A rank's one flag: how many steps it has taken.
const STEPS: u32 = 0;

/// All-reduce by recursive doubling.
#[derive(Debug, Clone, Copy)]
pub struct RecursiveDoubling {
    segment: usize,
}

/// All-reduce in segments of `segment` elements (at least one).
pub fn all_reduce(segment: usize) -> RecursiveDoubling {
    RecursiveDoubling { segment: segment.max(1) }
}

/// All-gather, staged through slots of `segment` elements, dealt evenly to the ranks' parts.
pub fn all_gather(access: Access, segment: usize) -> Gathering {
    Gathering::new(NAME, access, segment, |n, rank| {
        let path = path(n, rank);
        let round = |range| Round { from: partner(range, rank), parts: vec![other_half(range, rank)] };
        let late = levels(n) + 1 - path.len();
        let rounds = path[..path.len() - 1].iter().rev().map(round);
        (0..late).map(|_| Round::default()).chain(rounds).collect()
    })
}

impl Schedule for RecursiveDoubling {
    fn name(&self) -> &str {
        NAME
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
        let levels = levels(layout.world());
        let advance = (turns(layout.count(0), self.segment) * levels) as u64;
        match levels {
            0 => Resources::default(),
            _ => Resources { partial: self.segment, depth: 2 * levels, flags: 1, advance, ..Resources::default() },
        }
    }

    fn program(&self, rank: usize, layout: &Layout) -> Program {
        let (n, len) = (layout.world(), layout.count(rank));
        let (levels, path) = (levels(n), path(n, rank));
        let leaf = path.len() - 1;
        let steps = levels as i64;
        // The step in which a rank folds its range at a depth: at the deepest, step 1.
        let folded = |depth: usize| (levels - depth) as i64 + 1;
        let readers = distinct(path[..leaf].iter().flat_map(|range| partnered(range, rank)));
        let mut program = Program::new();
        repeat(&mut program, turns(len, self.segment), marks(len, self.segment), |turn| {
            let own = |buffer| Place::new(rank, buffer, turn * self.segment).stride(self.segment);
            let partial = |r, depth: usize| {
                let index = (2 * (depth - 1) + turn) % (2 * levels);
                Place::new(r, Buffer::Partial(index as u32), 0)
            };
            let fold_to = |depth| if depth == 0 { own(Buffer::Output) } else { partial(rank, depth) };
            let begin = turn as i64 * steps;
            let len = len_in(turn, len, self.segment);
            let mut body = Program::new();
            body.fold([own(Buffer::Input)], [fold_to(leaf)], len);
            body.signal(STEPS, readers.iter().copied(), begin + folded(leaf), steps);
            for (depth, range) in path[..leaf].iter().enumerate().rev() {
                let partner = partner(range, rank);
                body.wait(partner, STEPS, begin + folded(depth + 1), steps);
                let from = [rank.min(partner), rank.max(partner)].map(|r| partial(r, depth + 1));
                body.fold(from, [fold_to(depth)], len);
                if depth > 0 {
                    body.signal(STEPS, readers.iter().copied(), begin + folded(depth), steps);
                }
            }
            body
        });
        program
    }
}
