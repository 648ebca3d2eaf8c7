// SPDX-License-Identifier: MPL-2.0
//! Each rank reads only from the rank before it: chunks travel round the ring and are folded as they go.
//!
//! All-reduce of four ranks. Chunk c starts at rank c + 1 and ends, folded, at rank c; then it goes round once more:
//!
//! ```text
//!   step      0        1        2        3    │   4        5        6
//!          publish   fold     fold     finish │ copy     copy     copy
//!   rank 0    3        2        1        0    │   3        2        1        rank r works on chunk
//!   rank 1    0        3        2        1    │   0        3        2        r - 1 - step (modulo 4), and
//!   rank 2    1        0        3        2    │   1        0        3        gets it from rank r - 1,
//!   rank 3    2        1        0        3    │   2        1        0        who had it a step before
//! ```
//!
//! - Steps: n to reduce, n - 1 more to gather, for each segment of the chunks. Reduce-scatter is steps 0 to n - 1;
//!   all-gather is steps n - 1 to 2n - 2, its first one publishing the rank's own input. Before a step a rank waits for
//!   the step before of its predecessor: 2(n - 1) rounds a segment for all-reduce, n - 1 for the others, and a last one
//!   to leave.
//! - Elements moved by a rank, of a length N over n ranks: N (n-1)/n read from the predecessor while reducing, as many
//!   while gathering. While reducing they are accumulators: for f16 and bf16 twice the bytes.
//! - Fold order: chunk c folds c+1, c+2, .., n-1, 0, .., c.
//! - Direct: the input of step 1 and the outputs of the gathering are read where they lie, and step 0 is left out.
//!   Staged: they pass through slots.
//! - Why no place is used too soon: what a step leaves in slot or partial, the successor reads in its next step. The
//!   place is next written two steps later or more (places alternate, and a turn's last step leaves nothing there), and
//!   before that the rank waits for its successor to have taken the step between.
//! - Chosen: by name only, since its fold order depends on where a chunk begins.

use super::segments::{len_in, marks, repeat, turns};
use super::{Access, Buffer, Collective, Layout, Place, Program, Resources, Schedule};
use crate::element::FoldOrder;

/// Elements of a segment of a chunk, unless asked otherwise: 24 KiB of f32.
pub const SEGMENT: usize = 6 * 1024;

/// A rank's one flag: how many steps it has taken.
const STEPS: u32 = 0;

/// The algorithms of this file.
#[derive(Debug, Clone, Copy)]
pub struct Ring {
    collective: Collective,
    access: Access,
    segment: usize,
}

/// All-reduce in segments of `segment` elements of each chunk (at least one).
pub fn all_reduce(access: Access, segment: usize) -> Ring {
    Ring { collective: Collective::AllReduce, access, segment: segment.max(1) }
}

/// Reduce-scatter in segments of `segment` elements of each part (at least one).
pub fn reduce_scatter(access: Access, segment: usize) -> Ring {
    Ring { collective: Collective::ReduceScatter, access, segment: segment.max(1) }
}

/// All-gather in segments of `segment` elements of each part (at least one).
pub fn all_gather(access: Access, segment: usize) -> Ring {
    Ring { collective: Collective::AllGather, access, segment: segment.max(1) }
}

impl Ring {
    /// The steps of a turn, numbered as in all-reduce.
    fn steps(&self, n: usize) -> std::ops::Range<usize> {
        // With direct access the successor reads the input where it lies: nothing is published.
        let first = if self.access == Access::Direct { 1 } else { 0 };
        match self.collective {
            Collective::AllReduce => first..2 * n - 1,
            Collective::ReduceScatter => first..n,
            _ => n - 1..2 * n - 1,
        }
    }

    fn turns(&self, layout: &Layout) -> usize {
        let chunks = (0..layout.world()).map(|chunk| layout.chunk(self.collective, chunk).len());
        turns(chunks.max().unwrap_or(0), self.segment)
    }
}

impl Schedule for Ring {
    fn name(&self) -> &str {
        "ring"
    }

    fn collective(&self) -> Collective {
        self.collective
    }

    fn access(&self) -> Access {
        self.access
    }

    fn fold_order(&self) -> FoldOrder {
        if self.collective.folds() { FoldOrder::Ring } else { FoldOrder::Rank }
    }

    fn resources(&self, layout: &Layout) -> Resources {
        let n = layout.world();
        let slot = if self.access != Access::Direct && n > 1 { self.segment } else { 0 };
        let partial = if self.collective.folds() && n > 2 { self.segment } else { 0 };
        let advance = (self.turns(layout) * self.steps(n).len()) as u64;
        Resources { slot, partial, depth: 2, flags: 1, advance, ..Resources::default() }
    }

    fn program(&self, rank: usize, layout: &Layout) -> Program {
        let (n, collective) = (layout.world(), self.collective);
        let mut program = Program::new();
        if n == 1 {
            let (input, output) = (Place::new(0, Buffer::Input, 0), Place::new(0, Buffer::Output, 0));
            if collective.folds() {
                program.fold([input], [output], layout.count(0));
            } else if !layout.is_in_place() {
                program.copy(input, [output], layout.count(0));
            }
            return program;
        }
        let marks = (0..n).flat_map(|chunk| marks(layout.chunk(collective, chunk).len(), self.segment));
        let turns = self.turns(layout);
        repeat(&mut program, turns, marks, |turn| {
            let mut body = Program::new();
            self.steps(n).for_each(|step| Turn { ring: self, layout, rank, turn }.step(step, &mut body));
            body
        });
        if self.access == Access::Direct && turns > 0 {
            // The successor reads this rank's buffers, which are its user's again when the call returns.
            program.wait((rank + 1) % n, STEPS, (turns * self.steps(n).len()) as i64, 0);
        }
        program
    }
}

/// One rank's side of a turn.
struct Turn<'a> {
    ring: &'a Ring,
    layout: &'a Layout,
    rank: usize,
    turn: usize,
}

impl Turn<'_> {
    /// Where this turn's segment of `chunk` lies in a buffer in which the chunk begins at `begin`.
    fn place(&self, rank: usize, buffer: Buffer, begin: usize) -> Place {
        Place::new(rank, buffer, begin + self.turn * self.ring.segment).stride(self.ring.segment)
    }

    fn input(&self, rank: usize, chunk: usize) -> Place {
        let begin = match self.ring.collective {
            Collective::AllGather => 0,
            collective => self.layout.chunk(collective, chunk).start,
        };
        self.place(rank, Buffer::Input, begin)
    }

    fn output(&self, rank: usize, chunk: usize) -> Place {
        let begin = match self.ring.collective {
            Collective::ReduceScatter => 0,
            collective => self.layout.chunk(collective, chunk).start,
        };
        self.place(rank, Buffer::Output, begin)
    }

    /// The slot or partial that `step` of `rank` leaves for its successor.
    fn left(&self, rank: usize, step: usize, kind: fn(u32) -> Buffer) -> Place {
        Place::new(rank, kind(((step + self.turn) % 2) as u32), 0)
    }

    fn step(&self, step: usize, body: &mut Program) {
        let Turn { ring, layout, rank, turn } = *self;
        let n = layout.world();
        let steps = ring.steps(n);
        let (finish, last) = (n - 1, steps.end - 1);
        let (before, after) = ((rank + n - 1) % n, (rank + 1) % n);
        let chunk = (rank + 2 * n - 1 - step) % n;
        let len = len_in(turn, layout.chunk(ring.collective, chunk).len(), ring.segment);

        let direct = ring.access == Access::Direct;
        let slot = |rank, step| self.left(rank, step, Buffer::Slot);
        let partial = |rank, step| self.left(rank, step, Buffer::Partial);
        // Slots carry what direct access would read in place: the input of step 1 and finished chunks.
        let pass_on = (!direct && step < last).then(|| slot(rank, step));

        let taken = turn * steps.len() + step - steps.start;
        let stride = steps.len() as i64;
        body.wait(before, STEPS, taken as i64, stride);
        let leaves = pass_on.is_some() && (step == 0 || step >= finish) || (1..finish).contains(&step);
        if leaves && after != before {
            body.wait(after, STEPS, taken as i64, stride);
        }

        let gathers_only = ring.collective == Collective::AllGather;
        if step == 0 || gathers_only && step == finish {
            let gathered = gathers_only && !layout.is_in_place();
            let own = gathered.then(|| self.output(rank, chunk));
            body.copy(self.input(rank, chunk), own.into_iter().chain(pass_on), len);
        } else if step <= finish {
            let from = match step {
                1 if direct => self.input(before, chunk),
                1 => slot(before, step - 1),
                _ => partial(before, step - 1),
            };
            let sources = [from, self.input(rank, chunk)];
            if step < finish {
                body.fold(sources, [partial(rank, step)], len);
            } else {
                body.fold(sources, [self.output(rank, chunk)].into_iter().chain(pass_on), len);
            }
        } else {
            let from = if direct { self.output(before, chunk) } else { slot(before, step - 1) };
            body.copy(from, [self.output(rank, chunk)].into_iter().chain(pass_on), len);
        }
        let neighbours = [before, after];
        let neighbours = if before == after { &neighbours[..1] } else { &neighbours[..] };
        body.signal(STEPS, neighbours.iter().copied(), taken as i64 + 1, stride);
    }
}
