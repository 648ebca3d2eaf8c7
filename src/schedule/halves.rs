// SPDX-License-Identifier: MPL-2.0
//! The balanced binary tree over the ranks: ranges of ranks, halved until each rank is alone, the left half the larger by
//! at most one. It is the fold order `Tree`, for any number of ranks.
//!
//! ```text
//!   depth 0   [0 1 2 3 4]
//!   depth 1   [0 1 2][3 4]
//!   depth 2   [0 1][2][3][4]
//!   depth 3   [0][1]
//! ```
//!
//! A rank's partner at a range is the rank in the other half that stands where it stands; the last rank of a longer left
//! half shares the partner of the one before it. So no rank is left over, whatever their number: some are read twice.

use std::ops::Range;

/// How deep the deepest ranks are: the logarithm of their number, rounded up.
pub(super) fn levels(n: usize) -> usize {
    n.next_power_of_two().trailing_zeros() as usize
}

/// The halves of a range of at least two ranks.
fn halves(range: &Range<usize>) -> [Range<usize>; 2] {
    let middle = range.start + range.len().div_ceil(2);
    [range.start..middle, middle..range.end]
}

/// The half of a range in which `rank` is not.
pub(super) fn other_half(range: &Range<usize>, rank: usize) -> Range<usize> {
    let [left, right] = halves(range);
    if left.contains(&rank) { right } else { left }
}

/// A rank's partner at a range of at least two ranks.
pub(super) fn partner(range: &Range<usize>, rank: usize) -> usize {
    let [left, right] = halves(range);
    match left.contains(&rank) {
        true => right.start + (rank - left.start).min(right.len() - 1),
        false => left.start + (rank - right.start),
    }
}

/// Those whose partner at a range `rank` is: one or two.
pub(super) fn partnered(range: &Range<usize>, rank: usize) -> impl Iterator<Item = usize> {
    let range = range.clone();
    other_half(&range, rank).filter(move |&other| partner(&range, other) == rank)
}

/// The ranges in which a rank is, from all `n` ranks to itself alone: one a depth.
pub(super) fn path(n: usize, rank: usize) -> Vec<Range<usize>> {
    let below = |range: &Range<usize>| {
        let [left, right] = halves(range);
        if left.contains(&rank) { left } else { right }
    };
    std::iter::successors(Some(0..n), |range| (range.len() > 1).then(|| below(range))).collect()
}

/// Ranks, each once.
pub(super) fn distinct(ranks: impl IntoIterator<Item = usize>) -> Vec<usize> {
    let mut ranks: Vec<usize> = ranks.into_iter().collect();
    ranks.sort_unstable();
    ranks.dedup();
    ranks
}
