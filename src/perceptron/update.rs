// SPDX-License-Identifier: MPL-2.0
//! The optimizer on a device: its state, laid out as the weights are, and its step, one launch for all of them.

use super::kernels::Weights;
use super::{Number, Perceptron};
use crate::driver::{DeviceBuffer, Stream};
use crate::error::Result;
use crate::kernel::training::AdamWStep;
use crate::optim::Rule;

/// A step of [`optim`](crate::optim) on a perceptron in device memory.
pub struct Update {
    rule: Rule,
    /// What is remembered of each weight: the velocities, or first and second moments.
    state: Vec<DeviceBuffer<f32>>,
    /// AdamW's [`AdamWStep`]; empty with SGD.
    step: DeviceBuffer<u64>,
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
        let (states, words) = match rule {
            Rule::Sgd { .. } => (1, 0),
            Rule::AdamW { .. } => (2, size_of::<AdamWStep>() / 8),
        };
        let device = stream.device();
        let state = (0..states).map(|_| device.allocate(model.layout().elements())).collect::<Result<_>>()?;
        let step = device.allocate(words)?;
        stream.write(&step, &bytemuck::cast_slice(&[AdamWStep::START])[..words])?;
        Ok(Update { rule, state, step })
    }

    /// Enqueues a step along the model's gradients. Where the loss is scaled and one of them is infinite or no number,
    /// it changes nothing but the scale.
    ///
    /// # Errors
    ///
    /// Those of launching.
    pub fn step<T: Number>(&self, model: &Perceptron<T>, stream: &Stream) -> Result<()> {
        let (kernels, scaled) = (model.kernels(), model.scaled());
        let scaling = scaled.map(|scaled| &scaled.words);
        let (weights, gradients) = (model.weights(), model.gradients());
        let all = Weights { weights, gradients, state: &self.state, copy: model.copy(), scaling };
        if let Some(scaling) = scaling {
            kernels.find_overflow(gradients, scaling, stream)?;
        }
        match self.rule {
            Rule::Sgd { rate, momentum } => kernels.sgd(&all, rate, momentum, stream)?,
            Rule::AdamW { rate } => {
                kernels.adamw_begin(&self.step, scaling, rate, stream)?;
                kernels.adamw(&all, &self.step, rate, stream)?;
            }
        }
        scaled.map_or(Ok(()), |scaled| kernels.update_scale(&scaled.words, scaled.interval, stream))
    }
}
