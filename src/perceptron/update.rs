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

    /// Enqueues a step along the model's gradients.
    ///
    /// # Errors
    ///
    /// Those of launching.
    pub fn step<T: Number>(&self, model: &Perceptron<T>, stream: &Stream) -> Result<()> {
        let all = Weights { weights: model.weights(), gradients: model.gradients(), state: &self.state };
        match self.rule {
            Rule::Sgd { rate, momentum } => model.kernels().sgd(&all, rate, momentum, stream),
            Rule::AdamW { rate } => {
                model.kernels().adamw_begin(&self.step, rate, stream)?;
                model.kernels().adamw(&all, &self.step, rate, stream)
            }
        }
    }
}
