// SPDX-License-Identifier: MPL-2.0
//! Element by element: sum, difference, product, and product with a number.

use crate::error::{Error, Result};
use crate::tensor::{Shape, Storage, Tensor};

impl Tensor {
    /// self + other, of one shape.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the shapes differ, or values cannot be read at this moment.
    pub fn add(&self, other: &Tensor) -> Result<Tensor> {
        let values = self.zip(other, "add", |a, b| a + b)?;
        // d(a + b): g to a, g to b.
        Ok(Tensor::computed(values, self.shape(), &[self, other], |flow| {
            let g = flow.grad;
            flow.add(0, |da| accumulate(da, g.iter().copied()))?;
            flow.add(1, |db| accumulate(db, g.iter().copied()))
        }))
    }

    /// self - other, of one shape.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add).
    pub fn sub(&self, other: &Tensor) -> Result<Tensor> {
        let values = self.zip(other, "sub", |a, b| a - b)?;
        // d(a - b): g to a, -g to b.
        Ok(Tensor::computed(values, self.shape(), &[self, other], |flow| {
            let g = flow.grad;
            flow.add(0, |da| accumulate(da, g.iter().copied()))?;
            flow.add(1, |db| accumulate(db, g.iter().map(|g| -g)))
        }))
    }

    /// self * other, element by element, of one shape.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add).
    pub fn mul(&self, other: &Tensor) -> Result<Tensor> {
        let values = self.zip(other, "mul", |a, b| a * b)?;
        // d(a b): g b to a, g a to b.
        Ok(Tensor::computed(values, self.shape(), &[self, other], |flow| {
            let (g, a, b) = (flow.grad, flow.input(0)?, flow.input(1)?);
            flow.add(0, |da| accumulate(da, g.iter().zip(&*b).map(|(g, b)| g * b)))?;
            flow.add(1, |db| accumulate(db, g.iter().zip(&*a).map(|(g, a)| g * a)))
        }))
    }

    /// self * factor.
    ///
    /// # Errors
    ///
    /// As [`values`](Self::values).
    pub fn scale(&self, factor: f32) -> Result<Tensor> {
        let values = self.values()?.iter().map(|a| a * factor).collect();
        // d(a f): g f.
        Ok(Tensor::computed(Storage::new(values), self.shape(), &[self], move |flow| {
            let g = flow.grad;
            flow.add(0, |da| accumulate(da, g.iter().map(|g| g * factor)))
        }))
    }

    fn zip(&self, other: &Tensor, what: &str, combine: impl Fn(f32, f32) -> f32) -> Result<Storage> {
        if self.shape() != other.shape() {
            let (left, right) = (Shape(self.shape()), Shape(other.shape()));
            return Err(Error::invalid(format!(
                "{what} needs two tensors of one shape; these have {left} and {right}"
            )));
        }
        let (left, right) = (self.values()?, other.values()?);
        Ok(Storage::new(left.iter().zip(&*right).map(|(&a, &b)| combine(a, b)).collect()))
    }
}

/// Adds `terms` to `sum`, element by element.
pub(super) fn accumulate(sum: &mut [f32], terms: impl Iterator<Item = f32>) -> Result<()> {
    sum.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
    Ok(())
}
