// SPDX-License-Identifier: MPL-2.0
//! The loss of classification, forward and backward.

use annulus::driver::Use;
use annulus::kernel::training::{CrossEntropy, Scaling};
use annulus::kernel::{Kernel, Shape};
use annulus::perceptron::mean_loss;
use annulus::tensor::Tensor;
use annulus::{bf16, f16};

use super::{Draw, Float, SHAPES, Sim, bits, chosen, error_of};

struct Result<T> {
    losses: Vec<f32>,
    gradient: Vec<T>,
}

struct Case<T> {
    classes: usize,
    logits: Vec<T>,
    labels: Vec<u32>,
    denominator: f32,
    /// Whether the gradient takes the place of the logits.
    in_place: bool,
}

impl<T: Float> Case<T> {
    /// Logits of up to `size`.
    fn new(rows: usize, classes: usize, size: f32) -> Self {
        let mut draw = Draw((rows * 1000 + classes) as u64);
        let logits = (0..rows * classes).map(|_| T::rounded(draw.float::<f32>() * size)).collect();
        let labels = (0..rows).map(|_| (draw.next() % classes as u64) as u32).collect();
        Case { classes, logits, labels, denominator: rows.max(1) as f32, in_place: false }
    }

    fn run(&self, sim: &Sim, scale: Option<f32>, shape: (u32, u32)) -> Result<T> {
        let (rows, classes) = (self.labels.len(), self.classes);
        let (logits, labels) = (sim.upload(&self.logits, 1), sim.upload(&self.labels, 0));
        let losses = sim.upload(&vec![0.0_f32; rows], 0);
        let gradient = sim.upload(&vec![T::zeroed(); rows * classes], 1);
        let scaling = sim.upload(bytemuck::cast_slice::<Scaling, u32>(&[Scaling::new(scale.unwrap_or(0.0))]), 0);
        let mut uses = vec![Use::reads(&labels), Use::reads(&scaling), Use::writes(&losses)];
        let to = if self.in_place { &logits } else { &gradient };
        uses.extend([Use::reads(&logits), Use::writes(to)]);
        let arguments = CrossEntropy {
            logits: logits.address(),
            labels: labels.address(),
            losses: losses.address(),
            scaling: if scale.is_some() { scaling.address() } else { 0 },
            to: to.address(),
            rows: rows as u64,
            classes: classes as u64,
            denominator: self.denominator,
            unused: 0,
        };
        sim.run(Kernel::CrossEntropy(T::DATA_TYPE), shape, &arguments, &uses);
        Result { losses: sim.read(&losses), gradient: sim.read(to) }
    }

    /// Against f64, from the same logits. With u the unit of f32, of a row with greatest logit g:
    ///
    /// - d = logit - g is off by u |d|, so its exponential by that part of itself, and by u more for its rounding; in
    ///   doubles it is off by less than 2^-44, which one more u covers by far;
    /// - their sum adds `classes` roundings; so e/s is off by 2 u D + (classes + 5) u of itself, D the greatest |d|;
    ///   where they are subnormal, each is off by half the distance of the smallest numbers instead;
    /// - the logarithm of the sum is off by what the sum is off, as a part of itself, and by 2 u of itself; own by
    ///   u |d|; the loss by all of these and u of itself;
    /// - the mean, which the host makes of them, adds in f64 and rounds once.
    fn check(&self, got: &Result<T>, scale: f32) {
        let u = f32::UNIT;
        let [mut sum, mut sum_off] = [0.0, 0.0];
        let factor = f64::from(scale) / f64::from(self.denominator);
        for (row, &label) in self.labels.iter().enumerate() {
            let part = row * self.classes..(row + 1) * self.classes;
            let logits: Vec<f64> = self.logits[part.clone()].iter().map(|logit| f64::from(logit.wide())).collect();
            let greatest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = logits.iter().map(|logit| (logit - greatest).exp()).sum();
            let widest = logits.iter().map(|logit| greatest - logit).fold(0.0, f64::max);
            let one = (widest + self.classes as f64 + 3.0) * u;
            for (class, logit) in logits.iter().enumerate() {
                let exact = (logit - greatest).exp() / total;
                let off = (2.0 * widest + self.classes as f64 + 5.0) * u * exact * 1.001 + 2.0 * f32::LEAST;
                let exact = exact - if class == label as usize { 1.0 } else { 0.0 };
                let gradient = f64::from(got.gradient[part.start + class].wide());
                // The difference, the factor and their product round once each.
                let off = error_of::<T>(exact * factor, (off + 3.0 * u * exact.abs()) * factor * 1.001);
                assert!((gradient - exact * factor).abs() <= off, "{gradient} {} {off}", exact * factor);
            }
            let own = logits[label as usize] - greatest;
            let exact = total.ln() - own;
            let off = (one + u * (2.0 * total.ln().abs() + own.abs() + exact.abs())) * 1.001;
            let loss = f64::from(got.losses[row]);
            assert!((loss - exact).abs() <= off, "{loss} {exact} {off}");
            sum += exact;
            sum_off += off;
        }
        let mean = sum / f64::from(self.denominator);
        let off = error_of::<f32>(mean, sum_off / f64::from(self.denominator) * 1.001);
        let got = mean_loss(&got.losses, self.denominator);
        assert!((f64::from(got) - mean).abs() <= off, "{got} {mean} {off}");
    }
}

fn losses<T: Float>() {
    let Some(sim) = Sim::new() else { return };
    for (rows, classes, size) in
        [(0, 3, 1.0), (1, 1, 1.0), (1, 10, 3.0), (32, 10, 8.0), (70, 7, 60.0), (5, 300, 2.0), (600, 3, 2.0)]
    {
        let case = Case::<T>::new(rows, classes, size);
        let first = case.run(&sim, None, SHAPES[0]);
        case.check(&first, 1.0);
        for shape in SHAPES[1..].iter().copied().chain([chosen(Shape::of_each(rows as u64, 8))]) {
            let got = case.run(&sim, None, shape);
            assert_eq!(bits(&got.losses), bits(&first.losses), "{shape:?}");
            assert_eq!(bits(&got.gradient), bits(&first.gradient), "{shape:?}");
        }
        let scaled = case.run(&sim, Some(1024.0), (2, 32));
        case.check(&scaled, 1024.0);
        let in_place = Case { in_place: true, ..case }.run(&sim, Some(1024.0), (1, 64));
        assert_eq!(bits(&in_place.gradient), bits(&scaled.gradient));
        assert_eq!(bits(&in_place.losses), bits(&scaled.losses));
    }
}

#[test]
fn of_every_type() {
    losses::<f32>();
    losses::<f16>();
    losses::<bf16>();
}

/// The CPU's formulas in the CPU's order; exponential and logarithm alone may round otherwise, by one unit. A part of
/// that size in each exponential is one in their sum, and two in their quotients.
#[test]
fn is_that_of_the_cpu() {
    let Some(sim) = Sim::new() else { return };
    for denominator in [32.0, 21.5] {
        let case = Case::<f32> { denominator, ..Case::new(32, 10, 6.0) };
        let got = case.run(&sim, None, (1, 64));
        let logits = Tensor::new(case.logits.clone(), &[32, 10]).unwrap().trainable();
        let loss = logits.cross_entropy(&case.labels, denominator).unwrap();
        loss.backward().unwrap();
        let gradient = logits.grad().unwrap().read().unwrap().to_vec();
        let unit = 2.0 * f32::EPSILON;
        let mean = mean_loss(&got.losses, denominator);
        assert!((loss.item().unwrap() - mean).abs() <= 2.0 * unit * (mean + 1.0));
        for (got, right) in got.gradient.iter().zip(gradient) {
            assert!((got - right).abs() <= 4.0 * unit / denominator, "{got} {right}");
        }
    }
}

/// As on the CPU, a row with an infinity or a NaN is no number; others do not notice. A label beyond the classes reads
/// nothing and gives no loss.
#[test]
fn rows_without_numbers_stay_alone() {
    let Some(sim) = Sim::new() else { return };
    let mut case = Case::<f32>::new(5, 4, 3.0);
    let right = case.run(&sim, None, (1, 32));
    case.logits[4] = f32::NAN;
    case.logits[2 * 4 + 1] = f32::INFINITY;
    case.labels[3] = 4;
    let got = case.run(&sim, None, (1, 32));
    for row in 0..5 {
        let part = row * 4..(row + 1) * 4;
        let lost = row == 1 || row == 2;
        assert_eq!(got.gradient[part.clone()].iter().all(|slope| slope.is_nan()), lost);
        assert_eq!(got.losses[row].is_nan(), lost || row == 3);
        if row == 0 || row == 4 {
            assert_eq!(bits(&got.gradient[part.clone()]), bits(&right.gradient[part]));
        }
    }
    assert!(mean_loss(&got.losses, 5.0).is_nan());
    // Of the label of no class, nothing is subtracted.
    assert!(got.gradient[12..16].iter().all(|share| *share >= 0.0));
    assert!((got.gradient[12..16].iter().sum::<f32>() - 1.0 / 5.0).abs() < 1e-6);
}
