// SPDX-License-Identifier: MPL-2.0
//! How one rank folds some elements' prefixes for all ranks: one after the other, each from the one before.
//!
//! The fold so far stays in a partial of the rank's own, unrounded, so that each prefix is rounded once, and each input
//! is read once. Four ranks; `p` is the partial:
//!
//! ```text
//!   scan             in0 ──▶ p, out0     p in1 ──▶ p, out1     p in2 ──▶ p, out2     p in3 ──▶ out3
//!   exclusive scan   in0 in1 ──▶ p, in0 ──▶ out1     p in2 ──▶ q, p ──▶ out2     q ──▶ out3
//! ```
//!
//! In place out1 lies where in1 lay. So an exclusive scan reads in1 before it stores out1, and needs two partials.

use super::{Buffer, Collective, Place, Program};

/// How many partials there must be.
pub(super) fn partials(collective: Collective) -> usize {
    if collective == Collective::ExclusiveScan { 2 } else { 1 }
}

/// Adds the folds by which `rank` turns `len` elements of `n` inputs into all prefixes of them.
pub(super) fn prefixes(
    body: &mut Program,
    collective: Collective,
    (rank, n): (usize, usize),
    input: impl Fn(usize) -> Place,
    output: impl Fn(usize) -> Place,
    len: usize,
) {
    let partial = |index: usize| Place::new(rank, Buffer::Partial((index % 2) as u32), 0);
    if collective == Collective::Scan {
        for r in 0..n {
            let before = (r > 0).then(|| partial(0));
            let after = (r + 1 < n).then(|| partial(0));
            body.fold(before.into_iter().chain([input(r)]), after.into_iter().chain([output(r)]), len);
        }
        return;
    }
    for r in 1..n {
        let before = if r == 1 { input(0) } else { partial(r - 1) };
        if r + 1 < n {
            body.fold([before, input(r)], [partial(r)], len);
        }
        body.fold([before], [output(r)], len);
    }
}
