// SPDX-License-Identifier: MPL-2.0
//! The choice of an optimizer as a value, so that two runs can be given the same one.

use super::{AdamW, Optimizer, Sgd};
use crate::error::Result;
use crate::tensor::Tensor;

/// An optimizer that is yet to be made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// [`Sgd`].
    Sgd {
        /// The learning rate.
        rate: f32,
        /// The momentum.
        momentum: f32,
    },
    /// [`AdamW`], its other settings PyTorch's.
    AdamW {
        /// The learning rate.
        rate: f32,
    },
}

impl Rule {
    /// The optimizer over these parameters.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if a setting is out of its range.
    pub fn build(self, parameters: Vec<Tensor>) -> Result<Box<dyn Optimizer>> {
        Ok(match self {
            Rule::Sgd { rate, momentum } => Box::new(Sgd::new(parameters, rate, momentum)?),
            Rule::AdamW { rate } => Box::new(AdamW::new(parameters, rate)?),
        })
    }
}
