// SPDX-License-Identifier: MPL-2.0
//! Private memory of processes, through shared slots that stay in cache, segment by segment.
//!
//! All-reduce of four ranks; one segment, as rank 1 sees it. A slot has room for the segment: at the others' parts lies
//! what rank 1 contributes to them, at its own part the result that it folds for all.
//!
//! ```text
//!              input              slot
//!   rank 1   [a1│b1│c1│d1] ──(1)─▶ [a1│  │c1│d1]      (1) stage: copy in what the others fold
//!                │                     ▲              (2) fold part b of its own input and of the others' slots
//!                └────────(2)─▶ b ─────┘                  into its output and its slot: b = ((b0 + b1) + b2) + b3
//!              output           ▼
//!   rank 1   [a │b │c │d ] ◀──(3)── others' slots     (3) collect: copy out what the others have folded
//! ```
//!
//! Segments overlap, so that a rank hardly waits. With a depth of three:
//!
//! ```text
//!   turn k    wait for turn k-1 of all ── fold segment k ── signal ── collect segment k-1 ── stage segment k+2
//! ```
//!
//! - Steps: a rank's one flag says how many segments it has folded, and one more. The first signal says that segment 0
//!   is staged; the one after fold k says also that segment k + 1 is staged and segment k - 2 collected, since these
//!   came before. One round a segment, with the time of a collect and a stage between signal and wait.
//! - Why no slot is used too soon: turn k stages segment k + depth - 1 over segment k - 1, which all have folded, as the
//!   turn's wait has seen; and fold k stores its result over that of segment k - depth, which all have collected before
//!   fold k - 1 if the depth is at least three. (Parts lie at the same place in all segments.)
//! - Reduce is the same, but that only the root collects. Reduce-scatter has nothing to collect, and a slot has an area
//!   for each rank's part. All-gather folds nothing: a slot has a segment of one's own input, and everyone copies out all
//!   others' instead; all-to-all likewise, with an area for each rank's part. In a scan rank r folds part r of all
//!   prefixes (`prefix`) and stores each where its rank has staged that part; everyone collects from
//!   its own slot.
//! - In a broadcast only the root stages, when all have copied out what lay in the slot before; its flag says how much it
//!   has staged, the others' how much they have copied out. Scatter is the same with an area for each rank's part. In a
//!   gather all but the root stage, and the root's flag says how much it has copied out.
//! - Elements moved by a rank, of a length N over n ranks: all-reduce copies in N (n-1)/n, folds N/n from each of n
//!   ranks, copies out N (n-1)/n, and so do a reduce's root and a scan; reduce-scatter the first two of these; all-gather
//!   copies in N/n and out N; all-to-all both N (n-1)/n; broadcast copies in N at the root and out N elsewhere; scatter
//!   copies in N (n-1)/n at the root and out N/n elsewhere, gather in N/n and out N (n-1)/n.
//! - Fold order: 0, 1, .., n-1 in every element.
//! - Chosen: where some rank's buffer is private memory of a process, above the size that the entry record carries.

use std::ops::Range;

use super::prefix::prefixes;
use super::segments::{len_in, marks, repeat, turns};
use super::{Access, Buffer, Collective, Layout, Place, Program, Resources, Schedule, Step, partition};

/// Elements of a slot, unless asked otherwise: 32 KiB of f32.
pub const SEGMENT: usize = 8 * 1024;

/// The same for scans, which have partials beside the slots.
pub const SCAN_SEGMENT: usize = 5 * 1024;

/// How many slots a rank has, unless asked otherwise, and the least.
pub const DEPTH: usize = 3;

/// A rank's one flag.
const PROGRESS: u32 = 0;

/// The algorithms of this file.
#[derive(Debug, Clone, Copy)]
pub struct Staged {
    collective: Collective,
    segment: usize,
    depth: usize,
}

impl Staged {
    fn new(collective: Collective, segment: usize, depth: usize) -> Self {
        Staged { collective, segment: segment.max(1), depth: depth.max(DEPTH) }
    }
}

/// All-reduce in segments of `segment` elements through `depth` slots (at least three).
pub fn all_reduce(segment: usize, depth: usize) -> Staged {
    Staged::new(Collective::AllReduce, segment, depth)
}

/// Reduce-scatter through `depth` slots (at least three) of `segment` elements, dealt evenly to the ranks' parts.
pub fn reduce_scatter(segment: usize, depth: usize) -> Staged {
    Staged::new(Collective::ReduceScatter, segment, depth)
}

/// All-gather in segments of `segment` elements of each input, through `depth` slots (at least three).
pub fn all_gather(segment: usize, depth: usize) -> Staged {
    Staged::new(Collective::AllGather, segment, depth)
}

/// Broadcast in segments of `segment` elements through `depth` slots (at least three).
pub fn broadcast(segment: usize, depth: usize) -> Staged {
    Staged::new(Collective::Broadcast, segment, depth)
}

/// Reduce in segments of `segment` elements through `depth` slots (at least three).
pub fn reduce(segment: usize, depth: usize) -> Staged {
    Staged::new(Collective::Reduce, segment, depth)
}

/// Scatter through `depth` slots (at least three) of `segment` elements, dealt evenly to the ranks' parts.
pub fn scatter(segment: usize, depth: usize) -> Staged {
    Staged::new(Collective::Scatter, segment, depth)
}

/// Gather in segments of `segment` elements of each input, through `depth` slots (at least three).
pub fn gather(segment: usize, depth: usize) -> Staged {
    Staged::new(Collective::Gather, segment, depth)
}

/// All-to-all through `depth` slots (at least three) of `segment` elements, dealt evenly to the ranks' parts.
pub fn all_to_all(segment: usize, depth: usize) -> Staged {
    Staged::new(Collective::AllToAll, segment, depth)
}

/// Scan in segments of `segment` elements through `depth` slots (at least three).
pub fn scan(segment: usize, depth: usize) -> Staged {
    Staged::new(Collective::Scan, segment, depth)
}

/// Exclusive scan in segments of `segment` elements through `depth` slots (at least three).
pub fn exclusive_scan(segment: usize, depth: usize) -> Staged {
    Staged::new(Collective::ExclusiveScan, segment, depth)
}

impl Schedule for Staged {
    fn name(&self) -> &str {
        "staged"
    }

    fn collective(&self) -> Collective {
        self.collective
    }

    fn access(&self) -> Access {
        Access::Staged
    }

    fn resources(&self, layout: &Layout) -> Resources {
        let longest = match self.collective {
            Collective::AllToAll => layout.largest_pair(),
            _ => layout.largest(),
        };
        let segment = self.length(layout);
        let partial = match self.collective.is_scan() && layout.world() > 1 {
            true => partition::part(segment, layout.world(), 0).len(),
            false => 0,
        };
        Resources {
            slot: segment * if self.has_areas() { layout.world() } else { 1 },
            partial,
            depth: self.depth,
            flags: 1,
            advance: turns(longest, segment) as u64 + 1,
            ..Resources::default()
        }
    }

    fn program(&self, rank: usize, layout: &Layout) -> Program {
        let call = Call { rank, layout, segment: self.length(layout), depth: self.depth };
        match self.collective {
            _ if layout.world() == 1 => call.alone(self.collective),
            Collective::AllReduce => call.all_reduce(None),
            Collective::Reduce => call.all_reduce(Some(layout.root())),
            Collective::Scan | Collective::ExclusiveScan => call.scan(self.collective),
            Collective::ReduceScatter => call.reduce_scatter(),
            Collective::AllGather => call.all_gather(),
            Collective::AllToAll => call.all_to_all(),
            Collective::Broadcast => call.broadcast(),
            Collective::Scatter => call.scatter(),
            Collective::Gather => call.gather(),
            Collective::Barrier => Program::new(),
        }
    }
}

impl Staged {
    /// Whether a slot has an area for each rank's part.
    fn has_areas(&self) -> bool {
        matches!(self.collective, Collective::ReduceScatter | Collective::Scatter | Collective::AllToAll)
    }

    /// How much of a part is one segment: a rank's share of the slot where that has areas. Where ranks deal each segment
    /// among them, the length at which as many as are needed come out even, so that they have even work in all of them.
    fn length(&self, layout: &Layout) -> usize {
        match self.collective {
            Collective::AllReduce | Collective::Reduce | Collective::Scan | Collective::ExclusiveScan => {
                let len = layout.count(0);
                len.div_ceil(turns(len, self.segment).max(1)).max(1)
            }
            _ if self.has_areas() => (self.segment / layout.world()).max(1),
            _ => self.segment,
        }
    }
}

/// Adds the steps of one kind for one segment to a program.
type Steps<'a> = &'a dyn Fn(&mut Program, usize);

/// What a rank does with a segment.
struct Work<'a> {
    stage: Steps<'a>,
    /// Or copies out, where nothing is folded.
    fold: Steps<'a>,
    collect: Option<Steps<'a>>,
}

/// One rank's side of a call.
struct Call<'a> {
    rank: usize,
    layout: &'a Layout,
    segment: usize,
    depth: usize,
}

impl Call<'_> {
    /// Element `offset` of segment `turn` of the input, where the part that is cut into segments begins at `part`.
    fn input(&self, part: usize, turn: usize, offset: usize) -> Place {
        let begin = part + turn * self.segment + offset;
        Place::new(self.rank, Buffer::Input, begin).stride(self.segment)
    }

    /// The same of the output.
    fn output(&self, part: usize, turn: usize, offset: usize) -> Place {
        Place { buffer: Buffer::Output, ..self.input(part, turn, offset) }
    }

    /// Element `offset` of the slot in which `rank` holds segment `turn`.
    fn slot(&self, rank: usize, turn: usize, offset: usize) -> Place {
        Place::new(rank, Buffer::Slot((turn % self.depth) as u32), offset)
    }

    /// The turns in which all ranks stage: as many as the longest part of any has segments, for parts of these lengths.
    fn pipeline(&self, longest: usize, lens: impl Iterator<Item = usize>, work: Work) -> Program {
        let segments = turns(longest, self.segment);
        let ahead = self.depth - 1;
        let mut program = Program::new();
        if segments == 0 {
            return program;
        }
        (work.stage)(&mut program, 0);
        program.signal(PROGRESS, self.layout.others(self.rank), 1, 0);
        (1..ahead.min(segments)).for_each(|segment| (work.stage)(&mut program, segment));

        // Collecting is a turn late, staging some turns early, and so are their marks.
        let lag = usize::from(work.collect.is_some());
        let marks = lens.flat_map(|len| marks(len, self.segment));
        let marks = marks.flat_map(|mark| [mark.saturating_sub(ahead), mark, mark + lag]);
        let last = segments + lag - 1;
        repeat(&mut program, last + 1, marks.chain([lag, last]), |turn| {
            let mut body = Program::new();
            for other in self.layout.others(self.rank) {
                body.wait(other, PROGRESS, turn as i64 + 1, 1);
            }
            if turn < segments {
                (work.fold)(&mut body, turn);
            }
            if turn < last {
                body.signal(PROGRESS, self.layout.others(self.rank), turn as i64 + 2, 1);
            }
            if let Some(collect) = work.collect.filter(|_| turn > 0) {
                collect(&mut body, turn - 1);
            }
            if turn + ahead < segments {
                (work.stage)(&mut body, turn + ahead);
            }
            body
        });
        // Nobody reads a rank's own buffers: with nothing left to do, it need not wait.
        while matches!(program.steps.last(), Some(Step::Wait { .. })) {
            program.steps.pop();
        }
        program
    }

    /// A world of one: its fold or its copy.
    fn alone(&self, collective: Collective) -> Program {
        let (input, output) = (Place::new(0, Buffer::Input, 0), Place::new(0, Buffer::Output, 0));
        let mut program = Program::new();
        if collective.folds() {
            program.fold([input], [output], self.layout.output_len(collective, 0));
        } else if !self.layout.is_in_place() {
            program.copy(input, [output], self.layout.output_len(collective, 0));
        }
        program
    }

    /// Rank `r`'s part of a segment of what ranks deal among them. The last segment may be shorter. Its parts begin where
    /// they begin in the others all the same: dealt anew, what a rank stages could fall on a result that others are
    /// still collecting from the same slot.
    fn part(&self, segment: usize, r: usize) -> Range<usize> {
        let whole = partition::part(self.segment, self.layout.world(), r);
        let end = len_in(segment, self.layout.count(r), self.segment);
        whole.start.min(end)..whole.end.min(end)
    }

    /// A segment without the rank's own part: what comes before it, and what after.
    fn others_parts(&self, segment: usize) -> [Range<usize>; 2] {
        let own = self.part(segment, self.rank);
        [0..own.start, own.end..len_in(segment, self.layout.count(self.rank), self.segment)]
    }

    /// All-reduce, or reduce if only one rank is to have the result.
    fn all_reduce(&self, only: Option<usize>) -> Program {
        let (rank, n, len) = (self.rank, self.layout.world(), self.layout.count(self.rank));
        let stage = |body: &mut Program, segment| {
            for others in self.others_parts(segment) {
                let to = self.slot(rank, segment, others.start);
                body.copy(self.input(0, segment, others.start), [to], others.len());
            }
        };
        let fold = |body: &mut Program, segment| {
            let own = self.part(segment, rank);
            let from = (0..n).map(|r| match r == rank {
                true => self.input(0, segment, own.start),
                false => self.slot(r, segment, own.start),
            });
            let output = only.is_none_or(|only| only == rank).then(|| self.output(0, segment, own.start));
            let slot = (only != Some(rank)).then(|| self.slot(rank, segment, own.start));
            body.fold(from, output.into_iter().chain(slot), own.len());
        };
        let collect = |body: &mut Program, segment| {
            for other in self.layout.others(rank).filter(|_| only.is_none_or(|only| only == rank)) {
                let result = self.part(segment, other);
                let to = self.output(0, segment, result.start);
                body.copy(self.slot(other, segment, result.start), [to], result.len());
            }
        };
        self.pipeline(len, [len].into_iter(), Work { stage: &stage, fold: &fold, collect: Some(&collect) })
    }

    fn scan(&self, collective: Collective) -> Program {
        let (rank, n, len) = (self.rank, self.layout.world(), self.layout.count(self.rank));
        let exclusive = collective == Collective::ExclusiveScan;
        let stage = |body: &mut Program, segment| {
            // The last rank's contribution is in no exclusive prefix.
            for others in self.others_parts(segment).into_iter().filter(|_| !exclusive || rank + 1 < n) {
                let to = self.slot(rank, segment, others.start);
                body.copy(self.input(0, segment, others.start), [to], others.len());
            }
        };
        let fold = |body: &mut Program, segment| {
            let own = self.part(segment, rank);
            let place = |r: usize, of_own: Place| if r == rank { of_own } else { self.slot(r, segment, own.start) };
            let input = |r| place(r, self.input(0, segment, own.start));
            let output = |r| place(r, self.output(0, segment, own.start));
            prefixes(body, collective, (rank, n), input, output, own.len());
        };
        let collect = |body: &mut Program, segment| {
            for others in self.others_parts(segment).into_iter().filter(|_| !exclusive || rank > 0) {
                let to = self.output(0, segment, others.start);
                body.copy(self.slot(rank, segment, others.start), [to], others.len());
            }
        };
        self.pipeline(len, [len].into_iter(), Work { stage: &stage, fold: &fold, collect: Some(&collect) })
    }

    fn reduce_scatter(&self) -> Program {
        let (rank, layout, n) = (self.rank, self.layout, self.layout.world());
        let len = |segment, r| len_in(segment, layout.count(r), self.segment);
        let stage = |body: &mut Program, segment| {
            for other in layout.others(rank) {
                let to = self.slot(rank, segment, other * self.segment);
                body.copy(self.input(layout.offset(other), segment, 0), [to], len(segment, other));
            }
        };
        let fold = |body: &mut Program, segment| {
            let from = (0..n).map(|r| match r == rank {
                true => self.input(layout.offset(rank), segment, 0),
                false => self.slot(r, segment, rank * self.segment),
            });
            body.fold(from, [self.output(0, segment, 0)], len(segment, rank));
        };
        self.pipeline(
            layout.largest(),
            (0..n).map(|r| layout.count(r)),
            Work { stage: &stage, fold: &fold, collect: None },
        )
    }

    fn all_gather(&self) -> Program {
        let (rank, layout, n) = (self.rank, self.layout, self.layout.world());
        let len = |segment, r| len_in(segment, layout.count(r), self.segment);
        let stage = |body: &mut Program, segment| {
            let own = (!layout.is_in_place()).then(|| self.output(layout.offset(rank), segment, 0));
            let to = own.into_iter().chain([self.slot(rank, segment, 0)]);
            body.copy(self.input(0, segment, 0), to, len(segment, rank));
        };
        let copy_out = |body: &mut Program, segment| {
            for other in layout.others(rank) {
                let to = self.output(layout.offset(other), segment, 0);
                body.copy(self.slot(other, segment, 0), [to], len(segment, other));
            }
        };
        self.pipeline(
            layout.largest(),
            (0..n).map(|r| layout.count(r)),
            Work { stage: &stage, fold: &copy_out, collect: None },
        )
    }

    fn all_to_all(&self) -> Program {
        let (rank, layout, n) = (self.rank, self.layout, self.layout.world());
        let len = |segment, from, to| len_in(segment, layout.pair(from, to), self.segment);
        let stage = |body: &mut Program, segment| {
            for to in layout.others(rank) {
                let from = self.input(layout.input_offset(rank, to), segment, 0);
                body.copy(from, [self.slot(rank, segment, to * self.segment)], len(segment, rank, to));
            }
        };
        let copy_out = |body: &mut Program, segment| {
            for from in layout.others(rank) {
                let to = self.output(layout.output_offset(from, rank), segment, 0);
                body.copy(self.slot(from, segment, rank * self.segment), [to], len(segment, from, rank));
            }
            if !layout.is_in_place() {
                let to = self.output(layout.output_offset(rank, rank), segment, 0);
                body.copy(self.input(layout.input_offset(rank, rank), segment, 0), [to], len(segment, rank, rank));
            }
        };
        let lens = (0..n).flat_map(|r| [layout.pair(rank, r), layout.pair(r, rank)]);
        self.pipeline(layout.largest_pair(), lens, Work { stage: &stage, fold: &copy_out, collect: None })
    }

    fn broadcast(&self) -> Program {
        let (rank, root, len) = (self.rank, self.layout.root(), self.layout.count(self.rank));
        let (turns, depth) = (turns(len, self.segment), self.depth);
        // The first slots are free, and nobody waits for room after the last ones.
        let role = if rank == root { depth } else { turns.saturating_sub(depth) };
        let marks = marks(len, self.segment).into_iter().chain([role]);
        let mut program = Program::new();
        repeat(&mut program, turns, marks, |turn| {
            let mut body = Program::new();
            let segment = len_in(turn, len, self.segment);
            if rank == root {
                for other in self.layout.others(rank).filter(|_| turn >= depth) {
                    body.wait(other, PROGRESS, (turn - depth) as i64 + 1, 1);
                }
                let own = (!self.layout.is_in_place()).then(|| self.output(0, turn, 0));
                body.copy(self.input(0, turn, 0), own.into_iter().chain([self.slot(rank, turn, 0)]), segment);
                body.signal(PROGRESS, self.layout.others(rank), turn as i64 + 1, 1);
            } else {
                body.wait(root, PROGRESS, turn as i64 + 1, 1);
                body.copy(self.slot(root, turn, 0), [self.output(0, turn, 0)], segment);
                if turn + depth < turns {
                    body.signal(PROGRESS, [root], turn as i64 + 1, 1);
                }
            }
            body
        });
        program
    }
    fn scatter(&self) -> Program {
        let (rank, layout, root, depth) = (self.rank, self.layout, self.layout.root(), self.depth);
        let len = |turn, r| len_in(turn, layout.count(r), self.segment);
        let turns_of = |r| turns(layout.count(r), self.segment);
        let mut program = Program::new();
        if rank != root {
            let last = turns_of(rank).saturating_sub(depth);
            repeat(
                &mut program,
                turns_of(rank),
                marks(layout.count(rank), self.segment).into_iter().chain([last]),
                |turn| {
                    let mut body = Program::new();
                    body.wait(root, PROGRESS, turn as i64 + 1, 1);
                    body.copy(self.slot(root, turn, rank * self.segment), [self.output(0, turn, 0)], len(turn, rank));
                    body.signal(PROGRESS, (turn < last).then_some(root), turn as i64 + 1, 1);
                    body
                },
            );
            return program;
        }
        let marks = (0..layout.world()).flat_map(|r| marks(layout.count(r), self.segment)).chain([depth]);
        repeat(&mut program, turns(layout.largest(), self.segment), marks, |turn| {
            let mut body = Program::new();
            for other in layout.others(root) {
                if (depth..turns_of(other)).contains(&turn) {
                    body.wait(other, PROGRESS, (turn - depth) as i64 + 1, 1);
                }
                let to = self.slot(root, turn, other * self.segment);
                body.copy(self.input(layout.offset(other), turn, 0), [to], len(turn, other));
            }
            body.signal(PROGRESS, layout.others(root), turn as i64 + 1, 1);
            if !layout.is_in_place() {
                body.copy(self.input(layout.offset(root), turn, 0), [self.output(0, turn, 0)], len(turn, root));
            }
            body
        });
        program
    }

    fn gather(&self) -> Program {
        let (rank, layout, root, depth) = (self.rank, self.layout, self.layout.root(), self.depth);
        let len = |turn, r| len_in(turn, layout.count(r), self.segment);
        let turns_of = |r| turns(layout.count(r), self.segment);
        let mut program = Program::new();
        if rank != root {
            repeat(
                &mut program,
                turns_of(rank),
                marks(layout.count(rank), self.segment).into_iter().chain([depth]),
                |turn| {
                    let mut body = Program::new();
                    if turn >= depth {
                        body.wait(root, PROGRESS, (turn - depth) as i64 + 1, 1);
                    }
                    body.copy(self.input(0, turn, 0), [self.slot(rank, turn, 0)], len(turn, rank));
                    body.signal(PROGRESS, [root], turn as i64 + 1, 1);
                    body
                },
            );
            return program;
        }
        // Those that will use the slot again wait for the root.
        let waiting = |turn, r| turn + depth < turns_of(r);
        let lasts = (0..layout.world()).map(|r| turns_of(r).saturating_sub(depth));
        let marks = (0..layout.world()).flat_map(|r| marks(layout.count(r), self.segment)).chain(lasts);
        repeat(&mut program, turns(layout.largest(), self.segment), marks, |turn| {
            let mut body = Program::new();
            for other in layout.others(root).filter(|&other| turn < turns_of(other)) {
                body.wait(other, PROGRESS, turn as i64 + 1, 1);
                let to = self.output(layout.offset(other), turn, 0);
                body.copy(self.slot(other, turn, 0), [to], len(turn, other));
            }
            body.signal(PROGRESS, layout.others(root).filter(|&other| waiting(turn, other)), turn as i64 + 1, 1);
            if !layout.is_in_place() {
                body.copy(self.input(0, turn, 0), [self.output(layout.offset(root), turn, 0)], len(turn, root));
            }
            body
        });
        program
    }
}
