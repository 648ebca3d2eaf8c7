// SPDX-License-Identifier: MPL-2.0
//! The language of programs: buffers, places, steps, and what a schedule declares beside them.

/// Memory that a program names. Offsets and lengths are in elements of the call's type, in `Partial` of its
/// accumulator type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Buffer {
    /// A rank's contribution. Never written, except where it aliases an output in place. Peers may read it under
    /// [`Access::Direct`] and [`Access::Read`].
    Input,
    /// A rank's result. Peers may read and write it under [`Access::Direct`], and read it under [`Access::Read`].
    Output,
    /// Shared memory of a rank; anyone may read and write it.
    Scratch,
    /// Rotating shared memory of a rank: slot (i + segment) mod depth, where `segment` counts the turns of the
    /// enclosing `Repeat` (0 outside); with [`Entry::Carries`], (i + call) mod depth. Anyone may read and write it.
    Slot(u32),
    /// The same rotation, of accumulators: a fold into it neither rounds nor divides.
    Partial(u32),
}

/// A run of elements: in turn `segment` of a `Repeat` it begins at `offset + stride * segment`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// Whose memory.
    pub rank: usize,
    /// Which memory.
    pub buffer: Buffer,
    /// The first element.
    pub offset: usize,
    /// How far the first element moves with each turn of a `Repeat`.
    pub stride: usize,
}

impl Place {
    /// `buffer` of `rank` from `offset`, the same in every turn.
    pub const fn new(rank: usize, buffer: Buffer, offset: usize) -> Self {
        Place { rank, buffer, offset, stride: 0 }
    }

    /// The same, moving by `stride` with each turn.
    #[must_use]
    pub const fn stride(mut self, stride: usize) -> Self {
        self.stride = stride;
        self
    }
}

/// One step of a rank's program.
///
/// Flags are counters, one a writer and index: rank w's flag f is written by w alone, and only grows. Values are
/// relative to the call's base, and in a `Repeat` they grow by `stride` with each turn.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// Copies `len` elements to each of `to`, bit for bit. `from` and `to` hold elements, not accumulators.
    Copy {
        /// The source.
        from: Place,
        /// The destinations; disjoint from the source and from one another.
        to: Vec<Place>,
        /// Elements.
        len: usize,
    },
    /// Reads `len` elements of each of `from`, folds them in that order in the accumulator type, and stores the result
    /// to each of `to`: into `Partial` as it is; elsewhere finished, that is divided if the operation is `Avg`, rounded
    /// once, NaN made canonical. A destination may be exactly a source, else they are disjoint.
    Fold {
        /// The sources, in the order of the fold; at least one.
        from: Vec<Place>,
        /// The destinations.
        to: Vec<Place>,
        /// Elements.
        len: usize,
    },
    /// Raises this rank's flag `flag` to `value + stride * segment`: what this rank did before is visible to whoever
    /// waits for it.
    Signal {
        /// Which of this rank's flags.
        flag: u32,
        /// The ranks that may wait for it.
        to: Vec<usize>,
        /// The value in turn 0; at least 1.
        value: i64,
        /// The growth a turn.
        stride: i64,
    },
    /// Waits until flag `flag` of `rank` is at least `value + stride * segment`. Values below 1 are always reached.
    Wait {
        /// The writer of the flag.
        rank: usize,
        /// Which of its flags.
        flag: u32,
        /// The value in turn 0.
        value: i64,
        /// The growth a turn.
        stride: i64,
    },
    /// `body`, `segments` times, with `segment` = 0, 1, .. Does not nest.
    Repeat {
        /// How often.
        segments: usize,
        /// What.
        body: Vec<Step>,
    },
}

/// What one rank does in a call.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Program {
    /// The steps, in order.
    pub steps: Vec<Step>,
}

/// What a schedule must reach of other ranks.
/// Each runs wherever those before it do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// Peers' inputs and outputs: all ranks' buffers must be addressable by all.
    Direct,
    /// Peers' inputs and outputs are read, and not written: also private memory of processes, where they may read each
    /// other's.
    Read,
    /// Only scratch, slots and partials of peers; inputs and outputs are each rank's own. Runs on any memory.
    Staged,
}

/// How a call begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Entry {
    /// Every rank passes the entry, which all ranks must have reached, before its first step.
    Barrier,
    /// The program begins at once, and its first signal and waits are the entry: the slots lie in the entry record, of
    /// which there are `depth`, used in rotation. The program is `Copy`s into the rank's own slot, one `Signal` to
    /// all, a `Wait` for each other rank, and then steps that read slots and touch nothing else of peers.
    Carries,
}

/// The shared memory and flags that a schedule needs, the same on every rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Resources {
    /// Elements of `Scratch` a rank.
    pub scratch: usize,
    /// Elements of each `Slot`.
    pub slot: usize,
    /// Accumulators of each `Partial`.
    pub partial: usize,
    /// How many `Slot`s and `Partial`s there are. At least 1 where there are any.
    pub depth: usize,
    /// Flags a rank.
    pub flags: u32,
    /// How far the base of all flags advances with the call: at least the largest value any flag reaches.
    pub advance: u64,
}

impl Program {
    /// A program without steps.
    pub const fn new() -> Self {
        Program { steps: Vec::new() }
    }

    /// Adds a [`Step::Copy`], unless it has no elements or no destinations.
    pub fn copy(&mut self, from: Place, to: impl IntoIterator<Item = Place>, len: usize) {
        let to: Vec<Place> = to.into_iter().collect();
        if len > 0 && !to.is_empty() {
            self.steps.push(Step::Copy { from, to, len });
        }
    }

    /// Adds a [`Step::Fold`], unless it has no elements.
    pub fn fold(&mut self, from: impl IntoIterator<Item = Place>, to: impl IntoIterator<Item = Place>, len: usize) {
        if len > 0 {
            self.steps.push(Step::Fold { from: from.into_iter().collect(), to: to.into_iter().collect(), len });
        }
    }

    /// Adds a [`Step::Signal`], unless there is nobody to wait for it.
    pub fn signal(&mut self, flag: u32, to: impl IntoIterator<Item = usize>, value: i64, stride: i64) {
        let to: Vec<usize> = to.into_iter().collect();
        if !to.is_empty() {
            self.steps.push(Step::Signal { flag, to, value, stride });
        }
    }

    /// Adds a [`Step::Wait`].
    pub fn wait(&mut self, rank: usize, flag: u32, value: i64, stride: i64) {
        self.steps.push(Step::Wait { rank, flag, value, stride });
    }

    /// Adds `body`, `segments` times: nothing for none, its steps themselves for one (turn 0 is where they stand
    /// anyway), a [`Step::Repeat`] for more. `body` contains no `Repeat`.
    pub fn repeat(&mut self, segments: usize, body: Program) {
        match segments {
            0 => {}
            1 => self.steps.extend(body.steps),
            _ if body.steps.is_empty() => {}
            _ => self.steps.push(Step::Repeat { segments, body: body.steps }),
        }
    }
}
