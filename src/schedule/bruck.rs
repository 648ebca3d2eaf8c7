// SPDX-License-Identifier: MPL-2.0
//! Few rounds for any number of ranks, at the price of moving elements more than once (J. Bruck et al., "Efficient
//! Algorithms for All-to-All Communications in Multiport Message-Passing Systems", 1997).
//!
//! All-to-all of four ranks. What rank r has for rank r + j goes j ranks on: 1 on if bit 0 of j is set, then 2 on if
//! bit 1 is. What rank 3 gets, written as from whom and for whom:
//!
//! ```text
//!   j         0        1        2        3
//!   begin    3▸3      3▸0      3▸1      3▸2      its own input
//!   bit 0     ·       2▸3       ·       2▸1      j = 1 and 3, from rank 2: the first has arrived
//!   bit 1     ·        ·       1▸3      0▸3      j = 2 and 3, from rank 1: both have arrived
//! ```
//!
//! All-gather: in round i rank r takes the parts from r + 2^i on from rank r + 2^i, which has as many as it itself has
//! ([`rounds`](super::rounds)).
//!
//! - Steps: log2 n rounds, rounded up, for each segment. A direct all-to-all is one round, but each rank hears from
//!   n - 1.
//! - Elements moved by a rank, of a length N over n ranks: all-to-all copies in N (n-1)/n and then about N/2 in each
//!   round; all-gather reads N (n-1)/n.
//! - Fold order: nothing is folded.
//! - Slots: two, used in turn. In an all-to-all a slot has an area for each bit of each j, so that what a rank reads in a
//!   round is not what its source writes in that round. A rank finishes a segment only when all have begun it, that is,
//!   finished the one before, so that two slots are enough.
//! - In place: all that a rank sends of a segment has left its buffer before anything is stored there.
//! - Chosen: by name only; for short messages among many ranks.

use super::halves::{distinct, levels};
use super::rounds::{Gathering, Round};
use super::segments::{len_in, marks, repeat, turns};
use super::{Access, Buffer, Collective, Layout, Place, Program, Resources, Schedule};

/// The algorithms' name.
const NAME: &str = "bruck";

/// Elements of a slot of an all-to-all, unless asked otherwise: 32 KiB of f32.
pub const SEGMENT: usize = 8 * 1024;

/// A rank's one flag: how many steps it has taken.
const STEPS: u32 = 0;

/// All-to-all by Bruck's algorithm.
#[derive(Debug, Clone, Copy)]
pub struct Bruck {
    segment: usize,
}

/// All-to-all through slots of `segment` elements, dealt evenly to what travels.
pub fn all_to_all(segment: usize) -> Bruck {
    Bruck { segment }
}

/// All-gather, staged through slots of `segment` elements, dealt evenly to the ranks' parts.
pub fn all_gather(access: Access, segment: usize) -> Gathering {
    Gathering::new(NAME, access, segment, |n, rank| {
        let round = |i: usize| {
            let distance = 1 << i;
            let (from, count) = ((rank + distance) % n, distance.min(n - distance));
            // The parts from the last rank's on begin anew with rank 0's.
            let end = (from + count).min(n);
            let wrapped = 0..(from + count - end);
            let parts = [from..end, wrapped].into_iter().filter(|parts| !parts.is_empty());
            Round { from, parts: parts.collect() }
        };
        (0..levels(n)).map(round).collect()
    })
}

/// How many areas those before j have in a slot, for each j below n, and for all.
fn areas(n: usize) -> Vec<usize> {
    (0..=n).scan(0, |areas, j| Some(std::mem::replace(areas, *areas + j.count_ones() as usize))).collect()
}

impl Bruck {
    /// The elements of an area.
    fn share(&self, layout: &Layout) -> usize {
        let n = layout.world();
        (self.segment / areas(n)[n].max(1)).max(1)
    }
}

impl Schedule for Bruck {
    fn name(&self) -> &str {
        NAME
    }

    fn collective(&self) -> Collective {
        Collective::AllToAll
    }

    fn access(&self) -> Access {
        Access::Staged
    }

    fn resources(&self, layout: &Layout) -> Resources {
        let (n, share) = (layout.world(), self.share(layout));
        let advance = (turns(layout.largest_pair(), share) * levels(n)) as u64;
        match n {
            1 => Resources::default(),
            _ => Resources { slot: share * areas(n)[n], depth: 2, flags: 1, advance, ..Resources::default() },
        }
    }

    fn program(&self, rank: usize, layout: &Layout) -> Program {
        let (n, share, levels) = (layout.world(), self.share(layout), levels(layout.world()));
        let areas = areas(n);
        let steps = levels as i64;
        let readers = distinct((0..levels).map(|bit| (rank + (1 << bit)) % n));
        let source = |bit: usize| (rank + n - (1 << bit)) % n;

        let pairs = (0..n).flat_map(|from| (0..n).map(move |to| (from, to)));
        let marks = pairs.flat_map(|(from, to)| marks(layout.pair(from, to), share));
        let mut program = Program::new();
        repeat(&mut program, turns(layout.largest_pair(), share), marks, |turn| {
            let len = |from, to| len_in(turn, layout.pair(from, to), share);
            let user = |buffer, begin: usize| Place::new(rank, buffer, begin + turn * share).stride(share);
            // Where a rank keeps what it will pass on for this bit.
            let slot = |r, j: usize, bit: u32| {
                let area = areas[j] + (j & ((1 << bit) - 1)).count_ones() as usize;
                Place::new(r, Buffer::Slot((turn % 2) as u32), area * share)
            };
            let begin = turn as i64 * steps;
            let mut body = Program::new();
            for j in 1..n {
                let to = (rank + j) % n;
                let from = user(Buffer::Input, layout.input_offset(rank, to));
                body.copy(from, [slot(rank, j, j.trailing_zeros())], len(rank, to));
            }
            body.signal(STEPS, readers.iter().copied(), begin + 1, steps);
            if !layout.is_in_place() {
                let to = user(Buffer::Output, layout.output_offset(rank, rank));
                body.copy(user(Buffer::Input, layout.input_offset(rank, rank)), [to], len(rank, rank));
            }
            for bit in 0..levels {
                body.wait(source(bit), STEPS, begin + bit as i64 + 1, steps);
                for j in (1..n).filter(|j| j >> bit & 1 == 1) {
                    let gone = j & ((2 << bit) - 1);
                    let (from, ahead) = ((rank + n - gone) % n, j - gone);
                    let to = match ahead {
                        0 => user(Buffer::Output, layout.output_offset(from, rank)),
                        _ => slot(rank, j, ahead.trailing_zeros()),
                    };
                    body.copy(slot(source(bit), j, bit as u32), [to], len(from, (from + j) % n));
                }
                if bit + 1 < levels {
                    body.signal(STEPS, readers.iter().copied(), begin + bit as i64 + 2, steps);
                }
            }
            body
        });
        program
    }
}
