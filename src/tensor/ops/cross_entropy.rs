// SPDX-License-Identifier: MPL-2.0
//! The loss of classification: softmax and negative log-likelihood in one, which needs no logarithm of a rounded
//! probability.

use super::arithmetic::accumulate;
use crate::error::{Error, Result};
use crate::tensor::{Shape, Storage, Tensor};

impl Tensor {
    /// The sum over the rows of these logits, `[rows, classes]`, of `-log(softmax(row)[label])`, divided by
    /// `denominator`: a scalar.
    ///
    /// With the number of rows as denominator this is PyTorch's mean. A rank that has a share of a global batch divides
    /// by (rows of the global batch) / (number of ranks), a fraction perhaps; then the *average* of the ranks' losses,
    /// and of their gradients, is the mean over the global batch, however unequal the shares. No rows give a loss of
    /// zero and gradients of zero.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if there is not one label a row, a label is not below the number of classes, or the
    /// denominator is not a positive number.
    pub fn cross_entropy(&self, labels: &[u32], denominator: f32) -> Result<Tensor> {
        let &[rows, classes] = self.shape() else {
            let shape = Shape(self.shape());
            return Err(Error::invalid(format!(
                "cross_entropy needs logits of shape [rows, classes]; these have {shape}"
            )));
        };
        if labels.len() != rows {
            let labels = labels.len();
            return Err(Error::invalid(format!(
                "cross_entropy needs a label for each of {rows} rows; there are {labels}"
            )));
        }
        if let Some((row, label)) = labels.iter().enumerate().find(|(_, label)| **label as usize >= classes) {
            return Err(Error::invalid(format!("the label of row {row} is {label}; there are {classes} classes")));
        }
        if !(denominator > 0.0 && denominator.is_finite()) {
            return Err(Error::invalid(format!("cross_entropy needs a positive denominator; this is {denominator}")));
        }
        let mut softmax = self.to_vec()?;
        let mut loss = 0.0f64;
        for (row, &label) in softmax.chunks_exact_mut(classes.max(1)).zip(labels) {
            // Subtracting the greatest logit keeps every exponential at or below one.
            let greatest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            row.iter_mut().for_each(|logit| *logit -= greatest);
            let own = row[label as usize];
            row.iter_mut().for_each(|logit| *logit = logit.exp());
            let sum: f32 = row.iter().sum();
            row.iter_mut().for_each(|exponential| *exponential /= sum);
            loss += f64::from(sum.ln() - own);
        }
        let value = (loss / f64::from(denominator)) as f32;
        let labels = labels.to_vec();
        // d: (softmax - one at the label) g / denominator.
        Ok(Tensor::computed(Storage::new(vec![value]), &[], &[self], move |flow| {
            let factor = flow.grad[0] / denominator;
            flow.add(0, |da| {
                for ((da, softmax), &label) in
                    da.chunks_exact_mut(classes.max(1)).zip(softmax.chunks_exact(classes.max(1))).zip(&labels)
                {
                    let label = label as usize;
                    let one = |class| if class == label { 1.0 } else { 0.0 };
                    accumulate(da, softmax.iter().enumerate().map(|(class, p)| (p - one(class)) * factor))?;
                }
                Ok(())
            })
        }))
    }
}
