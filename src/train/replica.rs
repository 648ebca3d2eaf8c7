// SPDX-License-Identifier: MPL-2.0
//! One rank's replica of the model, wherever it is.

use crate::data::Epoch;
use crate::ddp::Times;
use crate::error::Result;
use crate::nn::{Mlp, Module};
use crate::perceptron::{MemoryReport, Scaling};
use crate::tensor::Tensor;

/// What the run asks of a replica.
pub(super) trait Replica {
    /// From here on time is counted.
    fn begin(&mut self);

    /// What follows are steps of this epoch.
    fn arrange(&mut self, epoch: &Epoch) -> Result<()>;

    /// Collective. One step of the epoch, on the share of this rank.
    fn step(&mut self, epoch: &Epoch, step: usize, rank: usize) -> Result<()>;

    /// Collective. The losses of the steps since this was called last: the means over their global batches.
    fn losses(&mut self) -> Result<Vec<f32>>;

    /// Where the time went, just after losses were read.
    fn times(&mut self) -> Result<Times>;

    /// How many rows `logits` takes at the most.
    fn tested_at_a_time(&self) -> usize;

    /// What the model puts out for these inputs.
    fn logits(&self, inputs: &Tensor) -> Result<Tensor>;

    /// The parameters, in the order of registration.
    fn parameters(&self) -> Result<Vec<Vec<f32>>>;

    /// What has become of the loss scale; `None` if the loss is not scaled.
    fn scaling(&self) -> Result<Option<Scaling>>;

    /// Who makes its matrix products; `None` on the CPU.
    fn products(&self) -> Option<String>;

    /// What its tensors have of a device's memory; `None` on the CPU.
    fn memory(&self) -> Option<MemoryReport>;

    /// Collective. Ends it in order.
    fn close(self: Box<Self>) -> Result<()>;
}

/// Gives a model these parameters, which are as long as its own.
pub(super) fn fill(model: &Mlp, parameters: &[Vec<f32>]) -> Result<()> {
    for (parameter, values) in model.parameters().iter().zip(parameters) {
        parameter.values_mut()?.copy_from_slice(values);
    }
    Ok(())
}
