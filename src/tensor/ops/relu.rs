// SPDX-License-Identifier: MPL-2.0
//! The rectifier.

use super::arithmetic::accumulate;
use crate::error::Result;
use crate::tensor::{Storage, Tensor};

impl Tensor {
    /// Each element, or zero where it is negative. NaN stays NaN.
    ///
    /// # Errors
    ///
    /// As [`values`](Self::values).
    pub fn relu(&self) -> Result<Tensor> {
        let values = self.values()?.iter().map(|&a| if a < 0.0 { 0.0 } else { a }).collect();
        // d relu(a): g where the result is positive, zero elsewhere (also at zero).
        Ok(Tensor::computed(Storage::new(values), self.shape(), &[self], |flow| {
            let (g, output) = (flow.grad, flow.output()?);
            flow.add(0, |da| accumulate(da, g.iter().zip(&*output).map(|(&g, &r)| if r > 0.0 { g } else { 0.0 })))
        }))
    }
}
