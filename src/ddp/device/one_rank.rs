// SPDX-License-Identifier: MPL-2.0
//! The same run by one rank on one device: what the parallel one must equal, bit for bit.
//!
//! In each step it computes the gradient of every rank's share separately, reads it, adds them on the host in rank
//! order and in f32, divides by the number of ranks, writes the average back, rounded once, and makes one step of the
//! optimizer. It knows no
//! communicator, no bucket and no second stream: this file imports the perceptron and the data alone, so that a fault in
//! the exchange cannot hide in both.

use super::super::one_rank::{Outcome, average};
use super::super::{Fault, Recipe};
use crate::data::Dataset;
use crate::driver::Device;
use crate::error::Result;
use crate::perceptron::{Layout, Number, Perceptron, Scaling, Update, mean_loss};

/// Trains from the parameters `start`, in `T`, the precision of the recipe. Of faults, it has [`Fault::Overflow`]
/// alone. `after_step` is called after each step. Besides the outcome, what has become of the loss scale.
///
/// # Errors
///
/// If the recipe does not fit the data, or `start` does not fit the model; the faults of the device.
pub fn train<T: Number>(
    device: &Device,
    recipe: &Recipe,
    fault: Option<Fault>,
    data: &Dataset,
    start: &[Vec<f32>],
    mut after_step: impl FnMut(),
) -> Result<(Outcome, Option<Scaling>)> {
    let layout = Layout::new(&recipe.widths)?;
    let (gradients, stream) = (device.allocate::<T>(layout.elements())?, device.stream()?);
    let model = Perceptron::new(layout, recipe.batch, gradients, recipe.precision.loss_scale(), &stream)?;
    let update = Update::new(recipe.rule, &model, &stream)?;
    stream.write(model.weights(), &model.layout().pack(start)?)?;
    model.round(&stream)?;
    let sampler = recipe.sampler(data.len())?;
    let mut step_losses = Vec::new();
    for (number, steps) in recipe.epochs(&sampler) {
        let epoch = sampler.epoch(number);
        for step in 0..steps {
            let (mut gradients, mut losses) = (Vec::new(), Vec::new());
            let denominator = epoch.denominator(step);
            for rank in 0..recipe.ranks {
                let batch = data.batch(epoch.share(step, rank))?;
                let rows = batch.labels.len();
                let inputs: Vec<T> = batch.inputs.values()?.iter().copied().map(T::rounded).collect();
                model.load(&inputs, &batch.labels, &stream)?;
                let mut pass = model.forward(rows, &stream)?;
                model.loss(&mut pass, denominator, &stream)?;
                for layer in (0..model.layout().layers().len()).rev() {
                    model.leaves(&mut pass, false, &stream)?;
                    if layer > 0 {
                        model.inward(&mut pass, &stream)?;
                    }
                }
                let mut of_rank: Vec<f32> = stream.read(model.gradients())?.into_iter().map(T::wide).collect();
                let overflows = fault == Some(Fault::Overflow { rank, step: step_losses.len() as u64 });
                if let Some(first) = of_rank.first_mut().filter(|_| overflows) {
                    *first = f32::INFINITY;
                }
                gradients.push(of_rank);
                losses.push([mean_loss(&stream.read(&model.losses().part(..rows)?)?, denominator)]);
            }
            let averages: Vec<T> = average(&gradients).into_iter().map(T::rounded).collect();
            stream.write(model.gradients(), &averages)?;
            update.step(&model, &stream)?;
            step_losses.extend(average(&losses));
            after_step();
        }
    }
    let parameters = model.layout().unpack(&stream.read(model.weights())?)?;
    Ok((Outcome { parameters, step_losses }, model.scaling(&stream)?))
}
