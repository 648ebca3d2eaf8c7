// SPDX-License-Identifier: MPL-2.0
//! What a collective is asked to do, apart from element type and operation: how many ranks, how many elements each.

use std::fmt;

use super::partition;

/// The collectives, by the names PyTorch users know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[non_exhaustive]
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
    /// The root ends with the fold of all inputs. Only the root has an output.
    Reduce = 5,
    /// Rank r ends with part r of the root's input. Only the root has an input.
    Scatter = 6,
    /// The root ends with all inputs, one after the other. Only the root has an output.
    Gather = 7,
    /// Rank r ends with the part for r of each input, in the order of the ranks that they come from.
    AllToAll = 8,
    /// Rank r ends with the fold of the inputs of ranks 0 to r.
    Scan = 9,
    /// Rank r ends with the fold of the inputs of ranks 0 to r - 1. Rank 0, to which nothing comes, has no output: what
    /// its user gives for one stays as it was, in place too.
    ExclusiveScan = 10,
}

impl Collective {
    /// Every collective.
    pub const ALL: [Collective; 11] = [
        Collective::AllReduce,
        Collective::ReduceScatter,
        Collective::AllGather,
        Collective::Broadcast,
        Collective::Barrier,
        Collective::Reduce,
        Collective::Scatter,
        Collective::Gather,
        Collective::AllToAll,
        Collective::Scan,
        Collective::ExclusiveScan,
    ];

    /// The name: `all_reduce`, `reduce_scatter`, ..
    pub const fn name(self) -> &'static str {
        match self {
            Collective::AllReduce => "all_reduce",
            Collective::ReduceScatter => "reduce_scatter",
            Collective::AllGather => "all_gather",
            Collective::Broadcast => "broadcast",
            Collective::Barrier => "barrier",
            Collective::Reduce => "reduce",
            Collective::Scatter => "scatter",
            Collective::Gather => "gather",
            Collective::AllToAll => "all_to_all",
            Collective::Scan => "scan",
            Collective::ExclusiveScan => "exclusive_scan",
        }
    }

    /// The collective of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.name() == name)
    }

    /// Whether it folds contributions (and so takes an operation).
    pub const fn folds(self) -> bool {
        matches!(self, Collective::AllReduce | Collective::ReduceScatter | Collective::Reduce) || self.is_scan()
    }

    /// Whether it folds prefixes, which have one order only: that of the ranks.
    pub const fn is_scan(self) -> bool {
        matches!(self, Collective::Scan | Collective::ExclusiveScan)
    }

    /// Whether counts are those of one part a rank, of which the whole buffer is made.
    pub const fn has_parts(self) -> bool {
        matches!(
            self,
            Collective::ReduceScatter
                | Collective::AllGather
                | Collective::Scatter
                | Collective::Gather
                | Collective::AllToAll
        )
    }

    /// Whether one rank, the root, gives the input or gets the output.
    pub const fn has_root(self) -> bool {
        matches!(self, Collective::Broadcast | Collective::Reduce | Collective::Scatter | Collective::Gather)
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
/// Counts are NCCL's: for all-reduce, broadcast, reduce and the scans, the length of the buffer (the same on every
/// rank); for reduce-scatter and scatter, what rank r *receives*; for all-gather and gather, what rank r *sends*; for
/// all-to-all, what each rank sends to rank r, or a matrix. Zero and unequal counts are legal.
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
    /// World + 1 offsets a rank: `input[r * (world + 1) + i]` is where its part for rank i begins in the input,
    /// `output[..]` where the part from rank i begins in the output.
    Matrix {
        input: Box<[usize]>,
        output: Box<[usize]>,
    },
}

/// Where parts of these lengths begin, one after the other, and where the last one ends.
fn offsets(counts: impl IntoIterator<Item = usize>) -> impl Iterator<Item = usize> {
    let ends = counts.into_iter().scan(0usize, |end, count| {
        *end = end.saturating_add(count);
        Some(*end)
    });
    std::iter::once(0).chain(ends)
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
        let offsets = offsets(counts.iter().copied()).collect();
        Layout { counts: Counts::Offsets(offsets), ..Layout::uniform(counts.len(), 0) }
    }

    /// One rank per row (without any, one rank with nothing): rank r sends `counts[r][i]` elements to rank i, and none
    /// to a rank that its row does not reach. Out of place. For all-to-all.
    pub fn matrix(counts: &[impl AsRef<[usize]>]) -> Self {
        let world = counts.len().max(1);
        let count =
            |from: usize, to: usize| counts.get(from).and_then(|row| row.as_ref().get(to)).copied().unwrap_or(0);
        let input = (0..world).flat_map(|from| offsets((0..world).map(move |to| count(from, to)))).collect();
        let output = (0..world).flat_map(|to| offsets((0..world).map(move |from| count(from, to)))).collect();
        Layout { counts: Counts::Matrix { input, output }, ..Layout::uniform(world, 0) }
    }

    /// The same with another root.
    #[must_use]
    pub fn with_root(mut self, root: usize) -> Self {
        self.root = root;
        self
    }

    /// The same with input and output in one buffer by NCCL's rules: all-reduce, broadcast and reduce (at the root), the
    /// same elements, and so the scans; all-gather, the input is part `rank` of the output, and so at a gather's root;
    /// reduce-scatter, the output is part `rank` of the input, and so at a scatter's root. All-to-all, the same
    /// elements: part i goes to rank i and what comes from rank i takes its place, so both have one length.
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

    /// Whether all ranks have the same count.
    pub fn is_uniform(&self) -> bool {
        matches!(self.counts, Counts::Uniform(_))
    }

    /// Whether each pair of ranks has a count of its own.
    pub fn is_matrix(&self) -> bool {
        matches!(self.counts, Counts::Matrix { .. })
    }

    /// Rank `rank`'s count; with a matrix, all that it sends.
    pub fn count(&self, rank: usize) -> usize {
        match &self.counts {
            Counts::Uniform(count) => *count,
            Counts::Offsets(offsets) => offsets[rank + 1] - offsets[rank],
            Counts::Matrix { input, .. } => input[rank * (self.world + 1) + self.world],
        }
    }

    /// Where rank `rank`'s part begins in a buffer that holds all parts.
    pub fn offset(&self, rank: usize) -> usize {
        match &self.counts {
            Counts::Uniform(count) => rank.saturating_mul(*count),
            Counts::Offsets(offsets) => offsets[rank],
            Counts::Matrix { .. } => (0..rank).fold(0, |sum, rank| sum.saturating_add(self.count(rank))),
        }
    }

    /// All parts together.
    pub fn total(&self) -> usize {
        match &self.counts {
            Counts::Uniform(count) => self.world.saturating_mul(*count),
            Counts::Offsets(offsets) => offsets[self.world],
            Counts::Matrix { .. } => self.offset(self.world),
        }
    }

    /// The largest count.
    pub fn largest(&self) -> usize {
        match &self.counts {
            Counts::Uniform(count) => *count,
            _ => (0..self.world).map(|rank| self.count(rank)).max().unwrap_or(0),
        }
    }

    /// In an all-to-all, how many elements rank `from` sends to rank `to`.
    pub fn pair(&self, from: usize, to: usize) -> usize {
        match &self.counts {
            Counts::Matrix { input, .. } => {
                let at = from * (self.world + 1) + to;
                input[at + 1] - input[at]
            }
            _ => self.count(to),
        }
    }

    /// In an all-to-all, where the part for rank `to` begins in rank `from`'s input.
    pub fn input_offset(&self, from: usize, to: usize) -> usize {
        match &self.counts {
            Counts::Matrix { input, .. } => input[from * (self.world + 1) + to],
            _ => self.offset(to),
        }
    }

    /// In an all-to-all, where the part from rank `from` begins in rank `to`'s output.
    pub fn output_offset(&self, from: usize, to: usize) -> usize {
        match &self.counts {
            Counts::Matrix { output, .. } => output[to * (self.world + 1) + from],
            _ => from.saturating_mul(self.count(to)),
        }
    }

    /// In an all-to-all, the most elements that one rank sends to another.
    pub fn largest_pair(&self) -> usize {
        match &self.counts {
            Counts::Matrix { .. } => {
                let pairs = (0..self.world).flat_map(|from| (0..self.world).map(move |to| (from, to)));
                pairs.map(|(from, to)| self.pair(from, to)).max().unwrap_or(0)
            }
            _ => self.largest(),
        }
    }

    /// Elements of rank `rank`'s input in `collective`. In a broadcast and a scatter only the root has one.
    pub fn input_len(&self, collective: Collective, rank: usize) -> usize {
        match collective {
            Collective::AllReduce | Collective::Reduce | Collective::Scan | Collective::ExclusiveScan => {
                self.count(rank)
            }
            Collective::AllGather | Collective::Gather => self.count(rank),
            Collective::ReduceScatter => self.total(),
            Collective::AllToAll => {
                let last = self.world - 1;
                self.input_offset(rank, last).saturating_add(self.pair(rank, last))
            }
            Collective::Broadcast if rank == self.root => self.count(rank),
            Collective::Scatter if rank == self.root => self.total(),
            Collective::Broadcast | Collective::Scatter | Collective::Barrier => 0,
        }
    }

    /// Elements of rank `rank`'s output in `collective`. In a reduce and a gather only the root has one, in an exclusive
    /// scan all but rank 0.
    pub fn output_len(&self, collective: Collective, rank: usize) -> usize {
        match collective {
            Collective::AllReduce | Collective::Broadcast | Collective::Scan => self.count(rank),
            Collective::ReduceScatter | Collective::Scatter => self.count(rank),
            Collective::AllGather => self.total(),
            Collective::AllToAll => {
                let last = self.world - 1;
                self.output_offset(last, rank).saturating_add(self.pair(last, rank))
            }
            Collective::Reduce if rank == self.root => self.count(rank),
            Collective::Gather if rank == self.root => self.total(),
            Collective::ExclusiveScan if rank > 0 => self.count(rank),
            Collective::Reduce | Collective::Gather | Collective::ExclusiveScan | Collective::Barrier => 0,
        }
    }

    /// Where rank `rank`'s input lies relative to its output when in place (negative: the output lies inside the
    /// input): the input's first element is the output's element `alias`.
    pub fn alias(&self, collective: Collective, rank: usize) -> isize {
        match collective {
            Collective::AllGather => self.offset(rank) as isize,
            Collective::ReduceScatter => -(self.offset(rank) as isize),
            Collective::Gather if rank == self.root => self.offset(rank) as isize,
            Collective::Scatter if rank == self.root => -(self.offset(rank) as isize),
            _ => 0,
        }
    }

    /// Part `chunk` of what `collective` folds or moves: the rank's own part where counts are one a rank, a part by
    /// [`partition`] where all ranks share one length.
    pub fn chunk(&self, collective: Collective, chunk: usize) -> std::ops::Range<usize> {
        match collective.has_parts() {
            true => self.offset(chunk)..self.offset(chunk) + self.count(chunk),
            false => partition::part(self.count(0), self.world, chunk),
        }
    }
}
