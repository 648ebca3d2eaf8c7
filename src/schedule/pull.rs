// SPDX-License-Identifier: MPL-2.0
//! One copy into memory of one's own: a rank reads its peers' buffers, and writes none but its own.
//!
//! All-gather of four ranks, as rank 1 does it:
//!
//! ```text
//!             input     output of rank 1
//!   rank 0   [ a ] ──▶ [ a │   │   │   ]      then it tells all others that it has read their inputs, and waits until
//!   rank 1   [ b ] ──▶ [   │ b │   │   ]      all others have read its own
//!   rank 2   [ c ] ──▶ [   │   │ c │   ]
//!   rank 3   [ d ] ──▶ [   │   │   │ d ]
//! ```
//!
//! - Steps: one after the entry, then the exit, for which those wait whose buffers others read. Two rounds with the entry.
//! - In place, an all-to-all goes through scratch of the rank's own, segment by segment: what was read in a turn takes the
//!   place of what was sent when the other has read that, as its flag says.
//! - Elements moved by a rank, of a length N over n ranks: reduce-scatter reads N and writes N/n; a reduce's root reads
//!   nN and writes N; broadcast reads and writes N; scatter reads and writes N/n, and a gather's root N; all-gather and
//!   all-to-all read and write N.
//! - Fold order: 0, 1, .., n-1 in every element.
//! - Chosen: where buffers are private memory of processes that may read one another's, above the size that the entry
//!   record carries: for what is moved, from and to a root up to a size; and up to a size for reduce and reduce-scatter.
//!   A peer's buffer is then copied by the system, once, where [`staged`](super::staged) copies twice. What is to be folded
//!   must be copied first, which is a gain only out of near caches. (Peers may not write: one that was stopped in a
//!   write could go on with it when the buffer's rank has given up.)

use super::segments::{len_in, marks, repeat, turns};
use super::{Access, Buffer, Collective, Layout, Place, Program, Resources, Schedule};

/// Elements of a segment, unless asked otherwise: 32 KiB of f32.
pub const SEGMENT: usize = 8 * 1024;

/// A rank's one flag.
const PROGRESS: u32 = 0;

/// The algorithms of this file.
#[derive(Debug, Clone, Copy)]
pub struct Pull {
    collective: Collective,
    segment: usize,
}

impl Pull {
    fn new(collective: Collective, segment: usize) -> Self {
        Pull { collective, segment: segment.max(1) }
    }
}

/// The root folds all inputs into its output.
pub fn reduce() -> Pull {
    Pull::new(Collective::Reduce, 1)
}

/// Rank r folds its part of all inputs into its output.
pub fn reduce_scatter() -> Pull {
    Pull::new(Collective::ReduceScatter, 1)
}

/// Rank r copies all inputs to its output.
pub fn all_gather() -> Pull {
    Pull::new(Collective::AllGather, 1)
}

/// Rank r copies the root's input to its output.
pub fn broadcast() -> Pull {
    Pull::new(Collective::Broadcast, 1)
}

/// Rank r copies its part of the root's input to its output.
pub fn scatter() -> Pull {
    Pull::new(Collective::Scatter, 1)
}

/// The root copies all inputs to its output.
pub fn gather() -> Pull {
    Pull::new(Collective::Gather, 1)
}

/// Rank r copies its part of each input to its output; in place, through `segment` elements of scratch (at least one a
/// rank).
pub fn all_to_all(segment: usize) -> Pull {
    Pull::new(Collective::AllToAll, segment)
}

impl Schedule for Pull {
    fn name(&self) -> &str {
        "pull"
    }

    fn collective(&self) -> Collective {
        self.collective
    }

    fn access(&self) -> Access {
        Access::Read
    }

    fn resources(&self, layout: &Layout) -> Resources {
        let needs = Resources { flags: 1, advance: self.turns(layout) as u64 + 1, ..Resources::default() };
        match self.collective {
            _ if layout.world() == 1 => needs,
            Collective::AllToAll if layout.is_in_place() => {
                Resources { scratch: self.area(layout) * layout.world(), ..needs }
            }
            _ => needs,
        }
    }

    fn program(&self, rank: usize, layout: &Layout) -> Program {
        let input = |r, offset| Place::new(r, Buffer::Input, offset);
        let output = |offset| Place::new(rank, Buffer::Output, offset);
        let root = layout.root();
        let part = |r| layout.chunk(self.collective, r);
        // From the next rank on, so that not all read from the same one at a time, and from oneself first.
        let ranks = || std::iter::once(rank).chain(layout.others(rank));
        // In place, what stays with its rank is where it should be.
        let stays = |from: usize| layout.is_in_place() && from == rank;

        let mut program = Program::new();
        match self.collective {
            Collective::Reduce if rank == root => {
                program.fold((0..layout.world()).map(|r| input(r, 0)), [output(0)], layout.count(rank));
            }
            Collective::ReduceScatter => {
                let inputs = (0..layout.world()).map(|r| input(r, part(rank).start));
                program.fold(inputs, [output(0)], part(rank).len());
            }
            Collective::AllGather => {
                for from in ranks().filter(|from| !stays(*from)) {
                    program.copy(input(from, 0), [output(part(from).start)], part(from).len());
                }
            }
            Collective::Broadcast if !stays(root) => {
                program.copy(input(root, 0), [output(0)], layout.count(rank));
            }
            Collective::Scatter if !stays(root) => {
                program.copy(input(root, part(rank).start), [output(0)], part(rank).len());
            }
            Collective::Gather if rank == root => {
                for from in ranks().filter(|from| !stays(*from)) {
                    program.copy(input(from, 0), [output(part(from).start)], part(from).len());
                }
            }
            Collective::AllToAll if layout.is_in_place() => self.swap(rank, layout, &mut program),
            Collective::AllToAll => {
                for from in ranks() {
                    let to = output(layout.output_offset(from, rank));
                    program.copy(input(from, layout.input_offset(from, rank)), [to], layout.pair(from, rank));
                }
            }
            _ => {}
        }
        let over = self.turns(layout) as i64 + 1;
        program.signal(PROGRESS, layout.others(rank).filter(|other| self.reads(rank, *other, layout)), over, 0);
        for other in layout.others(rank).filter(|other| self.reads(*other, rank, layout)) {
            program.wait(other, PROGRESS, over, 0);
        }
        program
    }
}

impl Pull {
    /// Whether one rank reads another's buffers.
    fn reads(&self, reader: usize, read: usize, layout: &Layout) -> bool {
        match self.collective {
            Collective::Broadcast | Collective::Scatter => read == layout.root(),
            Collective::Gather | Collective::Reduce => reader == layout.root(),
            _ => true,
        }
    }

    /// How often flags are raised before the end.
    fn turns(&self, layout: &Layout) -> usize {
        match self.collective {
            _ if layout.world() == 1 => 0,
            Collective::AllToAll if layout.is_in_place() => turns(layout.largest_pair(), self.area(layout)),
            _ => 0,
        }
    }

    /// Elements of scratch for one other rank's part.
    fn area(&self, layout: &Layout) -> usize {
        (self.segment / layout.world()).max(1)
    }

    /// Exchanges parts with all others, a segment at a time.
    fn swap(&self, rank: usize, layout: &Layout, program: &mut Program) {
        let area = self.area(layout);
        let lens = layout.others(rank).flat_map(|other| marks(layout.pair(rank, other), area));
        repeat(program, self.turns(layout), lens, |turn| {
            let len = |other| len_in(turn, layout.pair(rank, other), area);
            let scratch = |other: usize| Place::new(rank, Buffer::Scratch, other * area);
            let place =
                |of, buffer, with| Place::new(of, buffer, layout.input_offset(of, with) + turn * area).stride(area);
            let mut body = Program::new();
            for other in layout.others(rank) {
                body.copy(place(other, Buffer::Input, rank), [scratch(other)], len(other));
            }
            body.signal(PROGRESS, layout.others(rank), turn as i64 + 1, 1);
            for other in layout.others(rank).filter(|other| len(*other) > 0) {
                body.wait(other, PROGRESS, turn as i64 + 1, 1);
                body.copy(scratch(other), [place(rank, Buffer::Output, other)], len(other));
            }
            body
        });
    }
}
