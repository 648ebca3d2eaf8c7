// SPDX-License-Identifier: MPL-2.0
//! Sums of columns.

use annulus::driver::Use;
use annulus::kernel::training::ColumnSum;
use annulus::kernel::{Kernel, Shape};
use annulus::tensor::Tensor;
use annulus::{bf16, f16};

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
    for (rows, columns) in [(0, 3), (1, 1), (1, 70), (33, 1), (32, 10), (7, 129), (500, 5)] {
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
            for shape in SHAPES.into_iter().chain([chosen(Shape::of_each(columns as u64, 8))]) {
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
