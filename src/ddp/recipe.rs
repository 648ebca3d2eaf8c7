// SPDX-License-Identifier: MPL-2.0
//! All that decides the bits of a training run, apart from the data and the first parameters.

use crate::data::{Order, Sampler};
use crate::error::Result;
use crate::optim::Rule;
use crate::perceptron::Precision;

/// A run of training, as both the ranks and the one rank that checks them carry it out.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// The model's widths, the input's first and the number of classes last.
    pub widths: Vec<usize>,
    /// What the first parameters are drawn by.
    pub seed: u64,
    /// In which order samples are taken.
    pub order: Order,
    /// How many ranks share a global batch.
    pub ranks: usize,
    /// Samples a rank takes in a step.
    pub batch: usize,
    /// How many passes are made over all samples.
    pub epochs: u64,
    /// After how many steps in all to stop, if before the end of the last epoch.
    pub steps: Option<u64>,
    /// The optimizer.
    pub rule: Rule,
    /// In what is computed. On the CPU, f32 alone.
    pub precision: Precision,
}

impl Recipe {
    /// What deals this many samples to the ranks. An error as of [`Sampler::new`].
    ///
    /// # Errors
    ///
    /// As [`Sampler::new`].
    pub fn sampler(&self, samples: usize) -> Result<Sampler> {
        Sampler::new(samples, self.ranks, self.batch, self.order)
    }

    /// The epochs to make: their numbers, and how many steps of each. The last may be cut short by
    /// [`steps`](Self::steps).
    pub fn epochs(&self, sampler: &Sampler) -> impl Iterator<Item = (u64, usize)> {
        let (whole, limit) = (sampler.steps(), self.steps.unwrap_or(u64::MAX));
        (0..self.epochs)
            .map(move |number| (number, limit.saturating_sub(number.saturating_mul(whole as u64))))
            .map(move |(number, left)| (number, usize::try_from(left).unwrap_or(whole).min(whole)))
            .take_while(|(_, steps)| *steps > 0)
    }

    /// How many steps the run has.
    pub fn total_steps(&self, sampler: &Sampler) -> u64 {
        let all = self.epochs.saturating_mul(sampler.steps() as u64);
        self.steps.map_or(all, |limit| limit.min(all))
    }
}
