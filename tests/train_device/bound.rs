// SPDX-License-Identifier: MPL-2.0
//! Training in f32, on the device and on the CPU, against the same steps in f64: both within a bound that is derived
//! operation by operation.
//!
//! Each number of the f64 run carries by how much f32 arithmetic may be off there, whatever the order of its sums and
//! whether products are fused (Higham, "Accuracy and Stability of Numerical Algorithms", 2nd edition, chapters 3 and 4).
//! What f64 itself rounds is smaller than the last operation's error by 2^-29, and no number here is subnormal.

use annulus::data::{Dataset, Order, digits};
use annulus::ddp::device::Settings;
use annulus::ddp::{DeviceDdp, Recipe, one_rank};
use annulus::nn::{Mlp, Module};
use annulus::optim::Rule;
use annulus::perceptron::Precision;
use annulus::tensor::Tensor;

use super::simulated::{absent, open};
use super::threads;

/// The most by which rounding to f32 changes a number, as a part of it.
const U: f64 = 1.0 / (1 << 24) as f64;

/// Exponential and logarithm, on the device and in the C library, are off by less than so many units.
const ELEMENTARY: f64 = 4.0 * U;

/// What `n` roundings one after the other come to, as a part: Higham's gamma.
fn gamma(n: usize) -> f64 {
    n as f64 * U / (1.0 - n as f64 * U)
}

/// A number, and by how much an f32 that stands for it may be off.
#[derive(Debug, Clone, Copy, Default)]
struct Bounded {
    value: f64,
    error: f64,
}

impl Bounded {
    fn exact(value: f32) -> Self {
        Bounded { value: value.into(), error: 0.0 }
    }

    /// The same after one rounding.
    fn rounded(value: f64, error: f64) -> Self {
        Bounded { value, error: error + U * (value.abs() + error) }
    }

    fn greatest(self) -> f64 {
        self.value.abs() + self.error
    }

    fn plus(self, other: Self) -> Self {
        Self::rounded(self.value + other.value, self.error + other.error)
    }

    fn minus(self, other: Self) -> Self {
        Self::rounded(self.value - other.value, self.error + other.error)
    }

    fn times(self, other: Self) -> Self {
        Self::rounded(self.value * other.value, self.error_of_product(other))
    }

    fn over(self, divisor: f32) -> Self {
        Self::rounded(self.value / f64::from(divisor), self.error / f64::from(divisor))
    }

    /// Zero, if it is negative for certain; otherwise the rectifier takes no two numbers further apart.
    fn rectified(self) -> Self {
        let error = if self.value < -self.error { 0.0 } else { self.error };
        Bounded { value: self.value.max(0.0), error }
    }

    fn error_of_product(self, other: Self) -> f64 {
        self.error * other.value.abs() + self.value.abs() * other.error + self.error * other.error
    }

    /// The sum of products, in any order, each step fused or not.
    fn dot(pairs: &[(Self, Self)]) -> Self {
        let size: f64 = pairs.iter().map(|(a, b)| a.greatest() * b.greatest()).sum();
        let error: f64 = pairs.iter().map(|(a, b)| a.error_of_product(*b)).sum();
        let value = pairs.iter().map(|(a, b)| a.value * b.value).sum();
        Bounded { value, error: error + gamma(pairs.len() + 1) * size }
    }

    /// The sum, in any order.
    fn sum(terms: &[Self]) -> Self {
        let one = Bounded::exact(1.0);
        Self::dot(&terms.iter().map(|term| (*term, one)).collect::<Vec<_>>())
    }
}

type Rows = Vec<Vec<Bounded>>;

/// A layer's weight, by output, and bias.
#[derive(Clone)]
struct Layer {
    weight: Rows,
    bias: Vec<Bounded>,
}

/// Softmax of a row, and its loss for the label.
fn softmax(logits: &[Bounded], label: usize) -> (Vec<Bounded>, Bounded) {
    // Softmax is the same whatever is subtracted, and what f32 arithmetic subtracts is the greatest of *its* logits:
    // off from this one by the largest error at most, but the same for the whole row.
    let greatest = logits.iter().map(|logit| logit.value).fold(f64::NEG_INFINITY, f64::max);
    let shift = logits.iter().map(|logit| logit.error).fold(0.0, f64::max);
    let errors: Vec<f64> =
        logits.iter().map(|logit| logit.error + U * ((logit.value - greatest).abs() + shift + logit.error)).collect();
    // From here on as parts: of each exponential, of their sum, of each quotient.
    let parts: Vec<f64> = errors.iter().map(|error| error.exp() * (1.0 + ELEMENTARY) - 1.0).collect();
    let part = parts.iter().copied().fold(0.0, f64::max);
    let of_sum = (1.0 + part) * (1.0 + gamma(logits.len())) - 1.0;
    let sum: f64 = logits.iter().map(|logit| (logit.value - greatest).exp()).sum();
    let quotient = |(logit, part): (&Bounded, &f64)| {
        let value = (logit.value - greatest).exp() / sum;
        Bounded { value, error: value * ((1.0 + part) * (1.0 + U) / (1.0 - of_sum) - 1.0) }
    };
    let probabilities = logits.iter().zip(&parts).map(quotient).collect();
    let logarithm = sum.ln();
    let of_logarithm = of_sum / (1.0 - of_sum);
    let of_logarithm = of_logarithm + ELEMENTARY * (logarithm + of_logarithm + shift);
    let own = logits[label].value - greatest;
    let loss = Bounded::rounded(logarithm - own, of_logarithm + errors[label]);
    (probabilities, loss)
}

/// Gradients of all layers and the loss, of a rank's share.
fn gradients(layers: &[Layer], inputs: &Rows, labels: &[u32], denominator: f32) -> (Vec<Layer>, Bounded) {
    let mut outputs = vec![inputs.clone()];
    for (number, layer) in layers.iter().enumerate() {
        let neuron = |row: &[Bounded], neuron: usize| {
            let one = (Bounded::exact(1.0), layer.bias[neuron]);
            let pairs = row.iter().copied().zip(layer.weight[neuron].iter().copied()).chain([one]);
            let sum = Bounded::dot(&pairs.collect::<Vec<_>>());
            if number + 1 < layers.len() { sum.rectified() } else { sum }
        };
        let rows = outputs[number].iter().map(|row| (0..layer.bias.len()).map(|at| neuron(row, at)).collect());
        outputs.push(rows.collect());
    }
    let logits = &outputs[layers.len()];
    let rows: Vec<(Vec<Bounded>, Bounded)> =
        logits.iter().zip(labels).map(|(row, label)| softmax(row, *label as usize)).collect();
    let loss = Bounded::sum(&rows.iter().map(|row| row.1).collect::<Vec<_>>()).over(denominator);
    let factor = Bounded::exact(1.0).over(denominator);
    let slope = |(row, label): (&(Vec<Bounded>, Bounded), &u32)| {
        let one = |class: usize| Bounded::exact(if class == *label as usize { 1.0 } else { 0.0 });
        row.0.iter().enumerate().map(|(class, p)| p.minus(one(class)).times(factor)).collect()
    };
    let mut slopes: Rows = rows.iter().zip(labels).map(slope).collect();
    let mut gradients = Vec::new();
    for (number, layer) in layers.iter().enumerate().rev() {
        let (input, outs, ins) = (&outputs[number], layer.bias.len(), layer.weight[0].len());
        let column = |out: usize| slopes.iter().map(|row| row[out]).collect::<Vec<_>>();
        let bias = (0..outs).map(|out| Bounded::sum(&column(out))).collect();
        let weight = |out: usize, at: usize| {
            let pairs = column(out).into_iter().zip(input.iter().map(|row| row[at]));
            Bounded::dot(&pairs.collect::<Vec<_>>())
        };
        let weight = (0..outs).map(|out| (0..ins).map(|at| weight(out, at)).collect()).collect();
        gradients.push(Layer { weight, bias });
        let inward = |(row, before): (&Vec<Bounded>, &Vec<Bounded>), at: usize| {
            let pairs = row.iter().copied().zip(layer.weight.iter().map(|weights| weights[at]));
            let slope = Bounded::dot(&pairs.collect::<Vec<_>>());
            match before[at] {
                output if output.greatest() == 0.0 => Bounded::default(),
                // It may have passed, or not: off by the whole.
                output if output.value <= output.error => {
                    let value = if output.value > 0.0 { slope.value } else { 0.0 };
                    Bounded { value, error: slope.greatest() }
                }
                _ => slope,
            }
        };
        slopes = slopes.iter().zip(input).map(|both| (0..ins).map(|at| inward(both, at)).collect()).collect();
    }
    gradients.reverse();
    (gradients, loss)
}

/// All numbers of layers, in the order of registration.
fn flat(layers: &[Layer]) -> Vec<Bounded> {
    layers.iter().flat_map(|layer| layer.weight.iter().flatten().chain(&layer.bias).copied()).collect()
}

fn layers(widths: &[usize], values: &[Bounded]) -> Vec<Layer> {
    let mut rest = values;
    let mut next = |count: usize| {
        let (first, others) = rest.split_at(count);
        rest = others;
        first.to_vec()
    };
    let pairs = widths.windows(2).map(|pair| Layer {
        weight: next(pair[0] * pair[1]).chunks(pair[0]).map(<[_]>::to_vec).collect(),
        bias: next(pair[1]),
    });
    pairs.collect()
}

/// The run of this recipe, by stochastic gradient descent: parameters and losses.
fn bounded(recipe: &Recipe, data: &Dataset, start: &[Vec<f32>]) -> (Vec<Bounded>, Vec<Bounded>) {
    let Rule::Sgd { rate, momentum } = recipe.rule else { panic!("bounds are of SGD") };
    let mut weights: Vec<Bounded> = start.iter().flatten().map(|value| Bounded::exact(*value)).collect();
    let mut velocities = vec![Bounded::default(); weights.len()];
    let mut losses = Vec::new();
    let sampler = recipe.sampler(data.len()).unwrap();
    let epoch = sampler.epoch(0);
    let average = |ranks: &[Bounded]| Bounded::sum(ranks).over(recipe.ranks as f32);
    for step in 0..recipe.steps.unwrap() as usize {
        let model = layers(&recipe.widths, &weights);
        let shares = (0..recipe.ranks).map(|rank| {
            let batch = data.batch(epoch.share(step, rank)).unwrap();
            let inputs: Vec<Bounded> = batch.inputs.to_vec().unwrap().into_iter().map(Bounded::exact).collect();
            let inputs = inputs.chunks(recipe.widths[0]).map(<[_]>::to_vec).collect();
            let (gradients, loss) = gradients(&model, &inputs, &batch.labels, epoch.denominator(step));
            (flat(&gradients), loss)
        });
        let shares: Vec<(Vec<Bounded>, Bounded)> = shares.collect();
        for (place, (weight, velocity)) in weights.iter_mut().zip(&mut velocities).enumerate() {
            let gradient = average(&shares.iter().map(|share| share.0[place]).collect::<Vec<_>>());
            *velocity = Bounded::exact(momentum).times(*velocity).plus(gradient);
            *weight = weight.minus(Bounded::exact(rate).times(*velocity));
        }
        losses.push(average(&shares.iter().map(|share| share.1).collect::<Vec<_>>()));
    }
    (weights, losses)
}

/// How much of their bound these numbers use at the most.
fn used(what: &str, got: &[f32], bounds: &[Bounded]) -> f64 {
    assert_eq!(got.len(), bounds.len());
    let part = got.iter().zip(bounds).map(|(got, bound)| (f64::from(*got) - bound.value).abs() / bound.error);
    let part = part.fold(0.0, f64::max);
    assert!(part <= 1.0, "{what}: {part} of the bound");
    part
}

#[test]
fn device_and_cpu_are_within_the_bound_of_the_exact_run() {
    if absent() {
        return;
    }
    let data = digits::load(Order::Shuffled(0)).unwrap().train;
    let recipe = Recipe {
        widths: vec![64, 12, 10],
        seed: 0,
        order: Order::Shuffled(0),
        ranks: 2,
        batch: 6,
        epochs: 1,
        steps: Some(3),
        rule: Rule::Sgd { rate: 0.1, momentum: 0.9 },
        precision: Precision::F32,
    };
    let model = Mlp::new(&recipe.widths, 0).unwrap();
    let start: Vec<Vec<f32>> = model.parameters().iter().map(|parameter| Tensor::to_vec(parameter).unwrap()).collect();
    let (weights, losses) = bounded(&recipe, &data, &start);
    let widest = weights.iter().map(|weight| weight.error).fold(0.0, f64::max);
    assert!(widest < 1e-4, "a bound of {widest} says nothing");

    let settings = Settings {
        widths: &recipe.widths,
        rows: 6,
        steps: 3,
        rule: recipe.rule,
        loss_scale: None,
        bucket_bytes: 0,
        replay: false,
    };
    let on_device = threads(2, |comm| {
        let mut ddp = DeviceDdp::<f32>::new(&comm, &open(0)?, &settings, &start)?;
        let epoch = recipe.sampler(data.len())?.epoch(0);
        for step in 0..3 {
            let batch = data.batch(epoch.share(step, comm.rank()))?;
            ddp.step(&batch.inputs.values()?, &batch.labels, epoch.denominator(step))?;
        }
        Ok((ddp.losses()?, ddp.parameters()?.concat()))
    });
    let on_cpu = one_rank::train(&recipe, &data, &start, || ()).unwrap();
    let parts = [
        used("weights on the device", &on_device[0].1, &weights),
        used("weights on the CPU", &on_cpu.parameters.concat(), &weights),
        used("losses on the device", &on_device[0].0, &losses),
        used("losses on the CPU", &on_cpu.step_losses, &losses),
    ];
    println!("the widest bound of a weight is {widest:e}; used of bounds, at the most: {parts:.2?}");
    // What is off by more than rounding is outside: a learning rate that is off by a ten thousandth.
    let mut other = recipe.clone();
    other.rule = Rule::Sgd { rate: 0.10001, momentum: 0.9 };
    let other = one_rank::train(&other, &data, &start, || ()).unwrap().parameters.concat();
    let outside = other.iter().zip(&weights).any(|(got, bound)| (f64::from(*got) - bound.value).abs() > bound.error);
    assert!(outside, "the bound is too wide to notice a wrong learning rate");
}
