// SPDX-License-Identifier: MPL-2.0
//! The types that a perceptron computes with.

use crate::driver::DeviceBuffer;
use crate::element::Element;
use crate::error::Result;

/// A type of weights, activations and gradients. Weights are updated in f32, whatever this is.
pub trait Number: Element {
    /// The weights as layers read them, where `weights` are what the optimizer updates.
    #[doc(hidden)]
    fn read_by_layers(weights: &DeviceBuffer<f32>) -> Result<DeviceBuffer<Self>>;
}

impl Number for f32 {
    fn read_by_layers(weights: &DeviceBuffer<f32>) -> Result<DeviceBuffer<f32>> {
        Ok(weights.clone())
    }
}
