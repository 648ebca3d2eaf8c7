// SPDX-License-Identifier: MPL-2.0
//! What a collective is asked to do, apart from element type and operation: how many ranks, how many elements each.

use std::fmt;

use super::partition;

/// The collectives, by the names PyTorch users know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Collective {
    /// Every rank ends with the fold of all inputs.
    AllReduce = 0,
    /// Rank r ends with part r of the fold of all inputs.
    ReduceScatter = 1,
    /// Every rank ends with all inputs, one after the other.
    AllGather = 2,
    /// Every rank ends with the root's input.
    Broadcast = 3,
    /// Nobody leaves before all have come.
    Barrier = 4,
}

impl Collective {
    /// Every collective.
    pub const ALL: [Collective; 5] = [
        Collective::AllReduce,
        Collective::ReduceScatter,
        Collective::AllGather,
        Collective::Broadcast,
        Collective::Barrier,
    ];

    /// The name: `all_reduce`, `reduce_scatter`, ..
    pub const fn name(self) -> &'static str {
        match self {
            Collective::AllReduce => "all_reduce",
            Collective::ReduceScatter => "reduce_scatter",
            Collective::AllGather => "all_gather",
            Collective::Broadcast => "broadcast",
            Collective::Barrier => "barrier",
        }
    }

    /// The collective of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.name() == name)
    }

    /// Whether it folds contributions (and so takes an operation).
    pub const fn folds(self) -> bool {
        matches!(self, Collective::AllReduce | Collective::ReduceScatter)
    }

    /// Whether counts are those of one part a rank, of which the whole buffer is made.
    pub const fn has_parts(self) -> bool {
        matches!(self, Collective::ReduceScatter | Collective::AllGather)
    }

    /// Whether one rank's input is the root's.
    pub const fn has_root(self) -> bool {
        matches!(self, Collective::Broadcast)
    }
}

impl fmt::Display for Collective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The number of ranks, the number of elements each contributes or receives, the root, and whether input and output
/// are one buffer.
///
/// Counts are NCCL's: for all-reduce and broadcast, the length of the buffer (the same on every rank); for
/// reduce-scatter, what rank r *receives*; for all-gather, what rank r *sends*. Zero and unequal counts are legal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Layout {
    world: usize,
    counts: Counts,
    root: usize,
    in_place: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Counts {
    Uniform(usize),
    /// `offsets[r]..offsets[r + 1]` is rank r's part.
    Offsets(Box<[usize]>),
}

impl Layout {
    /// `world` ranks (at least one) with the same count each, root 0, out of place.
    pub fn uniform(world: usize, count: usize) -> Self {
        Layout { world: world.max(1), counts: Counts::Uniform(count), root: 0, in_place: false }
    }

    /// One rank per entry (without any, one rank with nothing), with that entry's count; root 0, out of place. For
    /// collectives with one part a rank.
    pub fn varying(counts: &[usize]) -> Self {
        if counts.is_empty() {
            return Layout::uniform(1, 0);
        }
        let mut offsets = Vec::with_capacity(counts.len() + 1);
        let mut total = 0usize;
        offsets.push(0);
        for &count in counts {
            total = total.saturating_add(count);
            offsets.push(total);
        }
        Layout { world: counts.len(), counts: Counts::Offsets(offsets.into()), root: 0, in_place: false }
    }

    /// The same with another root.
    #[must_use]
    pub fn with_root(mut self, root: usize) -> Self {
        self.root = root;
        self
    }

    /// The same with input and output in one buffer by NCCL's rules: all-reduce and broadcast, the same elements;
    /// all-gather, the input is part `rank` of the output; reduce-scatter, the output is part `rank` of the input.
    #[must_use]
    pub fn in_place(mut self, in_place: bool) -> Self {
        self.in_place = in_place;
        self
    }

    /// The number of ranks.
    pub fn world(&self) -> usize {
        self.world
    }

    /// Every rank but `rank`, beginning with the next one: were all to begin with rank 0, they would queue there.
    pub fn others(&self, rank: usize) -> impl Iterator<Item = usize> + use<> {
        let world = self.world;
        (1..world).map(move |distance| (rank + distance) % world)
    }

    /// The root.
    pub fn root(&self) -> usize {
        self.root
    }

    /// Whether input and output are one buffer.
    pub fn is_in_place(&self) -> bool {
        self.in_place
    }

    /// Rank `rank`'s count.
    pub fn count(&self, rank: usize) -> usize {
        match &self.counts {
            Counts::Uniform(count) => *count,
            Counts::Offsets(offsets) => offsets[rank + 1] - offsets[rank],
        }
    }

    /// Where rank `rank`'s part begins in a buffer that holds all parts.
    pub fn offset(&self, rank: usize) -> usize {
        match &self.counts {
            Counts::Uniform(count) => rank.saturating_mul(*count),
            Counts::Offsets(offsets) => offsets[rank],
        }
    }

    /// All parts together.
    pub fn total(&self) -> usize {
        match &self.counts {
            Counts::Uniform(count) => self.world.saturating_mul(*count),
            Counts::Offsets(offsets) => offsets[self.world],
        }
    }

    /// The largest count.
    pub fn largest(&self) -> usize {
        match &self.counts {
            Counts::Uniform(count) => *count,
            Counts::Offsets(offsets) => offsets.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0),
        }
    }

    /// Elements of rank `rank`'s input in `collective`. In a broadcast only the root has one.
    pub fn input_len(&self, collective: Collective, rank: usize) -> usize {
        match collective {
            Collective::AllReduce | Collective::AllGather => self.count(rank),
            Collective::ReduceScatter => self.total(),
            Collective::Broadcast if rank == self.root => self.count(rank),
            Collective::Broadcast | Collective::Barrier => 0,
        }
    }

    /// Elements of rank `rank`'s output in `collective`.
    pub fn output_len(&self, collective: Collective, rank: usize) -> usize {
        match collective {
            Collective::AllReduce | Collective::ReduceScatter | Collective::Broadcast => self.count(rank),
            Collective::AllGather => self.total(),
            Collective::Barrier => 0,
        }
    }

    /// Where rank `rank`'s input lies relative to its output when in place (negative: the output lies inside the
    /// input): the input's first element is the output's element `alias`.
    pub fn alias(&self, collective: Collective, rank: usize) -> isize {
        match collective {
            Collective::AllGather => self.offset(rank) as isize,
            Collective::ReduceScatter => -(self.offset(rank) as isize),
            _ => 0,
        }
    }

    /// Part `chunk` of what `collective` folds or moves: the rank's own part where counts are one a rank, a part by
    /// [`partition`] where all ranks share one length.
    pub fn chunk(&self, collective: Collective, chunk: usize) -> std::ops::Range<usize> {
        match collective {
            Collective::ReduceScatter | Collective::AllGather => {
                self.offset(chunk)..self.offset(chunk) + self.count(chunk)
            }
            _ => partition::part(self.count(0), self.world, chunk),
        }
    }
}
