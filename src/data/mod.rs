// SPDX-License-Identifier: MPL-2.0
//! Data sets, and how their samples are dealt to ranks.
//!
//! A [`Dataset`] is plain vectors, shared by the ranks of a process behind an `Arc`. The [`sampler`] decides which
//! samples a rank takes in a step; [`Dataset::batch`] gathers them.

mod dataset;
pub mod digits;
mod idx;
pub mod mnist;
pub mod sampler;

pub use dataset::{Batch, Dataset, Split};
pub use sampler::{Epoch, Sampler};

/// In which order samples are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As in the file.
    File,
    /// Shuffled by this seed.
    Shuffled(u64),
}
