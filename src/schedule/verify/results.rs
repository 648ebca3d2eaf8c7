// SPDX-License-Identifier: MPL-2.0
//! What a collective promises: what each element of a rank's buffers is at the end of a call.
//!
//! A buffer that a rank does not have in a collective has no elements: nothing can be written where a reduce's or
//! gather's other ranks, or an exclusive scan's first one, might have an output.

use std::ops::Range;

use super::declared::Declared;
use super::value::{Expression, Expressions, State};
use crate::schedule::{Buffer, Collective};

/// Elements of a buffer of one's own, and what they should be: consecutive elements of the message from `element` on.
pub(super) struct Expected {
    pub(super) buffer: Buffer,
    pub(super) elements: Range<usize>,
    pub(super) expression: Expression,
    pub(super) state: State,
    pub(super) element: isize,
}

/// What a call's folds should be: chunk by chunk in the declared order, or in a scan, for each number of ranks from 1
/// on, the fold of that many.
pub(super) fn folds(declared: &Declared, call: usize, expressions: &mut Expressions) -> Vec<Expression> {
    let world = declared.layout.world();
    let fold = |index: usize| match declared.collective.is_scan() {
        true => declared.order.bracketing(0, index + 1),
        false => declared.order.bracketing(index, world),
    };
    let all = if declared.collective.folds() { 0..world } else { 0..0 };
    all.map(|index| expressions.bracketing(call, &fold(index))).collect()
}

/// What `rank` should find after `call`: its results, and its input where that is not part of the output. `folds` are
/// those of [`folds`].
pub(super) fn expected(
    declared: &Declared,
    rank: usize,
    call: usize,
    folds: &[Expression],
    expressions: &mut Expressions,
) -> Vec<Expected> {
    let (collective, layout) = (declared.collective, &declared.layout);
    let own = expressions.leaf(call, rank);
    let finished = State::Finished;
    let mut all = Vec::new();
    let mut output = |elements, expression, state, element: usize| {
        let element = element as isize;
        all.push(Expected { buffer: Buffer::Output, elements, expression, state, element });
    };
    match collective {
        // Not all ranks have an output.
        Collective::Reduce | Collective::Gather if rank != layout.root() => {}
        Collective::ExclusiveScan if rank == 0 => {}
        Collective::AllReduce | Collective::Reduce => {
            for (chunk, &fold) in folds.iter().enumerate() {
                let elements = layout.chunk(collective, chunk);
                output(elements.clone(), fold, finished, elements.start);
            }
        }
        Collective::ReduceScatter => output(0..layout.count(rank), folds[rank], finished, layout.offset(rank)),
        Collective::Scan => output(0..layout.count(rank), folds[rank], finished, 0),
        Collective::ExclusiveScan => output(0..layout.count(rank), folds[rank - 1], finished, 0),
        Collective::AllGather | Collective::Gather => {
            for source in 0..layout.world() {
                let elements = layout.chunk(collective, source);
                output(elements, expressions.leaf(call, source), State::Contribution, 0);
            }
        }
        Collective::Broadcast => {
            output(0..layout.count(rank), expressions.leaf(call, layout.root()), State::Contribution, 0);
        }
        Collective::Scatter => {
            let root = expressions.leaf(call, layout.root());
            output(0..layout.count(rank), root, State::Contribution, layout.offset(rank));
        }
        Collective::AllToAll => {
            for source in 0..layout.world() {
                let begin = layout.output_offset(source, rank);
                let elements = begin..begin + layout.pair(source, rank);
                let element = layout.input_offset(source, rank);
                output(elements, expressions.leaf(call, source), State::Contribution, element);
            }
        }
        Collective::Barrier => {}
    }

    let input = 0..layout.input_len(collective, rank);
    let untouched = if layout.is_in_place() {
        let begin = layout.alias(collective, rank).saturating_neg().max(0) as usize;
        let end = begin + layout.output_len(collective, rank);
        [0..begin.min(input.end), end.min(input.end)..input.end]
    } else {
        [input, 0..0]
    };
    all.extend(untouched.into_iter().map(|elements| {
        let element = elements.start as isize;
        Expected { buffer: Buffer::Input, elements, expression: own, state: State::Contribution, element }
    }));
    all.retain(|expected| !expected.elements.is_empty());
    all
}
