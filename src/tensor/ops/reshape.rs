// SPDX-License-Identifier: MPL-2.0
//! Another shape over the same values.

use super::arithmetic::accumulate;
use crate::error::{Error, Result};
use crate::tensor::{Shape, Tensor, elements};

impl Tensor {
    /// The same elements in the same order, sharing the storage, in another shape of as many elements.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if that shape has another number of elements.
    pub fn reshape(&self, shape: &[usize]) -> Result<Tensor> {
        if elements(shape) != Some(self.len()) {
            let (from, to) = (Shape(self.shape()), Shape(shape));
            return Err(Error::invalid(format!("a tensor of shape {from} cannot be reshaped to {to}")));
        }
        // g, in the former shape.
        Ok(Tensor::computed(self.storage().clone(), shape, &[self], |flow| {
            let g = flow.grad;
            flow.add(0, |da| accumulate(da, g.iter().copied()))
        }))
    }
}
