// SPDX-License-Identifier: MPL-2.0
//! Everything in one pass over memory that all ranks address: rank r does part r of the work for everyone.
//!
//! All-reduce of four ranks; each input is four parts, and rank 1's work is drawn:
//!
//! ```text
//!             input                        output
//!   rank 0   [ . │ b0│ . │ . ]           [ . │ b │ . │ . ]
//!   rank 1   [ . │ b1│ . │ . ]  ──fold─▶ [ . │ b │ . │ . ]     b = ((b0 + b1) + b2) + b3
//!   rank 2   [ . │ b2│ . │ . ]           [ . │ b │ . │ . ]
//!   rank 3   [ . │ b3│ . │ . ]           [ . │ b │ . │ . ]
//! ```
//!
//! - Steps: one after the entry, then the exit: each rank tells those whose buffers it has touched that it has finished
//!   with them and waits for those that touch its own, since a buffer belongs to its user again when the call returns.
//!   Two rounds with the entry.
//! - Elements moved by a rank, of a length N over n ranks: all-reduce reads N (N/n from each rank) and writes N;
//!   reduce and reduce-scatter read N and write N/n; all-gather reads N/n and writes N, N being all parts; broadcast
//!   reads N/n and writes N; scatter and gather read and write N/n; all-to-all reads and writes N. A ring moves no less.
//! - Scans: rank r folds part r of all ranks' prefixes in one pass over the inputs (`prefix`), a segment at a time, so
//!   that the fold so far stays in cache: reads N and writes N.
//! - Fold order: 0, 1, .., n-1 in every element.
//! - In place: a rank writes exactly where it has read, and no other rank reads or writes there. In an all-to-all each
//!   two ranks swap parts: the lower one swaps the first half, the other the second, through a segment of scratch.
//! - Chosen: wherever every rank's buffers are addressable by all (threads; allocated memory), above the size that the
//!   entry record carries.

use super::prefix::{partials, prefixes};
use super::segments::{len_in, marks, repeat, turns};
use super::{Access, Buffer, Collective, Layout, Place, Program, Resources, Schedule, partition};

/// Elements of a segment of a scan, or of an all-to-all in place, unless asked otherwise: 16 KiB of f32.
pub const SEGMENT: usize = 4 * 1024;

/// A rank's one flag: that it has finished.
const DONE: u32 = 0;

/// The algorithms of this file.
#[derive(Debug, Clone, Copy)]
pub struct Direct {
    collective: Collective,
    segment: usize,
}

impl Direct {
    const fn new(collective: Collective) -> Self {
        Direct { collective, segment: SEGMENT }
    }
}

/// Rank r folds part r of all inputs and stores it to all outputs.
pub fn all_reduce() -> Direct {
    Direct::new(Collective::AllReduce)
}

/// Rank r folds its part of all inputs into its output.
pub fn reduce_scatter() -> Direct {
    Direct::new(Collective::ReduceScatter)
}

/// Rank r copies its input to all outputs.
pub fn all_gather() -> Direct {
    Direct::new(Collective::AllGather)
}

/// Rank r copies part r of the root's input to all outputs: every core moves its share.
pub fn broadcast() -> Direct {
    Direct::new(Collective::Broadcast)
}

/// Rank r folds part r of all inputs into the root's output: every core folds its share.
pub fn reduce() -> Direct {
    Direct::new(Collective::Reduce)
}

/// Rank r copies its part of the root's input to its output.
pub fn scatter() -> Direct {
    Direct::new(Collective::Scatter)
}

/// Rank r copies its input to the root's output.
pub fn gather() -> Direct {
    Direct::new(Collective::Gather)
}

/// Rank r copies its part of each input to its output; in place, ranks swap parts in segments of `segment` elements (at
/// least one).
pub fn all_to_all(segment: usize) -> Direct {
    Direct { collective: Collective::AllToAll, segment: segment.max(1) }
}

/// Rank r folds part r of every rank's prefix, in segments of `segment` elements (at least one).
pub fn scan(segment: usize) -> Direct {
    Direct { collective: Collective::Scan, segment: segment.max(1) }
}

/// The same without the rank's own contribution.
pub fn exclusive_scan(segment: usize) -> Direct {
    Direct { collective: Collective::ExclusiveScan, segment: segment.max(1) }
}

impl Schedule for Direct {
    fn name(&self) -> &str {
        "direct"
    }

    fn collective(&self) -> Collective {
        self.collective
    }

    fn access(&self) -> Access {
        Access::Direct
    }

    fn resources(&self, layout: &Layout) -> Resources {
        let needs = Resources { flags: 1, advance: 1, ..Resources::default() };
        match self.collective {
            _ if layout.world() == 1 => needs,
            Collective::AllToAll if layout.is_in_place() => Resources { scratch: self.segment, ..needs },
            Collective::Scan | Collective::ExclusiveScan => {
                let longest = layout.chunk(self.collective, 0).len();
                Resources { partial: longest.min(self.segment), depth: partials(self.collective), ..needs }
            }
            _ => needs,
        }
    }

    fn program(&self, rank: usize, layout: &Layout) -> Program {
        let ranks = 0..layout.world();
        let root = layout.root();
        let part = layout.chunk(self.collective, rank);
        let input = |r, offset| Place::new(r, Buffer::Input, offset);
        let output = |r, offset| Place::new(r, Buffer::Output, offset);
        // In place, what stays with its rank is where it should be.
        let stays = |from: usize, to: usize| layout.is_in_place() && from == to;

        let mut program = Program::new();
        match self.collective {
            Collective::AllReduce => program.fold(
                ranks.clone().map(|r| input(r, part.start)),
                ranks.map(|r| output(r, part.start)),
                part.len(),
            ),
            Collective::Reduce => {
                program.fold(ranks.map(|r| input(r, part.start)), [output(root, part.start)], part.len());
            }
            Collective::ReduceScatter => {
                program.fold(ranks.map(|r| input(r, part.start)), [output(rank, 0)], part.len());
            }
            Collective::AllGather => {
                let to = ranks.filter(|&r| !stays(rank, r)).map(|r| output(r, part.start));
                program.copy(input(rank, 0), to, part.len());
            }
            Collective::Broadcast => {
                let to = ranks.filter(|&r| !stays(root, r)).map(|r| output(r, part.start));
                program.copy(input(root, part.start), to, part.len());
            }
            Collective::Scatter if !stays(root, rank) => {
                program.copy(input(root, part.start), [output(rank, 0)], part.len());
            }
            Collective::Gather if !stays(rank, root) => {
                program.copy(input(rank, 0), [output(root, part.start)], part.len());
            }
            Collective::AllToAll if layout.is_in_place() => {
                layout.others(rank).for_each(|other| self.swap(rank, other, layout, &mut program));
            }
            Collective::AllToAll => {
                for from in std::iter::once(rank).chain(layout.others(rank)) {
                    let to = output(rank, layout.output_offset(from, rank));
                    program.copy(input(from, layout.input_offset(from, rank)), [to], layout.pair(from, rank));
                }
            }
            Collective::Scan | Collective::ExclusiveScan => self.scan(rank, layout, &mut program),
            Collective::Scatter | Collective::Gather | Collective::Barrier => {}
        }
        program.signal(DONE, layout.others(rank).filter(|&other| self.is_touched(other, layout)), 1, 0);
        for other in layout.others(rank).filter(|_| self.is_touched(rank, layout)) {
            program.wait(other, DONE, 1, 0);
        }
        program
    }
}

impl Direct {
    /// Whether other ranks read or write `rank`'s buffers.
    fn is_touched(&self, rank: usize, layout: &Layout) -> bool {
        !matches!(self.collective, Collective::Scatter | Collective::Gather) || rank == layout.root()
    }

    /// Swaps this rank's half of its part for `other` and other's for it.
    fn swap(&self, rank: usize, other: usize, layout: &Layout, program: &mut Program) {
        let half = partition::part(layout.pair(rank, other), 2, usize::from(rank > other));
        repeat(program, turns(half.len(), self.segment), marks(half.len(), self.segment), |turn| {
            let place = |of: usize, with: usize| {
                let begin = layout.input_offset(of, with) + half.start + turn * self.segment;
                Place::new(of, Buffer::Output, begin).stride(self.segment)
            };
            let (own, theirs) = (place(rank, other), place(other, rank));
            let scratch = Place::new(rank, Buffer::Scratch, 0);
            let len = len_in(turn, half.len(), self.segment);
            let mut body = Program::new();
            body.copy(own, [scratch], len);
            body.copy(theirs, [own], len);
            body.copy(scratch, [theirs], len);
            body
        });
    }

    /// Folds this rank's part of all prefixes.
    fn scan(&self, rank: usize, layout: &Layout, program: &mut Program) {
        let part = layout.chunk(self.collective, rank);
        repeat(program, turns(part.len(), self.segment), marks(part.len(), self.segment), |turn| {
            let place =
                |r: usize, buffer: Buffer| Place::new(r, buffer, part.start + turn * self.segment).stride(self.segment);
            let (input, output) = (|r| place(r, Buffer::Input), |r| place(r, Buffer::Output));
            let mut body = Program::new();
            let len = len_in(turn, part.len(), self.segment);
            prefixes(&mut body, self.collective, (rank, layout.world()), input, output, len);
            body
        });
    }
}
