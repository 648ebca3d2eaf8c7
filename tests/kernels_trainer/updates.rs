// SPDX-License-Identifier: MPL-2.0
//! Updates of parameters: gradient descent and AdamW.

use annulus::driver::{DeviceBuffer, Use};
use annulus::kernel::training::{AdamW, AdamWBegin, AdamWStep, COPY_BF16, COPY_F16, NO_COPY, Scaling, Sgd};
use annulus::kernel::{Kernel, Shape};
use annulus::optim::{self, Optimizer};
use annulus::tensor::Tensor;
use annulus::{bf16, f16};

use super::{Draw, Float, SHAPES, Sim, bits, chosen};

const RATE: f32 = 0.1;
const MOMENTUM: f32 = 0.9;
const BETAS: (f32, f32) = (0.9, 0.999);
const EPSILON: f32 = 1e-8;
const DECAY: f32 = 0.01;

/// How an update is made.
#[derive(Clone, Copy)]
struct Way {
    adamw: bool,
    copy_type: u32,
    /// That of the loss, if there is one.
    scale: Option<f32>,
    offset: usize,
    shape: (u32, u32),
}

/// What an update works on.
struct State {
    weights: DeviceBuffer<f32>,
    /// Velocities, or first moments.
    moments: DeviceBuffer<f32>,
    squares: DeviceBuffer<f32>,
    copy: DeviceBuffer<u16>,
    step: DeviceBuffer<u64>,
    scaling: DeviceBuffer<u32>,
}

impl State {
    fn new(sim: &Sim, weights: &[f32], way: Way) -> State {
        let zeros = vec![0.0; weights.len()];
        let scaling = Scaling::new(way.scale.unwrap_or(0.0));
        State {
            weights: sim.upload(weights, way.offset),
            moments: sim.upload(&zeros, way.offset),
            squares: sim.upload(&zeros, way.offset),
            copy: sim.upload(&vec![7; weights.len()], way.offset),
            step: sim.upload(bytemuck::cast_slice(&[AdamWStep::START]), 0),
            scaling: sim.upload(bytemuck::cast_slice(&[scaling]), 0),
        }
    }

    /// One step by these gradients.
    fn update<T: Float>(&self, sim: &Sim, gradients: &[T], way: Way) {
        let gradients = sim.upload(gradients, way.offset);
        let elements = gradients.len() as u64;
        let scaling = if way.scale.is_some() { self.scaling.address() } else { 0 };
        let copy = if way.copy_type == NO_COPY { 0 } else { self.copy.address() };
        let (weights, copy_type) = (self.weights.address(), way.copy_type);
        let state = [Use::writes(&self.weights), Use::writes(&self.moments), Use::writes(&self.copy)];
        let read = [Use::reads(&gradients), Use::reads(&self.scaling)];
        let mut uses: Vec<Use> = state.into_iter().chain(read).collect();
        if way.adamw {
            let step = self.step.address();
            let begin = AdamWBegin { step, scaling, rate: RATE, beta1: BETAS.0, beta2: BETAS.1, unused: 0 };
            sim.run(Kernel::AdamWBegin, (2, 32), &begin, &[Use::writes(&self.step), Use::reads(&self.scaling)]);
            let [first, second, keep] = AdamW::factors(RATE, BETAS, DECAY);
            let arguments = AdamW {
                weights,
                moments: self.moments.address(),
                squares: self.squares.address(),
                gradients: gradients.address(),
                copy,
                step,
                scaling,
                elements,
                beta1: BETAS.0,
                beta2: BETAS.1,
                first,
                second,
                keep,
                epsilon: EPSILON,
                copy_type,
                unused: 0,
            };
            uses.extend([Use::writes(&self.squares), Use::reads(&self.step)]);
            sim.run(Kernel::AdamW(T::DATA_TYPE), way.shape, &arguments, &uses);
        } else {
            let arguments = Sgd {
                weights,
                velocities: self.moments.address(),
                gradients: gradients.address(),
                copy,
                scaling,
                elements,
                rate: RATE,
                momentum: MOMENTUM,
                copy_type,
                unused: 0,
            };
            sim.run(Kernel::Sgd(T::DATA_TYPE), way.shape, &arguments, &uses);
        }
    }
}

/// The CPU's optimizer over the same weights, given gradients.
struct Cpu {
    weights: Tensor,
    optimizer: Box<dyn Optimizer>,
}

impl Cpu {
    fn new(weights: &[f32], adamw: bool) -> Cpu {
        let weights = Tensor::new(weights.to_vec(), &[weights.len()]).unwrap().trainable();
        let all = vec![weights.clone()];
        let optimizer: Box<dyn Optimizer> = if adamw {
            Box::new(optim::AdamW::with(all, RATE, BETAS, EPSILON, DECAY).unwrap())
        } else {
            Box::new(optim::Sgd::new(all, RATE, MOMENTUM).unwrap())
        };
        Cpu { weights, optimizer }
    }

    fn step(&mut self, gradients: &[f32]) -> Vec<f32> {
        self.optimizer.zero_grad().unwrap();
        let gradients = Tensor::new(gradients.to_vec(), &[gradients.len()]).unwrap();
        self.weights.mul(&gradients).unwrap().sum().unwrap().backward().unwrap();
        self.optimizer.step().unwrap();
        self.weights.to_vec().unwrap()
    }
}

/// Three steps: the weights of the CPU, bit for bit, and their copy. A scale that is a power of two changes nothing, as
/// long as nothing is below the smallest ordinary number.
fn updates<T: Float>(adamw: bool) {
    let Some(sim) = Sim::new() else { return };
    let copies = [NO_COPY, COPY_F16, COPY_BF16];
    let library = chosen(Shape::of(Kernel::Sgd(T::DATA_TYPE), 4096 * 10, 8));
    for (turn, count) in [0, 1, 7, 8, 9, 64, 1003].into_iter().enumerate() {
        for (place, shape) in SHAPES.into_iter().chain([library]).enumerate() {
            let scale = [None, Some(64.0)][place % 2];
            let way = Way { adamw, copy_type: copies[(turn + place) % 3], scale, offset: place % 3, shape };
            let weights = Draw(1).floats::<f32>(count);
            let (mut cpu, state) = (Cpu::new(&weights, adamw), State::new(&sim, &weights, way));
            let mut draw = Draw(2);
            for step in 0..3 {
                let gradients: Vec<T> = draw.floats(count);
                let scale = scale.unwrap_or(1.0);
                let scaled: Vec<T> = gradients.iter().map(|gradient| T::rounded(gradient.wide() * scale)).collect();
                let right = cpu.step(&gradients.iter().map(|gradient| gradient.wide()).collect::<Vec<_>>());
                state.update(&sim, &scaled, way);
                let got = sim.read(&state.weights);
                assert_eq!(bits(&got), bits(&right), "{count} {shape:?} step {step}");
                let copy = sim.read(&state.copy);
                let expected: Vec<u16> = match way.copy_type {
                    COPY_F16 => right.iter().map(|value| f16::rounded(*value).to_bits()).collect(),
                    COPY_BF16 => right.iter().map(|value| bf16::rounded(*value).to_bits()).collect(),
                    _ => vec![7; count],
                };
                assert_eq!(copy, expected, "the copy");
            }
        }
    }
}

#[test]
fn gradient_descent_has_the_bits_of_the_cpu() {
    updates::<f32>(false);
    updates::<f16>(false);
    updates::<bf16>(false);
}

#[test]
fn adamw_has_the_bits_of_the_cpu() {
    updates::<f32>(true);
    updates::<f16>(true);
    updates::<bf16>(true);
}

/// A skipped step changes nothing, and does not count.
#[test]
fn a_skipped_step_changes_nothing() {
    let Some(sim) = Sim::new() else { return };
    for adamw in [false, true] {
        let way = Way { adamw, copy_type: COPY_BF16, scale: Some(2.0), offset: 0, shape: (2, 32) };
        let (weights, gradients) = (Draw(3).floats::<f32>(100), Draw(4).floats::<f32>(100));
        let [skipping, other] = [0, 1].map(|_| State::new(&sim, &weights, way));
        let mut state = Vec::new();
        for overflow in [0, 1, 0] {
            sim.stream.write(&skipping.scaling.part(1..2).unwrap(), &[overflow]).unwrap();
            let wrong = vec![f32::INFINITY; 100];
            skipping.update(&sim, if overflow == 0 { &gradients } else { &wrong }, way);
            if overflow == 0 {
                other.update(&sim, &gradients, way);
            }
            state = [&skipping, &other]
                .map(|state| {
                    let floats = [&state.weights, &state.moments, &state.squares].map(|floats| bits(&sim.read(floats)));
                    (floats, sim.read(&state.copy), sim.read(&state.step))
                })
                .to_vec();
            assert!(state[0] == state[1], "adamw: {adamw}, overflow: {overflow}");
        }
        assert_eq!(state[0].2[0] == f64::to_bits(1.0), !adamw);
    }
}

/// One step against f64. With u the unit of f32, each operation rounds once.
///
/// Gradient descent from velocity v: momentum v is off by u of itself, the new velocity w by that and u of itself; the
/// product with the rate adds u of itself; the difference another of itself.
///
/// AdamW in step one, where m = (1 - beta1) g and v = (1 - beta2) g g: factors, products and sums make m off by 3 u of
/// itself, v by 4 u, so its root by 3 u; root and quotient add 2 u, epsilon's sum 1, the quotient by it 1, pace and its
/// product 2: the step is off by 12 u of itself, the decayed weight by 2 u, and their difference by u of itself.
#[test]
fn one_step_is_near_that_of_f64() {
    let Some(sim) = Sim::new() else { return };
    let (weights, gradients) = (Draw(5).floats::<f32>(333), Draw(6).floats::<f32>(333));
    let u = f32::UNIT;
    let wide = f64::from;
    for adamw in [false, true] {
        let way = Way { adamw, copy_type: NO_COPY, scale: None, offset: 0, shape: (1, 64) };
        let state = State::new(&sim, &weights, way);
        state.update(&sim, &gradients, way);
        let velocities = Draw(7).floats::<f32>(333);
        if !adamw {
            sim.stream.write(&state.weights, &weights).unwrap();
            sim.stream.write(&state.moments, &velocities).unwrap();
            state.update(&sim, &gradients, way);
        }
        for (i, got) in sim.read(&state.weights).into_iter().enumerate() {
            let (weight, gradient) = (wide(weights[i]), wide(gradients[i]));
            let (exact, off) = if adamw {
                let (m, v) = ((1.0 - wide(BETAS.0)) * gradient, (1.0 - wide(BETAS.1)) * gradient * gradient);
                let (pace, root) = (wide(RATE) / (1.0 - wide(BETAS.0)), (1.0 - wide(BETAS.1)).sqrt());
                let step = pace * m / (v.sqrt() / root + wide(EPSILON));
                let kept = weight * (1.0 - wide(RATE) * wide(DECAY));
                (kept - step, u * (12.0 * step.abs() + 2.0 * kept.abs() + (kept - step).abs()))
            } else {
                let carried = wide(MOMENTUM) * wide(velocities[i]);
                let velocity = carried + gradient;
                let exact = weight - wide(RATE) * velocity;
                (exact, u * (wide(RATE) * (carried.abs() + 2.0 * velocity.abs()) + exact.abs()))
            };
            let distance = (wide(got) - exact).abs();
            assert!(distance <= off * 1.001 + f32::LEAST, "{got} is off {exact} by {distance}; the bound is {off}");
        }
    }
}
