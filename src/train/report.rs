// SPDX-License-Identifier: MPL-2.0
//! What a run has come to.

use crate::ddp::Times;
use crate::perceptron::{MemoryReport, Scaling};

/// The same on every rank, but for `differences`, `products` and `memory`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// Where the ranks trained: `cpu`, or the name of a kind of device.
    pub device: &'static str,
    /// The fraction of the held-out samples that the model gets right.
    pub test_accuracy: f64,
    /// The mean loss of each epoch, over its samples as they were met.
    pub losses: Vec<f64>,
    /// The loss of each step: the mean over its global batch.
    pub step_losses: Vec<f32>,
    /// Whether all ranks ended with the same parameters, bit for bit.
    pub replicas_identical: bool,
    /// Whether these, and the losses, are those of one rank that computes the same micro-batches separately.
    pub equal_to_one_rank: bool,
    /// If either is false, where: the first parameter and element, and both values. The difference from one rank is
    /// known to rank 0 alone.
    pub differences: Vec<String>,
    /// FNV-1a in 64 bits over the final parameters' little-endian bytes, in the order of registration.
    pub parameters_checksum: u64,
    /// What has become of the loss scale, and how many steps were skipped. `None` if the loss was not scaled.
    pub scaling: Option<Scaling>,
    /// Who makes the matrix products of this rank's device: a library, by its name, or the own kernel, and why. `None` on
    /// the CPU.
    pub products: Option<String>,
    /// What this rank's tensors have of its device's memory, and had at the most. `None` on the CPU.
    pub memory: Option<MemoryReport>,
    /// Samples that all ranks took, in all steps.
    pub samples: u64,
    /// Seconds of all steps: compute, wait and transfer, on the rank where they took longest.
    pub seconds: f64,
    /// Where each rank's time went.
    pub ranks: Vec<Times>,
}

impl Report {
    /// Whether the run is proved: the replicas identical, and equal to one rank.
    pub fn is_verified(&self) -> bool {
        self.replicas_identical && self.equal_to_one_rank
    }

    /// Samples that all ranks together took in a second; zero if there were none.
    pub fn samples_per_second(&self) -> f64 {
        if self.samples == 0 { 0.0 } else { self.samples as f64 / self.seconds }
    }
}
