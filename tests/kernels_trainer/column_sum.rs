// SPDX-License-Identifier: MPL-2.0
//! Sums of columns, and the way back through a rectifier before them.

use annulus::driver::Use;
use annulus::kernel::training::ColumnSum;
use annulus::kernel::{Kernel, Shape};
use annulus::tensor::Tensor;
use annulus::{DataType, bf16, f16};

use super::activate::drawn;
use super::{Draw, Float, SHAPES, Sim, bits, chosen, error_of};

fn run<T: Float, To: Float>(
    sim: &Sim,
    (rows, columns): (usize, usize),
    values: &[T],
    start: &[To],
    accumulate: bool,
    shape: (u32, u32),
) -> Vec<To> {
    let (from, to) = (sim.upload(values, 1), sim.upload(start, 1));
    let arguments = ColumnSum {
        from: from.address(),
        output: 0,
        to: to.address(),
        rows: rows as u64,
        columns: columns as u64,
        accumulate: accumulate.into(),
        unused: 0,
    };
    let kernel = Kernel::ColumnSum { from: T::DATA_TYPE, to: To::DATA_TYPE };
    sim.run(kernel, shape, &arguments, &[Use::reads(&from), Use::writes(&to)]);
    sim.read(&to)
}

fn sums<T: Float, To: Float>() {
    let Some(sim) = Sim::new() else { return };
    for (rows, columns) in [(0, 3), (1, 1), (1, 70), (33, 1), (32, 10), (7, 129), (500, 5), (1100, 17)] {
        let (values, start) = (Draw(1).floats::<T>(rows * columns), Draw(2).floats::<To>(columns));
        let column = |column: usize| values.iter().skip(column).step_by(columns).map(|value| value.wide());
        for accumulate in [false, true] {
            let first = |place: usize| if accumulate { start[place].wide() } else { 0.0 };
            let expected: Vec<To> = (0..columns)
                .map(|place| To::rounded(column(place).fold(first(place), |sum, value| sum + value)))
                .collect();
            for (place, got) in expected.iter().enumerate() {
                let exact = f64::from(first(place)) + column(place).map(f64::from).sum::<f64>();
                // Each of `rows` sums rounds once, so each term has at most `rows` factors between 1 - u and 1 + u.
                let size =
                    f64::from(first(place)).abs() + column(place).map(|value| f64::from(value).abs()).sum::<f64>();
                let g = rows as f64 * f32::UNIT / (1.0 - rows as f64 * f32::UNIT);
                assert!((f64::from(got.wide()) - exact).abs() <= error_of::<To>(exact, g * size), "{got:?} {exact}");
            }
            for shape in SHAPES.into_iter().chain([chosen(Shape::of_columns(columns as u64, 8))]) {
                let got = run::<T, To>(&sim, (rows, columns), &values, &start, accumulate, shape);
                assert_eq!(bits(&got), bits(&expected), "{rows} x {columns} {shape:?}");
            }
        }
    }
}

#[test]
fn of_every_type() {
    sums::<f32, f32>();
    sums::<f16, f16>();
    sums::<bf16, bf16>();
    sums::<f16, f32>();
    sums::<bf16, f32>();
}

/// The gradient of a linear layer's bias, as the CPU trainer computes it.
#[test]
fn of_f32_has_the_bits_of_the_cpu() {
    let Some(sim) = Sim::new() else { return };
    let (rows, columns) = (32, 10);
    let upstream = Draw(3).floats::<f32>(rows * columns);
    let input = Tensor::new(vec![0.0; rows], &[rows, 1]).unwrap();
    let weight = Tensor::new(vec![0.0; columns], &[columns, 1]).unwrap();
    let bias = Tensor::new(vec![0.0; columns], &[columns]).unwrap().trainable();
    let output = input.linear(&weight, &bias).unwrap();
    let upstream_tensor = Tensor::new(upstream.clone(), &[rows, columns]).unwrap();
    output.mul(&upstream_tensor).unwrap().sum().unwrap().backward().unwrap();
    let got = run(&sim, (rows, columns), &upstream, &vec![0.0_f32; columns], false, (1, 64));
    assert_eq!(bits(&got), bits(&bias.grad().unwrap().read().unwrap()));
}

/// Where the rectifier put out nothing, a gradient becomes zero before it is added.
fn rectified<T: Float>() {
    let Some(sim) = Sim::new() else { return };
    for (rows, columns) in [(0, 3), (1, 1), (1, 70), (33, 1), (32, 10), (7, 129), (1100, 17)] {
        let gradient = Draw(3).floats::<T>(rows * columns);
        let output = drawn::<T>(rows * columns, 4);
        let each = gradient.iter().zip(&output);
        let back: Vec<T> =
            each.map(|(own, output)| T::rounded(if output.wide() > 0.0 { own.wide() } else { 0.0 })).collect();
        let sum = |column: usize| back.iter().skip(column).step_by(columns).fold(0.0, |sum, value| sum + value.wide());
        let expected: Vec<T> = (0..columns).map(|column| T::rounded(sum(column))).collect();
        for shape in SHAPES.into_iter().chain([chosen(Shape::of_columns(columns as u64, 8))]) {
            let [from, outputs] = [&gradient, &output].map(|values| sim.upload(values, 1));
            let to = sim.upload(&vec![T::zeroed(); columns], 0);
            let arguments = ColumnSum {
                from: from.address(),
                output: outputs.address(),
                to: to.address(),
                rows: rows as u64,
                columns: columns as u64,
                accumulate: 0,
                unused: 0,
            };
            let uses = [Use::reads(&outputs), Use::writes(&from), Use::writes(&to)];
            sim.run(Kernel::ColumnSum { from: T::DATA_TYPE, to: T::DATA_TYPE }, shape, &arguments, &uses);
            assert_eq!(bits(&sim.read(&from)), bits(&back), "{rows} x {columns} {shape:?}");
            assert_eq!(bits(&sim.read(&to)), bits(&expected), "{rows} x {columns} {shape:?}");
        }
    }
}

#[test]
fn of_what_came_back_through_a_rectifier() {
    rectified::<f32>();
    rectified::<f16>();
    rectified::<bf16>();
}

/// The rectifier's derivative is that of the CPU trainer.
#[test]
fn the_way_back_has_the_bits_of_the_cpu() {
    let Some(sim) = Sim::new() else { return };
    let (from, upstream) = (Draw(5).floats::<f32>(640), Draw(6).floats::<f32>(640));
    let input = Tensor::new(from, &[640]).unwrap().trainable();
    let output = input.relu().unwrap();
    output.mul(&Tensor::new(upstream.clone(), &[640]).unwrap()).unwrap().sum().unwrap().backward().unwrap();
    let (gradients, outputs) = (sim.upload(&upstream, 0), sim.upload(&output.to_vec().unwrap(), 0));
    let to = sim.upload(&[0.0_f32; 10], 0);
    let arguments = ColumnSum {
        from: gradients.address(),
        output: outputs.address(),
        to: to.address(),
        rows: 64,
        columns: 10,
        accumulate: 0,
        unused: 0,
    };
    let uses = [Use::reads(&outputs), Use::writes(&gradients), Use::writes(&to)];
    sim.run(Kernel::ColumnSum { from: DataType::F32, to: DataType::F32 }, (3, 32), &arguments, &uses);
    assert_eq!(bits(&sim.read(&gradients)), bits(&input.grad().unwrap().read().unwrap()));
}
