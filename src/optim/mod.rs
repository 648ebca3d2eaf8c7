// SPDX-License-Identifier: MPL-2.0
//! Optimizers: one step along the gradients, element by element and in order, with PyTorch's meanings.
//!
//! Products and sums are rounded one by one; nothing is contracted. So equal gradients give equal parameters, bit for
//! bit, wherever the gradients were computed.

mod adamw;
mod rule;
mod sgd;

pub use adamw::AdamW;
pub use rule::Rule;
pub use sgd::Sgd;

use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Moves parameters along their gradients.
pub trait Optimizer {
    /// One step. A parameter that has no gradient stays where it is.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if a parameter or a gradient cannot be borrowed at this moment, because its bucket is in
    /// flight for example; no parameter has moved then.
    fn step(&mut self) -> Result<()>;

    /// The parameters, in the order given.
    fn parameters(&self) -> &[Tensor];

    /// Sets every gradient to zero.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if a gradient cannot be written at this moment.
    fn zero_grad(&self) -> Result<()> {
        self.parameters().iter().try_for_each(Tensor::zero_grad)
    }
}

/// Fails if some parameter or gradient cannot be borrowed, so that a step is made whole or not at all.
fn check_borrows(parameters: &[Tensor]) -> Result<()> {
    for parameter in parameters {
        if let Some(grad) = parameter.grad() {
            let _values = parameter.values_mut()?;
            let _grad = grad.read()?;
        }
    }
    Ok(())
}

/// Fails unless `right` holds for the setting.
fn check_setting(name: &str, value: f32, right: bool, range: &str) -> Result<()> {
    if right { Ok(()) } else { Err(Error::invalid(format!("{name} is {value}: it must be {range}"))) }
}

/// A state of zeros for each parameter.
fn zeros(parameters: &[Tensor]) -> Vec<Vec<f32>> {
    parameters.iter().map(|parameter| vec![0.0; parameter.len()]).collect()
}
