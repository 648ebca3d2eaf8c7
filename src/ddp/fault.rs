// SPDX-License-Identifier: MPL-2.0
//! Faults that are planted on purpose: a verification that cannot fail proves nothing.

use std::str::FromStr;
use std::time::Duration;

use crate::error::{Error, Result};

/// What goes wrong, on every rank alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The first bucket is never averaged: each rank steps along its own gradients there.
    SkippedBucket,
    /// The last two ranks take each other's samples: the sum is the same in real numbers, its bits are not. (The first
    /// two would not do: a + b is b + a.)
    SwappedRanks,
    /// The gradients of the first step are still there in the second.
    StaleGradient,
    /// Sums are multiplied by 1/n, not divided by n. It shows where 1/n is not exact: with three ranks, not with two.
    ReciprocalAverage,
    /// No fault of bits: this rank comes to each step that much later.
    SleepyRank(usize, Duration),
    /// No fault of bits: one rank's gradients of one step are infinite. The one rank has the same in that rank's share.
    /// On devices alone, where the loss is scaled: all ranks skip the step.
    Overflow {
        /// Whose gradients.
        rank: usize,
        /// In which step, counted from 0.
        step: u64,
    },
}

impl FromStr for Fault {
    type Err = Error;

    /// `skipped-bucket`, `swapped-ranks`, `stale-gradient`, `reciprocal-average`; `sleepy-rank`: rank 0 by 50 ms;
    /// `overflow`: rank 0's gradients of step 2.
    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "skipped-bucket" => Fault::SkippedBucket,
            "swapped-ranks" => Fault::SwappedRanks,
            "stale-gradient" => Fault::StaleGradient,
            "reciprocal-average" => Fault::ReciprocalAverage,
            "sleepy-rank" => Fault::SleepyRank(0, Duration::from_millis(50)),
            "overflow" => Fault::Overflow { rank: 0, step: 2 },
            _ => {
                let names = "skipped-bucket, swapped-ranks, stale-gradient, reciprocal-average, sleepy-rank, overflow";
                return Err(Error::invalid(format!("there is no fault {name:?}; there are {names}")));
            }
        })
    }
}
