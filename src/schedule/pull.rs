// SPDX-License-Identifier: MPL-2.0
//! One copy into memory of one's own: a rank reads its peers' buffers, and writes none but its own.
//!
//! All-reduce of two ranks; each input is two parts of two segments, as rank 0 sees it:
//!
//! ```text
//!             input            output
//!   rank 0   [a0 │b0 ] ──(1)─▶ [a  │   ]      (1) fold segment k of part a of all inputs into its own output
//!   rank 1   [a1 │b1 ] ───┘    [   │b ]─┐     (2) collect segment k - 1 of part b from the rank that has folded it
//!                        [a  │b ] ◀─(2)─┘
//! ```
//!
//! - Steps: a rank's one flag says how many segments it has folded, and when everything has been done, one more: the
//!   exit, for which all wait whose buffers others read. Collecting is a turn late, so that a rank hardly waits.
//! - A reduce is the same, but that others than the root fold into slots of their own, which the root collects: their
//!   fold of segment k waits until segment k - 3, in the same slot, has been collected. Nothing is collected by the rest: reduce-scatter, all-gather, broadcast, scatter, gather and all-to-all read what they need, and
//!   leave. In place, an all-to-all goes through scratch of the rank's own: what is read in a turn takes the place of
//!   what was sent when the other has read that.
//! - Elements moved by a rank, of a length N over n ranks: all-reduce reads N and then N (n-1)/n, and writes N; reduce
//!   reads N, its root N (n-1)/n more; broadcast reads and writes N; all else as [`direct`](super::direct).
//! - Fold order: 0, 1, .., n-1 in every element.
//! - In place: a rank writes its own part when it alone has it to read, and other parts when their ranks have said that
//!   they have folded them.
//! - Chosen: where buffers are private memory of processes that may read one another's, above the size that the entry
//!   record carries. A peer's buffer is then copied piece by piece into the cache by the kernel, and folded from there.
//!   (Peers may not write: one that was stopped in a write could go on with it when the buffer's rank has given up.)

use super::segments::{len_in, marks, repeat, turns};
use super::{Access, Buffer, Collective, Layout, Place, Program, Resources, Schedule};

/// Elements of a segment, unless asked otherwise: 32 KiB of f32.
pub const SEGMENT: usize = 8 * 1024;

/// How many slots a rank has in a reduce: one is folded into while the root collects another and announces a third.
const DEPTH: usize = 3;

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

/// Rank r folds part r of all inputs into its output, from which the others copy it, in segments of `segment` elements (at
/// least one).
pub fn all_reduce(segment: usize) -> Pull {
    Pull::new(Collective::AllReduce, segment)
}

/// Rank r folds part r of all inputs into slots of `segment` elements (at least one), from which the root copies it.
pub fn reduce(segment: usize) -> Pull {
    Pull::new(Collective::Reduce, segment)
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
            Collective::Reduce => {
                let longest = layout.chunk(self.collective, 0).len();
                Resources { slot: longest.min(self.segment), depth: DEPTH, ..needs }
            }
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
            Collective::AllReduce => self.all_reduce(rank, layout, &mut program),
            Collective::Reduce => self.reduce(rank, layout, &mut program),
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
            Collective::Gather => reader == layout.root(),
            _ => true,
        }
    }

    /// How often flags are raised before the end.
    fn turns(&self, layout: &Layout) -> usize {
        match self.collective {
            _ if layout.world() == 1 => 0,
            Collective::AllReduce | Collective::Reduce => turns(layout.chunk(self.collective, 0).len(), self.segment),
            Collective::AllToAll if layout.is_in_place() => turns(layout.largest_pair(), self.area(layout)),
            _ => 0,
        }
    }

    /// Elements of scratch for one other rank's part.
    fn area(&self, layout: &Layout) -> usize {
        (self.segment / layout.world()).max(1)
    }

    /// Elements of segment `turn` of part `r`, and where in the whole it begins.
    fn piece(&self, layout: &Layout, r: usize, turn: usize) -> (usize, usize) {
        let part = layout.chunk(self.collective, r);
        (len_in(turn, part.len(), self.segment), part.start + turn * self.segment)
    }

    /// The turns at which a program changes: where a rank's part ends, now or when it is collected.
    fn marks(&self, layout: &Layout) -> impl Iterator<Item = usize> {
        let ends = [0, layout.world() - 1].map(|r| marks(layout.chunk(self.collective, r).len(), self.segment));
        ends.into_iter().flatten().flat_map(|mark| [mark, mark + 1]).chain([1])
    }

    fn all_reduce(&self, rank: usize, layout: &Layout, program: &mut Program) {
        let place = |r, buffer, at| Place::new(r, buffer, at).stride(self.segment);
        let fold = |body: &mut Program, turn| {
            let (len, at) = self.piece(layout, rank, turn);
            let inputs = (0..layout.world()).map(|r| place(r, Buffer::Input, at));
            body.fold(inputs, [place(rank, Buffer::Output, at)], len);
        };
        let all = self.turns(layout);
        if layout.world() == 1 {
            let whole = Place::new(0, Buffer::Input, 0);
            return program.fold([whole], [Place { buffer: Buffer::Output, ..whole }], layout.count(0));
        }
        repeat(program, all + 1, self.marks(layout).chain([all]), |turn| {
            let mut body = Program::new();
            if turn < all {
                fold(&mut body, turn);
                body.signal(PROGRESS, layout.others(rank), turn as i64 + 1, 1);
            }
            for other in layout.others(rank).filter(|_| turn > 0) {
                let (len, at) = self.piece(layout, other, turn - 1);
                if len > 0 {
                    body.wait(other, PROGRESS, turn as i64, 1);
                }
                body.copy(place(other, Buffer::Output, at), [place(rank, Buffer::Output, at)], len);
            }
            body
        });
    }

    /// The root folds segment k, raises its flag to k + 1, and collects segment k - 1: at k + 3 segment k is collected.
    fn reduce(&self, rank: usize, layout: &Layout, program: &mut Program) {
        let root = layout.root();
        let place = |r, buffer, at| Place::new(r, buffer, at).stride(self.segment);
        let slot = |r, turn: usize| Place::new(r, Buffer::Slot((turn % DEPTH) as u32), 0);
        let all = self.turns(layout);
        if layout.world() == 1 {
            let whole = Place::new(0, Buffer::Input, 0);
            return program.fold([whole], [Place { buffer: Buffer::Output, ..whole }], layout.count(0));
        }
        let lag = usize::from(rank == root);
        repeat(program, all + lag, self.marks(layout).chain([DEPTH, all]), |turn| {
            let mut body = Program::new();
            if turn < all {
                let (len, at) = self.piece(layout, rank, turn);
                let inputs = (0..layout.world()).map(|r| place(r, Buffer::Input, at));
                if rank != root && turn >= DEPTH {
                    body.wait(root, PROGRESS, (turn - DEPTH) as i64 + 3, 1);
                }
                body.fold(inputs, [if rank == root { place(rank, Buffer::Output, at) } else { slot(rank, turn) }], len);
                body.signal(PROGRESS, layout.others(rank), turn as i64 + 1, 1);
            }
            if rank == root && turn > 0 {
                for other in layout.others(rank) {
                    let (len, at) = self.piece(layout, other, turn - 1);
                    if len > 0 {
                        body.wait(other, PROGRESS, turn as i64, 1);
                    }
                    body.copy(slot(other, turn - 1), [place(rank, Buffer::Output, at)], len);
                }
            }
            body
        });
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
