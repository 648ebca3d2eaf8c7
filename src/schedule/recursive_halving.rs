// SPDX-License-Identifier: MPL-2.0
//! Ranks exchange what they have folded with partners ever farther away, and keep half of the parts each time.
//!
//! Reduce-scatter of four ranks; what rank 1 folds of its own and its partner's parts:
//!
//! ```text
//!                  parts       a    b    c    d
//!   1 away, rank 0            ( )   b0  ( )   d0     ranks with an even number keep a and c of both,
//!           rank 1            ( )  b01  ( )  d01     ranks with an odd number b and d
//!   2 away, rank 3             ·   b23   ·    ·
//!           rank 1             ·    b    ·    ·      b = (b0 b1) (b2 b3)
//! ```
//!
//! Near partners come first, so that the fold order is `Tree` (the other way round, 0 and 2 would be folded before 1
//! is). With another number of ranks, too, every rank is in every exchange: the last rank of a longer left half reads
//! from a partner that it shares (`halves`), and that one keeps the parts of both for them.
//!
//! - Steps: log2 n rounds, rounded up, for each segment.
//! - Elements moved by a rank, of a length N over n ranks: N/2 published, N/2 of the partner's folded with as many of its
//!   own, then N/4, and so on: N (n-1)/n read from others, as a ring does, in fewer rounds.
//! - Fold order: `Tree`, for any number of ranks.
//! - Partials: two, used in turn, with an area for each part. Another rank reads an area only when its rank will not
//!   write it again in this segment; and a rank finishes a segment only when all have begun it, that is, finished the one
//!   before, so that two are enough.
//! - Chosen: by name only, since its fold order is not that of the ranks.

use std::ops::Range;

use super::halves::{distinct, levels, partner, partnered, path};
use super::segments::{len_in, marks, repeat, turns};
use super::{Access, Buffer, Collective, Layout, Place, Program, Resources, Schedule};
use crate::element::FoldOrder;

/// Elements of a partial, unless asked otherwise: 32 KiB of f32.
pub const SEGMENT: usize = 8 * 1024;

/// A rank's one flag: how many steps it has taken.
const STEPS: u32 = 0;

/// Reduce-scatter by recursive halving.
#[derive(Debug, Clone, Copy)]
pub struct RecursiveHalving {
    segment: usize,
}

/// Reduce-scatter through partials of `segment` elements, dealt evenly to the ranks' parts.
pub fn reduce_scatter(segment: usize) -> RecursiveHalving {
    RecursiveHalving { segment }
}

impl RecursiveHalving {
    /// A part's share of a partial.
    fn share(&self, layout: &Layout) -> usize {
        (self.segment / layout.world()).max(1)
    }
}

/// The parts that `rank` keeps at a depth of its path: at depth 0 its own; at the next, also what it keeps for those
/// whose partner it is.
fn kept(path: &[Range<usize>], rank: usize, depth: usize) -> Vec<usize> {
    match depth {
        0 => vec![rank],
        _ => {
            let range = &path[depth - 1];
            let of = |r| kept(path, r, depth - 1);
            std::iter::once(rank).chain(partnered(range, rank)).flat_map(of).collect()
        }
    }
}

impl Schedule for RecursiveHalving {
    fn name(&self) -> &str {
        "recursive_halving"
    }

    fn collective(&self) -> Collective {
        Collective::ReduceScatter
    }

    fn access(&self) -> Access {
        Access::Staged
    }

    fn fold_order(&self) -> FoldOrder {
        FoldOrder::Tree
    }

    fn resources(&self, layout: &Layout) -> Resources {
        let (n, share) = (layout.world(), self.share(layout));
        let advance = (turns(layout.largest(), share) * levels(n)) as u64;
        match n {
            1 => Resources::default(),
            _ => Resources { partial: share * n, depth: 2, flags: 1, advance, ..Resources::default() },
        }
    }

    fn program(&self, rank: usize, layout: &Layout) -> Program {
        let (n, share) = (layout.world(), self.share(layout));
        let (levels, path) = (levels(n), path(n, rank));
        let leaf = path.len() - 1;
        let steps = levels as i64;
        // The step in which a rank folds its range at a depth: at the deepest, step 1.
        let folded = |depth: usize| (levels - depth) as i64 + 1;
        let readers = distinct(path[..leaf].iter().flat_map(|range| partnered(range, rank)));

        let mut program = Program::new();
        if n == 1 {
            let (input, output) = (Place::new(0, Buffer::Input, 0), Place::new(0, Buffer::Output, 0));
            program.fold([input], [output], layout.count(0));
            return program;
        }
        let kept: Vec<Vec<usize>> = (0..leaf).map(|depth| kept(&path, rank, depth)).collect();
        let marks = (0..n).flat_map(|part| marks(layout.count(part), share));
        repeat(&mut program, turns(layout.largest(), share), marks, |turn| {
            let own = |buffer, begin: usize| Place::new(rank, buffer, begin + turn * share).stride(share);
            let input = |part: usize| own(Buffer::Input, layout.offset(part));
            let partial = |r, part: usize| Place::new(r, Buffer::Partial((turn % 2) as u32), part * share);
            let len = |part: usize| len_in(turn, layout.count(part), share);
            let begin = turn as i64 * steps;
            let mut body = Program::new();
            for part in (0..n).filter(|part| !kept[leaf - 1].contains(part)) {
                body.fold([input(part)], [partial(rank, part)], len(part));
            }
            body.signal(STEPS, readers.iter().copied(), begin + folded(leaf), steps);
            for (depth, range) in path[..leaf].iter().enumerate().rev() {
                let partner = partner(range, rank);
                body.wait(partner, STEPS, begin + folded(depth + 1), steps);
                for &part in &kept[depth] {
                    let mine = if depth + 1 == leaf { input(part) } else { partial(rank, part) };
                    let theirs = partial(partner, part);
                    let from = if rank < partner { [mine, theirs] } else { [theirs, mine] };
                    let to = if depth == 0 { own(Buffer::Output, 0) } else { partial(rank, part) };
                    body.fold(from, [to], len(part));
                }
                if depth > 0 {
                    body.signal(STEPS, readers.iter().copied(), begin + folded(depth), steps);
                }
            }
            body
        });
        program
    }
}
