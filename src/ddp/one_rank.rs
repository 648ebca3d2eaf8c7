// SPDX-License-Identifier: MPL-2.0
//! The same run by one rank: what the parallel one must equal, bit for bit.
//!
//! In each step it computes the gradient of every rank's share separately, adds them in rank order, divides by the
//! number of ranks, and makes one step of the optimizer. It knows no communicator, no bucket and no hook: this file
//! imports the autograd, the optimizers and the data alone, so that a fault in any of those rooms cannot hide in both.

use super::Recipe;
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::nn::{Mlp, Module};
use crate::tensor::Tensor;

/// What a run ends with.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The parameters, in the order of registration.
    pub parameters: Vec<Vec<f32>>,
    /// The loss of each step: the mean over the global batch, as the average of the ranks' losses.
    pub step_losses: Vec<f32>,
}

/// Trains from the parameters `start`. `after_step` is called after each step.
///
/// # Errors
///
/// If the recipe does not fit the data, or `start` does not fit the model.
pub fn train(recipe: &Recipe, data: &Dataset, start: &[Vec<f32>], mut after_step: impl FnMut()) -> Result<Outcome> {
    let model = Mlp::new(&recipe.widths, recipe.seed)?;
    let parameters = model.parameters();
    if parameters.len() != start.len() {
        let (have, need) = (start.len(), parameters.len());
        return Err(Error::invalid(format!("the model has {need} parameters; {have} are given to start from")));
    }
    for (parameter, start) in parameters.iter().zip(start) {
        fill(&mut parameter.values_mut()?, start)?;
    }
    let mut optimizer = recipe.rule.build(parameters.clone())?;
    let sampler = recipe.sampler(data.len())?;
    let mut step_losses = Vec::new();
    for (number, steps) in recipe.epochs(&sampler) {
        let epoch = sampler.epoch(number);
        for step in 0..steps {
            let (mut gradients, mut losses) = (Vec::new(), Vec::new());
            for rank in 0..recipe.ranks {
                let batch = data.batch(epoch.share(step, rank))?;
                let loss = model.forward(&batch.inputs)?.cross_entropy(&batch.labels, epoch.denominator(step))?;
                optimizer.zero_grad()?;
                loss.backward()?;
                gradients.push(parameters.iter().map(gradient).collect::<Result<Vec<_>>>()?);
                losses.push([loss.item()?]);
            }
            for (place, parameter) in parameters.iter().enumerate() {
                let ranks: Vec<&[f32]> = gradients.iter().map(|rank| &rank[place][..]).collect();
                let Some(storage) = parameter.grad() else { continue };
                fill(&mut storage.write()?, &average(&ranks))?;
            }
            optimizer.step()?;
            step_losses.extend(average(&losses));
            after_step();
        }
    }
    let parameters = parameters.iter().map(Tensor::to_vec).collect::<Result<_>>()?;
    Ok(Outcome { parameters, step_losses })
}

fn gradient(parameter: &Tensor) -> Result<Vec<f32>> {
    match parameter.grad() {
        Some(gradient) => Ok(gradient.read()?.to_vec()),
        None => Ok(vec![0.0; parameter.len()]),
    }
}

fn fill(to: &mut [f32], from: &[f32]) -> Result<()> {
    if to.len() != from.len() {
        return Err(Error::invalid(format!("a parameter of {} elements cannot be given {}", to.len(), from.len())));
    }
    to.copy_from_slice(from);
    Ok(())
}

/// The average of the ranks' contributions: added in rank order beginning with rank 0's own, divided by their number.
/// A NaN becomes the canonical one, as in every fold of this crate. Written out, because `reference::fold`, whose
/// result this is, allocates for each element.
pub(super) fn average<T: AsRef<[f32]>>(ranks: &[T]) -> Vec<f32> {
    let Some((first, others)) = ranks.split_first() else { return Vec::new() };
    let mut sums = first.as_ref().to_vec();
    for rank in others {
        sums.iter_mut().zip(rank.as_ref()).for_each(|(sum, value)| *sum += value);
    }
    let divisor = ranks.len() as f32;
    let canonical = |value: f32| if value.is_nan() { f32::from_bits(0x7fc0_0000) } else { value };
    sums.iter_mut().for_each(|sum| *sum = canonical(*sum / divisor));
    sums
}

#[cfg(test)]
mod tests {
    use super::average;
    use crate::element::{FoldOrder, ReduceOp};
    use crate::reference::{self, inputs};

    #[test]
    fn the_average_is_that_of_the_reference() {
        for ranks in [1, 2, 3, 5, 8] {
            let mut contributions = inputs::random::<f32>(11, 0, &vec![500; ranks]);
            contributions[0][7] = f32::NAN;
            contributions[ranks - 1][8] = f32::INFINITY;
            contributions.iter_mut().for_each(|rank| rank[9] = -0.0);
            let right = reference::fold(&FoldOrder::Rank, ReduceOp::Avg, &contributions).unwrap();
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&average(&contributions)), bits(&right), "{ranks} ranks");
        }
    }
}
