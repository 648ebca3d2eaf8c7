// SPDX-License-Identifier: MPL-2.0
//! Models: layers with named parameters, what they predict, and their files.

mod accuracy;
pub mod checkpoint;
mod linear;
mod mlp;

pub use accuracy::correct;
pub use linear::Linear;
pub use mlp::Mlp;

use crate::error::Result;
use crate::tensor::Tensor;

/// Something with parameters that maps a batch of rows to a batch of rows.
pub trait Module {
    /// The output for an input of shape `[rows, inputs]`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the input has another shape, or a parameter cannot be read at this moment.
    fn forward(&self, input: &Tensor) -> Result<Tensor>;

    /// The parameters and their names, in the order of registration: the same on every rank.
    fn named_parameters(&self) -> Vec<(String, Tensor)>;

    /// The parameters in the order of registration.
    fn parameters(&self) -> Vec<Tensor> {
        self.named_parameters().into_iter().map(|(_, parameter)| parameter).collect()
    }
}
