// SPDX-License-Identifier: MPL-2.0
//! The ring's broadcast: segments go from rank to rank, from the root to the one before it.
//!
//! Four ranks, root 1; what each rank does in a turn of [`relay`](super::relay), with segments 0, 1, 2:
//!
//! ```text
//!   turn      0    1    2    3    4
//!   rank 1    0    1    2
//!   rank 2    ·    0    1    2
//!   rank 3    ·    ·    0    1    2
//!   rank 0    ·    ·    ·    0    1  ..
//! ```
//!
//! - Steps: a round a segment, and n - 2 more until the last rank has begun. With direct access the root need not pass
//!   anything on, and a last round lets ranks leave.
//! - Elements moved by a rank, of a length N: N read and N written; staged, N more written to slots.
//! - Fold order: nothing is folded.
//! - Chosen: by name only. A rank reads from one other alone, which suits machines where that is what links allow.

use super::relay::{Kin, Relay};
use super::{Access, Layout};

pub use super::relay::SEGMENT;

/// Broadcast in segments of `segment` elements (at least one).
pub fn broadcast(access: Access, segment: usize) -> Relay {
    Relay::new("ring", access, segment, kin)
}

fn kin(rank: usize, layout: &Layout) -> Kin {
    let (n, root) = (layout.world(), layout.root());
    let (before, after) = ((rank + n - 1) % n, (rank + 1) % n);
    Kin { parent: (rank != root).then_some(before), children: (after != root).then_some(after).into_iter().collect() }
}
