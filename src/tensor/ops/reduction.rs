// SPDX-License-Identifier: MPL-2.0
//! All elements to one: sum and mean. Both add in f64, in order, and round once.

use super::arithmetic::accumulate;
use crate::error::{Error, Result};
use crate::tensor::{Storage, Tensor};

impl Tensor {
    /// The sum of all elements: a scalar. Zero if there are none.
    ///
    /// # Errors
    ///
    /// As [`values`](Self::values).
    pub fn sum(&self) -> Result<Tensor> {
        self.sum_over(1.0)
    }

    /// The mean of all elements: a scalar.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if there are none.
    pub fn mean(&self) -> Result<Tensor> {
        if self.is_empty() {
            return Err(Error::invalid("the mean of no elements is not defined"));
        }
        self.sum_over(self.len() as f64)
    }

    fn sum_over(&self, denominator: f64) -> Result<Tensor> {
        let sum: f64 = self.values()?.iter().map(|&a| f64::from(a)).sum();
        let value = (sum / denominator) as f32;
        // d(sum a / n): g / n to each element.
        Ok(Tensor::computed(Storage::new(vec![value]), &[], &[self], move |flow| {
            let share = (f64::from(flow.grad[0]) / denominator) as f32;
            flow.add(0, |da| accumulate(da, std::iter::repeat(share)))
        }))
    }
}
