// SPDX-License-Identifier: MPL-2.0
//! The optimizer on a device: its state, laid out as the weights are, and its step, one launch for all of them.

use super::kernels::Weights;
use super::{DeviceTensor, Number, Perceptron, TensorClass};
use crate::driver::Stream;
use crate::error::Result;
use crate::kernel::training::AdamWStep;
use crate::optim::Rule;

/// A step of [`optim`](crate::optim) on a perceptron in device memory.
pub struct Update(Kind);

/// The settings, and what is remembered of each weight.
enum Kind {
    Sgd {
        rate: f32,
        momentum: f32,
        velocities: [DeviceTensor<f32>; 1],
    },
    AdamW {
        rate: f32,
        /// First and second moments.
        moments: [DeviceTensor<f32>; 2],
        /// An [`AdamWStep`].
        step: DeviceTensor<u64>,
    },
}

impl Update {
    /// Before the first step of `model`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if a setting is out of its range; those of allocating and writing.
    pub fn new<T: Number>(rule: Rule, model: &Perceptron<T>, stream: &Stream) -> Result<Self> {
        // For its judgement of the settings.
        rule.build(Vec::new())?;
        let state = || model.memory().lasting(TensorClass::Optimizer, model.layout().elements(), stream);
        Ok(Update(match rule {
            Rule::Sgd { rate, momentum } => Kind::Sgd { rate, momentum, velocities: [state()?] },
            Rule::AdamW { rate } => {
                let words = size_of::<AdamWStep>() / 8;
                let step = model.memory().lasting(TensorClass::Optimizer, words, stream)?;
                stream.write(&step, bytemuck::cast_slice(&[AdamWStep::START]))?;
                Kind::AdamW { rate, moments: [state()?, state()?], step }
            }
        }))
    }

    /// Enqueues a step along the model's gradients. Where the loss is scaled and one of them is infinite or no number,
    /// it changes nothing but the scale.
    ///
    /// # Errors
    ///
    /// Those of launching.
    pub fn step<T: Number>(&self, model: &Perceptron<T>, stream: &Stream) -> Result<()> {
        let (kernels, scaled) = (model.kernels(), model.scaled());
        let scaling = scaled.map(|scaled| &*scaled.words);
        let (weights, gradients, copy) = (model.weights(), model.gradients(), model.copy());
        if let Some(scaling) = scaling {
            kernels.find_overflow(gradients, scaling, stream)?;
        }
        match &self.0 {
            Kind::Sgd { rate, momentum, velocities } => {
                let all = Weights { weights, gradients, state: velocities, copy, scaling };
                kernels.sgd(&all, *rate, *momentum, stream)?;
            }
            Kind::AdamW { rate, moments, step } => {
                let all = Weights { weights, gradients, state: moments, copy, scaling };
                kernels.adamw_begin(step, scaling, *rate, stream)?;
                kernels.adamw(&all, step, *rate, stream)?;
            }
        }
        scaled.map_or(Ok(()), |scaled| kernels.update_scale(&scaled.words, scaled.interval, stream))
    }
}
