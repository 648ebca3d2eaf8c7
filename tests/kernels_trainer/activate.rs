// SPDX-License-Identifier: MPL-2.0
//! Bias and activation.

use annulus::driver::Use;
use annulus::kernel::training::{Activate, NO_ACTIVATION, RECTIFIER};
use annulus::kernel::{Kernel, Shape};
use annulus::tensor::Tensor;
use annulus::{DataType, bf16, f16};

use super::{Draw, Float, SHAPES, Sim, bits, chosen, error_of};

/// Rows and columns.
const EXTENTS: [(usize, usize); 9] = [(0, 3), (1, 1), (7, 1), (1, 13), (5, 3), (32, 10), (32, 64), (9, 257), (700, 3)];

/// Numbers, and some of the special ones among them.
pub fn drawn<T: Float>(count: usize, seed: u64) -> Vec<T> {
    let special = [-0.0, 0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-7, -1e-7];
    let mut draw = Draw(seed);
    let mut next = |i: usize| if i % 5 == 3 { T::rounded(special[i / 5 % 7]) } else { draw.float() };
    (0..count).map(&mut next).collect()
}

fn rectified(value: f32) -> f32 {
    if value < 0.0 { 0.0 } else { value }
}

fn forward<T: Float>() {
    let Some(sim) = Sim::new() else { return };
    for (rows, columns) in EXTENTS {
        let count = rows * columns;
        let (from, bias) = (drawn::<T>(count, 1), drawn::<T>(columns, 2));
        for (with_bias, activation) in [(true, RECTIFIER), (true, NO_ACTIVATION), (false, RECTIFIER)] {
            let sum = |i: usize| if with_bias { bias[i % columns].wide() + from[i].wide() } else { from[i].wide() };
            let value = |sum: f32| if activation == RECTIFIER { rectified(sum) } else { sum };
            let expected: Vec<T> = (0..count).map(|i| T::rounded(value(sum(i)))).collect();
            // The sum of two floats rounds once, so what is stored is off by u of the sum and the type's unit of that.
            for (i, got) in expected.iter().enumerate().filter(|(_, got)| got.wide().is_finite()) {
                let bias = if with_bias { f64::from(bias[i % columns].wide()) } else { 0.0 };
                let exact = f64::from(from[i].wide()) + bias;
                let exact = if activation == RECTIFIER { exact.max(0.0) } else { exact };
                let bound = error_of::<T>(exact, exact.abs() * f32::UNIT);
                assert!((f64::from(got.wide()) - exact).abs() <= bound, "{got:?} {exact}");
            }
            let library = chosen(Shape::of(Kernel::Activate(T::DATA_TYPE), (count * size_of::<T>()) as u64, 8));
            for (turn, shape) in SHAPES.into_iter().chain([library]).enumerate() {
                for in_place in [false, true] {
                    let offset = turn % 3;
                    let source = sim.upload(&from, offset);
                    let biases = sim.upload(&bias, turn % 2);
                    let to = if in_place { source.clone() } else { sim.upload(&vec![T::zeroed(); count], offset) };
                    let arguments = Activate {
                        from: source.address(),
                        bias: if with_bias { biases.address() } else { 0 },
                        to: to.address(),
                        elements: count as u64,
                        columns: columns as u64,
                        activation,
                        unused: 0,
                    };
                    let uses = [Use::reads(&source), Use::reads(&biases), Use::writes(&to)];
                    sim.run(
                        Kernel::Activate(T::DATA_TYPE),
                        shape,
                        &arguments,
                        if in_place { &uses[1..] } else { &uses },
                    );
                    assert_eq!(bits(&sim.read(&to)), bits(&expected), "{rows} x {columns} {shape:?} {in_place}");
                }
            }
        }
    }
}

#[test]
fn forward_of_every_type() {
    forward::<f32>();
    forward::<f16>();
    forward::<bf16>();
}

/// The rectifier of the CPU trainer.
#[test]
fn rectifier_has_the_bits_of_the_cpu() {
    let Some(sim) = Sim::new() else { return };
    let from = Draw(5).floats::<f32>(640);
    let output = Tensor::new(from.clone(), &[640]).unwrap().relu().unwrap();
    let values = sim.upload(&from, 0);
    let (address, elements) = (values.address(), 640);
    let forward =
        Activate { from: address, bias: 0, to: address, elements, columns: 0, activation: RECTIFIER, unused: 0 };
    sim.run(Kernel::Activate(DataType::F32), (3, 32), &forward, &[Use::writes(&values)]);
    assert_eq!(bits(&sim.read(&values)), bits(&output.to_vec().unwrap()));
}
