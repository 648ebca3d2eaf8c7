// SPDX-License-Identifier: MPL-2.0
//! Matrix products on one thread, by the `gemm` crate.
//!
//! The crate is built without its thread pool and called with `Parallelism::None`. It picks a kernel by the machine's
//! instruction set, and blocks by the sizes of its caches and by the shapes; never by addresses or by load. So a
//! product's bits depend on the operands, their shapes and layouts, and the machine. Multiply and add are fused.
#![allow(unsafe_code)]

use gemm::Parallelism;

/// A matrix: rows and columns over row-major values, or the transpose of such a one.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Row-major; there are rows x columns values.
    pub(super) fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(values.len(), rows * columns, "a matrix of {rows} x {columns}");
        Matrix { values, rows, columns, row_stride: columns, column_stride: 1 }
    }

    pub(super) fn transposed(self) -> Self {
        Matrix {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// Adds left x right to `sum`, a row-major matrix of left's rows and right's columns.
pub(super) fn add_product(sum: &mut [f32], left: Matrix<'_>, right: Matrix<'_>) {
    let (rows, inner, columns) = (left.rows, left.columns, right.columns);
    assert_eq!(inner, right.rows, "a product of {rows} x {inner} by {} x {columns}", right.rows);
    assert_eq!(sum.len(), rows * columns, "a product of {rows} x {columns}");
    if sum.is_empty() || inner == 0 {
        return;
    }
    // SAFETY: `gemm` writes element (i, j) of the destination at `i * columns + j` for i < rows and j < columns, which
    // the second assertion keeps inside `sum`; `sum` is borrowed exclusively, so it overlaps neither operand. It reads
    // element (i, j) of an operand at `i * row_stride + j * column_stride`. `Matrix::new` is the only constructor: its
    // assertion makes the length rows x columns, and its strides (columns, 1) map the indices one to one into that
    // length; `transposed` exchanges extents and strides together, which visits the same offsets. The first assertion
    // makes the inner extents equal. `sum` is initialised, as `read_dst` requires, and f32 is among the types that
    // `gemm` dispatches on. Strides fit isize because a slice has at most isize::MAX bytes.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            sum.as_mut_ptr(),
            1,
            columns as isize,
            true,
            left.values.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.values.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Random;

    /// Every path of the crate (vector, thin, small, blocked; each operand transposed or not) against a product in f64.
    #[test]
    fn products_are_right() {
        let mut random = Random::new(&[1]);
        for (rows, inner, columns) in
            [(1, 1, 1), (1, 7, 5), (5, 7, 1), (1, 600, 33), (33, 600, 1), (3, 2, 4), (16, 64, 10), (70, 130, 65)]
        {
            let mut draw = |n: usize| (0..n).map(|_| random.uniform(-1.0, 1.0)).collect::<Vec<f32>>();
            let (left, right, start) = (draw(rows * inner), draw(inner * columns), draw(rows * columns));
            let flip = |values: &[f32], rows: usize, columns: usize| -> Vec<f32> {
                (0..columns)
                    .flat_map(|j| (0..rows).map(move |i| (i, j)))
                    .map(|(i, j)| values[i * columns + j])
                    .collect()
            };
            let (left_flipped, right_flipped) = (flip(&left, rows, inner), flip(&right, inner, columns));
            let lefts = [Matrix::new(&left, rows, inner), Matrix::new(&left_flipped, inner, rows).transposed()];
            let rights =
                [Matrix::new(&right, inner, columns), Matrix::new(&right_flipped, columns, inner).transposed()];
            for (l, r) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let mut sum = start.clone();
                add_product(&mut sum, lefts[l], rights[r]);
                for i in 0..rows {
                    for j in 0..columns {
                        let terms = (0..inner).map(|t| left[i * inner + t] as f64 * right[t * columns + j] as f64);
                        let exact = start[i * columns + j] as f64 + terms.clone().sum::<f64>();
                        let size = 1.0 + terms.map(f64::abs).sum::<f64>();
                        let bound = (inner + 1) as f64 * f32::EPSILON as f64 * size;
                        let got = sum[i * columns + j] as f64;
                        assert!(
                            (got - exact).abs() <= bound,
                            "{rows}x{inner}x{columns} {l}{r} at {i},{j}: {got} {exact}"
                        );
                    }
                }
            }
        }
    }

    /// The same operands at other addresses give the same bits.
    #[test]
    fn bits_do_not_depend_on_addresses() {
        let mut random = Random::new(&[2]);
        let (rows, inner, columns) = (37, 300, 41);
        let values: Vec<f32> = (0..inner * (rows + columns)).map(|_| random.uniform(-1.0, 1.0)).collect();
        let product = |offset: usize| {
            let shifted: Vec<f32> = std::iter::repeat_n(0.0, offset).chain(values.iter().copied()).collect();
            let (left, right) = shifted[offset..].split_at(rows * inner);
            let mut sum = vec![0.0; offset + rows * columns];
            let (left, right) = (Matrix::new(left, rows, inner), Matrix::new(right, columns, inner).transposed());
            add_product(&mut sum[offset..], left, right);
            sum[offset..].iter().map(|value| value.to_bits()).collect::<Vec<u32>>()
        };
        let first = product(0);
        assert!((1..20).all(|offset| product(offset) == first));
    }
}
