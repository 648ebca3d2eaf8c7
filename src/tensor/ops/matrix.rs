// SPDX-License-Identifier: MPL-2.0
//! Matrix product, and the linear layer's product with its bias.

use super::arithmetic::accumulate;
use crate::error::{Error, Result};
use crate::tensor::product::{Matrix, add_product};
use crate::tensor::{Shape, Storage, Tensor};

impl Tensor {
    /// The matrix product of `[m, k]` and `[k, n]`: `[m, n]`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if one of them is no matrix, their inner extents differ, or values cannot be read at this
    /// moment.
    pub fn matmul(&self, other: &Tensor) -> Result<Tensor> {
        let (&[m, k], &[inner, n]) = (self.shape(), other.shape()) else {
            return Err(mismatch("matmul needs [m, k] and [k, n]", &[self, other]));
        };
        if k != inner {
            return Err(mismatch("matmul needs [m, k] and [k, n]", &[self, other]));
        }
        let mut values = zeros(m, n)?;
        add_product(&mut values, Matrix::new(&self.values()?, m, k), Matrix::new(&other.values()?, k, n));
        // d(A B): g B^T to A, A^T g to B.
        Ok(Tensor::computed(Storage::new(values), &[m, n], &[self, other], move |flow| {
            let (a, b) = (flow.input(0)?, flow.input(1)?);
            let (g, a, b) = (Matrix::new(flow.grad, m, n), Matrix::new(&a, m, k), Matrix::new(&b, k, n));
            flow.add(1, |db| {
                add_product(db, a.transposed(), g);
                Ok(())
            })?;
            flow.add(0, |da| {
                add_product(da, g, b.transposed());
                Ok(())
            })
        }))
    }

    /// The linear layer of input `[m, in]`, weight `[out, in]` and bias `[out]`: self x weight^T + bias, `[m, out]`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the shapes do not fit, or values cannot be read at this moment.
    pub fn linear(&self, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let (&[m, inputs], &[outputs, inner], &[biases]) = (self.shape(), weight.shape(), bias.shape()) else {
            return Err(mismatch("linear needs [m, in], [out, in] and [out]", &[self, weight, bias]));
        };
        if inputs != inner || outputs != biases {
            return Err(mismatch("linear needs [m, in], [out, in] and [out]", &[self, weight, bias]));
        }
        let mut values = zeros(m, outputs)?;
        let bias_values = bias.values()?;
        values.chunks_exact_mut(outputs.max(1)).for_each(|row| row.copy_from_slice(&bias_values));
        let weight_matrix = weight.values()?;
        let transposed = Matrix::new(&weight_matrix, outputs, inputs).transposed();
        add_product(&mut values, Matrix::new(&self.values()?, m, inputs), transposed);
        // d(X W^T + b): the sum of g's rows to b, g^T X to W, g W to X. The leaves come first: their hooks run early.
        Ok(Tensor::computed(Storage::new(values), &[m, outputs], &[self, weight, bias], move |flow| {
            let (x, w) = (flow.input(0)?, flow.input(1)?);
            let g = Matrix::new(flow.grad, m, outputs);
            let rows = flow.grad.chunks_exact(outputs.max(1));
            flow.add(2, |db| rows.into_iter().try_for_each(|row| accumulate(db, row.iter().copied())))?;
            flow.add(1, |dw| {
                add_product(dw, g.transposed(), Matrix::new(&x, m, inputs));
                Ok(())
            })?;
            flow.add(0, |dx| {
                add_product(dx, g, Matrix::new(&w, outputs, inputs));
                Ok(())
            })
        }))
    }
}

fn zeros(rows: usize, columns: usize) -> Result<Vec<f32>> {
    let len = rows.checked_mul(columns).filter(|len| *len <= isize::MAX as usize / size_of::<f32>());
    let len = len.ok_or_else(|| Error::invalid(format!("a matrix of {rows} x {columns} does not fit into memory")))?;
    Ok(vec![0.0; len])
}

fn mismatch(needs: &str, tensors: &[&Tensor]) -> Error {
    let shapes: Vec<String> = tensors.iter().map(|tensor| Shape(tensor.shape()).to_string()).collect();
    Error::invalid(format!("{needs}; these have {}", shapes.join(", ")))
}
