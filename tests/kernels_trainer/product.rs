// SPDX-License-Identifier: MPL-2.0
//! Matrix products.

use annulus::driver::Use;
use annulus::kernel::training::Product;
use annulus::kernel::{Kernel, Shape};
use annulus::{bf16, f16};

use super::{Draw, Float, Sim, bits, chosen, error_of};

/// Rows, inner extent, columns: ones, odd numbers, nothing to sum, tiles (64 x 64 and 32 x 32) and one more or less, and
/// what a step of training multiplies.
const EXTENTS: [(usize, usize, usize); 16] = [
    (1, 1, 1),
    (1, 7, 5),
    (5, 1, 7),
    (7, 5, 1),
    (3, 0, 2),
    (0, 4, 3),
    (8, 32, 8),
    (64, 32, 64),
    (96, 48, 32),
    (63, 31, 65),
    (65, 33, 63),
    (1, 130, 200),
    (130, 3, 1),
    (32, 64, 10),
    (10, 32, 64),
    (129, 70, 66),
];

/// Launch shapes: one thread, less than a block's work, what is usual, and the most threads that products have.
const SHAPES: [(u32, u32); 4] = [(1, 1), (3, 24), (1, 64), (5, 128)];

/// A matrix as it lies in memory: by rows, or by columns.
#[derive(Clone, Copy, Debug)]
enum Order {
    Rows,
    Columns,
}

impl Order {
    /// Elements from a row to the next, and from a column to the next.
    fn steps(self, rows: usize, columns: usize) -> (u64, u64) {
        match self {
            Order::Rows => (columns as u64, 1),
            Order::Columns => (1, rows as u64),
        }
    }

    /// Of values by rows.
    fn arranged<T: Float>(self, values: &[T], rows: usize, columns: usize) -> Vec<T> {
        match self {
            Order::Rows => values.to_vec(),
            Order::Columns => (0..rows * columns).map(|at| values[at % rows * columns + at / rows]).collect(),
        }
    }
}

/// Left and right as the forward pass, the gradient of the input and that of the weight need them, and what is left.
const ORDERS: [[Order; 2]; 4] = [
    [Order::Rows, Order::Columns],
    [Order::Rows, Order::Rows],
    [Order::Columns, Order::Rows],
    [Order::Columns, Order::Columns],
];

struct Case<T> {
    rows: usize,
    inner: usize,
    columns: usize,
    left: Vec<T>,
    right: Vec<T>,
}

impl<T: Float> Case<T> {
    fn new((rows, inner, columns): (usize, usize, usize)) -> Self {
        let mut draw = Draw((rows * 1_000_000 + inner * 1000 + columns) as u64);
        Case { rows, inner, columns, left: draw.floats(rows * inner), right: draw.floats(inner * columns) }
    }

    /// The terms of an element.
    fn terms(&self, row: usize, column: usize) -> impl Iterator<Item = (f32, f32)> {
        let right = self.right.iter().skip(column).step_by(self.columns);
        let left = &self.left[row * self.inner..(row + 1) * self.inner];
        left.iter().zip(right).map(|(left, right)| (left.wide(), right.wide()))
    }

    fn of_each<R>(&self, value: impl Fn(usize, usize) -> R) -> Vec<R> {
        (0..self.rows * self.columns).map(|at| value(at / self.columns, at % self.columns)).collect()
    }

    /// The chain of each element, as the kernel's source promises it.
    fn sums(&self) -> Vec<f32> {
        self.of_each(|row, column| self.terms(row, column).fold(0.0, |sum: f32, (a, b)| a.mul_add(b, sum)))
    }

    /// Each element in f64, and how far off the chain may be. In f64 the products are exact, and their sum is off by
    /// less than 2^-29 of what f32 may be off. In f32 each of `inner` steps rounds once, so each term is multiplied by
    /// at most `inner` factors between 1 - u and 1 + u: with g = inner u / (1 - inner u), the sum is off by at most g
    /// times the sum of the terms' sizes (Higham, "Accuracy and stability of numerical algorithms", 2002, chapter 3); a
    /// step whose result is subnormal is off by at most 2^-150 instead.
    fn exact(&self) -> Vec<(f64, f64)> {
        let steps = self.inner as f64;
        let g = steps * f32::UNIT / (1.0 - steps * f32::UNIT) * (1.0 + f32::UNIT);
        self.of_each(|row, column| {
            let products = || self.terms(row, column).map(|(a, b)| f64::from(a) * f64::from(b));
            (products().sum(), g * products().map(f64::abs).sum::<f64>() + steps * f32::LEAST)
        })
    }

    /// What the kernel makes of it, by small tiles or by large ones, added to `start` if there is one. Bits of the margins
    /// must stay.
    fn product<To: Float>(
        &self,
        sim: &Sim,
        orders: [Order; 2],
        offset: usize,
        start: Option<&[To]>,
        (shape, small): ((u32, u32), bool),
    ) -> Vec<To> {
        let Case { rows, inner, columns, .. } = *self;
        let left = sim.upload(&orders[0].arranged(&self.left, rows, inner), offset);
        let right = sim.upload(&orders[1].arranged(&self.right, inner, columns), offset % 3);
        let margin = To::rounded(77.0);
        let mut around = vec![margin; offset];
        around.extend(start.map_or(vec![To::rounded(f32::NAN); rows * columns], <[To]>::to_vec));
        around.extend([margin; 9]);
        let to = sim.upload(&around, 0);
        let (left_row, left_column) = orders[0].steps(rows, inner);
        let (right_row, right_column) = orders[1].steps(inner, columns);
        let arguments = Product {
            left: left.address(),
            right: right.address(),
            to: to.address() + (offset * size_of::<To>()) as u64,
            rows: rows as u64,
            columns: columns as u64,
            inner: inner as u64,
            left_row,
            left_column,
            right_row,
            right_column,
            accumulate: u32::from(start.is_some()),
            small: small.into(),
        };
        let kernel = Kernel::Product { from: T::DATA_TYPE, to: To::DATA_TYPE };
        sim.run(kernel, shape, &arguments, &[Use::reads(&left), Use::reads(&right), Use::writes(&to)]);
        let mut got = sim.read(&to);
        let after = got.split_off(offset + rows * columns);
        let before: Vec<To> = got.drain(..offset).collect();
        assert_eq!(bits(&[before, after].concat()), bits(&vec![margin; offset + 9]), "the margins");
        got
    }
}

/// Every order of the operands and every launch shape, each with another alignment, against the chains; the chains
/// against f64.
fn products<T: Float, To: Float>() {
    let Some(sim) = Sim::new() else { return };
    for extents in EXTENTS {
        let case = Case::<T>::new(extents);
        let sums = case.sums();
        let stored: Vec<To> = sums.iter().map(|sum| To::rounded(*sum)).collect();
        for (got, (exact, bound)) in stored.iter().zip(case.exact()) {
            let (off, bound) = ((f64::from(got.wide()) - exact).abs(), error_of::<To>(exact, bound));
            assert!(off <= bound, "{extents:?}: {got:?} is off {exact} by {off}; the bound is {bound}");
        }
        // Few blocks have room, or many.
        let [few, many] = [8, 1000].map(|resident| {
            let (shape, small) = Shape::of_product(case.rows as u64, case.columns as u64, resident);
            (chosen(shape), small)
        });
        for (turn, orders) in ORDERS.into_iter().enumerate() {
            for (how, offset) in [few, many, (SHAPES[turn], turn % 2 == 0)].into_iter().zip([0, 0, turn + 1]) {
                let got = case.product::<To>(&sim, orders, offset, None, how);
                assert_eq!(bits(&got), bits(&stored), "{extents:?} {orders:?} {how:?}");
            }
        }
        let start = Draw(9).floats::<To>(sums.len());
        let added: Vec<To> = start.iter().zip(&sums).map(|(start, sum)| To::rounded(start.wide() + sum)).collect();
        for (shape, offset) in SHAPES.into_iter().zip([0, 1, 2, 4]) {
            let how = (shape, offset < 2);
            let got = case.product(&sim, ORDERS[0], offset, Some(&start), how);
            assert_eq!(bits(&got), bits(&added), "{extents:?}, added, {how:?}");
        }
    }
}

#[test]
fn of_f32() {
    products::<f32, f32>();
}

#[test]
fn of_f16() {
    products::<f16, f16>();
}

#[test]
fn of_bf16() {
    products::<bf16, bf16>();
}

#[test]
fn of_f16_in_f32() {
    products::<f16, f32>();
}

#[test]
fn of_bf16_in_f32() {
    products::<bf16, f32>();
}

/// A step of a chain rounds once. With two roundings the first of these sums would be 0.
#[test]
fn multiplies_and_adds_in_one_step() {
    let Some(sim) = Sim::new() else { return };
    let (one, little) = (1.0_f32, 1.0 / 4096.0);
    let case = Case { rows: 1, inner: 2, columns: 1, left: vec![one, one + little], right: vec![one, -(one - little)] };
    // (1 + e)(1 - e) = 1 - e^2, which a float does not hold.
    assert_eq!(case.product::<f32>(&sim, ORDERS[0], 0, None, ((1, 64), false)), [little * little]);
}

/// Zeros in the tiles stand beside nothing: what is infinite or NaN stays in its row and column.
#[test]
fn infinities_stay_in_their_rows() {
    let Some(sim) = Sim::new() else { return };
    let mut case = Case::<f32>::new((65, 33, 66));
    case.left[3 * 33] = f32::INFINITY;
    case.right[32 * 66 + 65] = f32::NAN;
    let stored: Vec<f32> = case.sums().into_iter().map(f32::rounded).collect();
    for small in [false, true] {
        let got = case.product::<f32>(&sim, ORDERS[1], 0, None, ((2, 64), small));
        assert_eq!(bits(&got), bits(&stored));
        assert_eq!(got.iter().filter(|value| !value.is_finite()).count(), 66 + 65 - 1);
    }
}
