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
//! - Reduce is the same, but that only the root collects; among three ranks at most, the root folds alone what the others
//!   stage as in a gather. Reduce-scatter has nothing to collect, and a slot has an area
//!   for each rank's part. All-gather folds nothing: a slot has a segment of one's own input, and everyone copies out all
//!   others' instead; all-to-all likewise, with an area for each rank's part. In a scan rank r folds part r of all
//!   prefixes (`prefix`) and stores each where its rank has staged that part; everyone collects from its own slot.
//! - In a broadcast only the root stages, when all have copied out what lay in the slot before; its flag says how much it
//!   has staged, the others' how much they have copied out. Scatter is the same with an area for each rank's part. In a
//!   gather all but the root stage, and the root's flag says how much it has copied out.
//! - Elements moved by a rank, of a length N over n ranks: all-reduce copies in N (n-1)/n, folds N/n from each of n
//!   ranks, copies out N (n-1)/n, and so do a reduce's root and a scan; reduce-scatter the first two of these; all-gather
//!   copies in N/n and out N; all-to-all both N (n-1)/n; broadcast copies in N at the root and out N elsewhere; scatter
//!   copies in N (n-1)/n at the root and out N/n elsewhere, gather in N/n and out N (n-1)/n.
//! - Fold order: 0, 1, .., n-1 in every element.
//! - Chosen: where some rank's buffer is private memory of a process, above the size that the entry record carries.

mod rooted;
mod together;

use super::segments::{marks, repeat, turns};
use super::{Access, Buffer, Collective, Layout, Place, Program, Resources, Schedule, Step, partition};

/// Elements of a slot, unless asked otherwise: 32 KiB of f32.
pub const SEGMENT: usize = 8 * 1024;

/// The same for scans, which have partials beside the slots.
pub const SCAN_SEGMENT: usize = 5 * 1024;

/// How many slots a rank has, unless asked otherwise, and the least.
pub const DEPTH: usize = 3;

/// Up to how many ranks a reduce's root folds alone: it then moves no more than if the others folded their parts.
const FEW: usize = 3;

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
            Collective::Reduce if layout.world() <= FEW => call.gather(self.collective),
            Collective::Reduce => call.all_reduce(Some(layout.root())),
            Collective::Scan | Collective::ExclusiveScan => call.scan(self.collective),
            Collective::ReduceScatter => call.reduce_scatter(),
            Collective::AllGather => call.all_gather(),
            Collective::AllToAll => call.all_to_all(),
            Collective::Broadcast => call.broadcast(),
            Collective::Scatter => call.scatter(),
            Collective::Gather => call.gather(self.collective),
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
}
