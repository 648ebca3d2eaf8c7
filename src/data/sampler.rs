// SPDX-License-Identifier: MPL-2.0
//! Which samples which rank takes in which step.
//!
//! Each epoch puts all samples in an order of its own, cuts them into global batches of ranks x batch, and deals each
//! global batch to the ranks: contiguous, in order, as even as can be. Within an epoch every sample is taken exactly
//! once. Every rank makes every step; in the last one, which may be short, shares may be unequal or empty. A short
//! example, of 10 samples in file order, 2 ranks and a batch of 3: step 0 gives rank 0 samples 0 1 2 and rank 1
//! samples 3 4 5; step 1 gives 6 7 and 8 9.
//!
//! Any rank can ask for any rank's share, and the order depends on seed and epoch alone: no rank has to tell another.

use std::ops::Range;

use super::Order;
use crate::error::{Error, Result};
use crate::schedule::partition::part;
use crate::tensor::Random;

/// Deals the samples of each epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sampler {
    samples: usize,
    ranks: usize,
    batch: usize,
    order: Order,
}

impl Sampler {
    /// For so many samples, ranks, and samples a rank takes in a step.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if one of them is zero, or the batch is larger than a rank's share of all samples.
    pub fn new(samples: usize, ranks: usize, batch: usize, order: Order) -> Result<Self> {
        if samples == 0 || ranks == 0 || batch == 0 {
            let given = format!("{samples} samples, {ranks} ranks and a batch of {batch}");
            return Err(Error::invalid(format!("training needs at least one of each; there are {given}")));
        }
        let shard = samples.div_ceil(ranks);
        if batch > shard {
            let given = format!("{samples} samples make shards of at most {shard} for each of {ranks} ranks");
            return Err(Error::invalid(format!("a batch of {batch} is larger than the shard: {given}")));
        }
        Ok(Sampler { samples, ranks, batch, order })
    }

    /// Steps of an epoch, the same on every rank.
    pub fn steps(&self) -> usize {
        self.samples.div_ceil(self.global_batch())
    }

    /// Samples of all ranks in a step, but perhaps the last.
    pub fn global_batch(&self) -> usize {
        // The batch is at most samples / ranks, rounded up, so this is less than samples + ranks.
        self.ranks.saturating_mul(self.batch)
    }

    /// The epoch of this number.
    pub fn epoch(&self, number: u64) -> Epoch {
        let mut samples: Vec<usize> = (0..self.samples).collect();
        if let Order::Shuffled(seed) = self.order {
            Random::new(&[seed, 2, number]).shuffle(&mut samples);
        }
        Epoch { samples, ranks: self.ranks, global_batch: self.global_batch() }
    }
}

/// The samples of an epoch in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    samples: Vec<usize>,
    ranks: usize,
    global_batch: usize,
}

impl Epoch {
    /// Steps of this epoch.
    pub fn steps(&self) -> usize {
        self.samples.len().div_ceil(self.global_batch)
    }

    /// The samples of all ranks in a step; none beyond the last step.
    pub fn batch(&self, step: usize) -> &[usize] {
        &self.samples[self.places_of_batch(step)]
    }

    fn places_of_batch(&self, step: usize) -> Range<usize> {
        let begin = step.saturating_mul(self.global_batch).min(self.samples.len());
        begin..begin.saturating_add(self.global_batch).min(self.samples.len())
    }

    /// All samples, in the order of this epoch.
    pub fn samples(&self) -> &[usize] {
        &self.samples
    }

    /// Where in that order the samples of a rank in a step are; there may be none.
    pub fn places(&self, step: usize, rank: usize) -> Range<usize> {
        let batch = self.places_of_batch(step);
        let own = part(batch.len(), self.ranks, rank);
        batch.start + own.start..batch.start + own.end
    }

    /// The samples of a rank in a step; there may be none.
    pub fn share(&self, step: usize, rank: usize) -> &[usize] {
        &self.samples[self.places(step, rank)]
    }

    /// What each rank divides its summed loss by in a step, so that the average over the ranks is the mean over the
    /// global batch: samples of the step / ranks.
    pub fn denominator(&self, step: usize) -> f32 {
        (self.batch(step).len() as f64 / self.ranks as f64) as f32
    }
}
