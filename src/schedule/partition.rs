// SPDX-License-Identifier: MPL-2.0
//! How a length is dealt to parts: contiguous, in order, as even as can be, the longer parts first.
//!
//! Ten elements over four parts: `0..3 3..6 6..8 8..10`. With more parts than elements the last ones are empty. Every
//! room that divides anything among ranks divides it so.

use std::ops::Range;

/// Part `index` of `len` elements dealt to `parts` parts. `parts` is at least one; an `index` beyond gives an empty
/// range at the end.
pub fn part(len: usize, parts: usize, index: usize) -> Range<usize> {
    let parts = parts.max(1);
    let (each, longer) = (len / parts, len % parts);
    let index = index.min(parts);
    let begin = index * each + index.min(longer);
    let end = match index {
        i if i >= parts => begin,
        i => begin + each + usize::from(i < longer),
    };
    begin..end
}
