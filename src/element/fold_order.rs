// SPDX-License-Identifier: MPL-2.0
//! Fold orders as data: in which bracketing the ranks' contributions to one element are folded.
//!
//! Floating-point addition does not associate, so the order is part of the result. A schedule declares its order,
//! `verify` proves that it folds so, and `reference::fold` evaluates any order: thus every algorithm has an exact
//! reference.

use std::sync::Arc;

/// A bracketing of ranks' contributions.
///
/// `Fold([a, b, c])` is `(a op b) op c`: children are folded from left to right. `Fold([Fold([0, 1]), 2])` and
/// `Fold([0, 1, 2])` are therefore the same order, and [`Bracketing::normal`] writes both in the second form.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Bracketing {
    /// The contribution of one rank.
    Leaf(usize),
    /// The fold of the children, from left to right. Never empty.
    Fold(Vec<Bracketing>),
}

impl Bracketing {
    /// The left-to-right fold of these ranks.
    pub fn linear(ranks: impl IntoIterator<Item = usize>) -> Self {
        Bracketing::Fold(ranks.into_iter().map(Bracketing::Leaf).collect()).normal()
    }

    /// The one way of writing this order: no fold of a single child, and no fold as a first child.
    pub fn normal(self) -> Self {
        match self {
            Bracketing::Leaf(rank) => Bracketing::Leaf(rank),
            Bracketing::Fold(children) => {
                let mut flat = Vec::with_capacity(children.len());
                for (i, child) in children.into_iter().map(Bracketing::normal).enumerate() {
                    match child {
                        Bracketing::Fold(first) if i == 0 => flat = first,
                        other => flat.push(other),
                    }
                }
                match flat.len() {
                    1 => flat.remove(0),
                    _ => Bracketing::Fold(flat),
                }
            }
        }
    }

    /// The ranks, in the order in which they are folded.
    pub fn leaves(&self) -> Vec<usize> {
        match self {
            Bracketing::Leaf(rank) => vec![*rank],
            Bracketing::Fold(children) => children.iter().flat_map(Bracketing::leaves).collect(),
        }
    }
}

/// Which bracketing each chunk of a fold uses. A chunk is a part of the elements by `schedule::partition`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FoldOrder {
    /// 0, 1, .., n-1 in every chunk: the order of everything that is selected automatically, so that bits depend
    /// neither on the message's size nor on chunking, alignment or algorithm.
    Rank,
    /// Chunk c of n folds c+1, c+2, .., n-1, 0, .., c: the order in which a ring passes it along.
    Ring,
    /// A balanced binary tree over 0..n: the halves are folded by themselves, the left one the larger by at most one,
    /// and then together; the order of recursive doubling where n is a power of two.
    Tree,
    /// One's own: chunk c uses entry c modulo the number of entries. Never empty.
    Given(Arc<[Bracketing]>),
}

impl FoldOrder {
    /// An order of one's own in which every chunk folds these ranks from left to right.
    pub fn linear(ranks: impl IntoIterator<Item = usize>) -> Self {
        FoldOrder::Given(Arc::new([Bracketing::linear(ranks)]))
    }

    /// The bracketing, in normal form, of chunk `chunk` among `n` ranks.
    pub fn bracketing(&self, chunk: usize, n: usize) -> Bracketing {
        match self {
            FoldOrder::Rank => Bracketing::linear(0..n),
            FoldOrder::Ring => Bracketing::linear((1..=n).map(|hop| (chunk + hop) % n)),
            FoldOrder::Tree => tree(0, n).normal(),
            FoldOrder::Given(entries) => entries[chunk % entries.len()].clone().normal(),
        }
    }

    /// Whether every chunk folds the ranks' contributions from rank 0's to the last's, in whatever brackets: the result of
    /// an associative operation is then the same, even if its arguments may not change places.
    pub fn keeps_ranks_in_order(&self, n: usize) -> bool {
        (0..n).all(|chunk| self.bracketing(chunk, n).leaves().is_sorted())
    }

    /// The name: `rank`, `ring`, `tree` or `given`.
    pub const fn name(&self) -> &'static str {
        match self {
            FoldOrder::Rank => "rank",
            FoldOrder::Ring => "ring",
            FoldOrder::Tree => "tree",
            FoldOrder::Given(_) => "given",
        }
    }
}

fn tree(begin: usize, end: usize) -> Bracketing {
    match end - begin {
        0 | 1 => Bracketing::Leaf(begin),
        n => {
            let middle = begin + n.div_ceil(2);
            Bracketing::Fold(vec![tree(begin, middle), tree(middle, end)])
        }
    }
}
