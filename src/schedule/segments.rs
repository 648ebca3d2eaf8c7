// SPDX-License-Identifier: MPL-2.0
//! How long parts are cut into segments, and how turns over segments become loops.
//!
//! A part of 10 elements in segments of 4 is `0..4 4..8 8..10`: turns 0 and 1 differ in position alone, turn 2 in
//! length too. Where parts have different lengths, some end while others go on. So between a few marks, turns have the
//! same body, and a program needs no more than one `Repeat` between two marks, however long the message.

use super::Program;

/// How many segments the longest part has.
pub(super) fn turns(longest: usize, segment: usize) -> usize {
    longest.div_ceil(segment)
}

/// Elements of segment `turn` of a part of `len` elements.
pub(super) fn len_in(turn: usize, len: usize, segment: usize) -> usize {
    len.saturating_sub(turn * segment).min(segment)
}

/// The turns at which the body changes for a part of `len` elements, if turn k works on segment k: where the last,
/// shorter segment begins and ends.
pub(super) fn marks(len: usize, segment: usize) -> [usize; 2] {
    [len / segment, len / segment + 1]
}

/// Adds `turns` turns to a program: a `Repeat` for each run of turns without a mark in between. `body(turn)` gives the
/// steps of the run that begins with `turn`, at the positions of that turn and with strides for the next ones.
pub(super) fn repeat(
    program: &mut Program,
    turns: usize,
    marks: impl IntoIterator<Item = usize>,
    body: impl Fn(usize) -> Program,
) {
    let mut bounds: Vec<usize> = marks.into_iter().filter(|&mark| mark < turns).chain([0, turns]).collect();
    bounds.sort_unstable();
    bounds.dedup();
    for run in bounds.windows(2) {
        program.repeat(run[1] - run[0], body(run[0]));
    }
}
