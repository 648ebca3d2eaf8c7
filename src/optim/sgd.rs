// SPDX-License-Identifier: MPL-2.0
//! Stochastic gradient descent with momentum.

use super::{Optimizer, check_borrows, check_setting, zeros};
use crate::error::Result;
use crate::tensor::Tensor;

/// velocity = momentum x velocity + gradient; parameter -= rate x velocity. The velocity starts at zero.
pub struct Sgd {
    parameters: Vec<Tensor>,
    rate: f32,
    momentum: f32,
    velocities: Vec<Vec<f32>>,
}

impl Sgd {
    /// Over these parameters.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` unless the learning rate is zero or more and the momentum from 0 to below 1.
    pub fn new(parameters: Vec<Tensor>, rate: f32, momentum: f32) -> Result<Self> {
        check_setting("the learning rate", rate, rate >= 0.0 && rate.is_finite(), "a number, zero or more")?;
        check_setting("the momentum", momentum, (0.0..1.0).contains(&momentum), "from 0 to below 1")?;
        let velocities = zeros(&parameters);
        Ok(Sgd { parameters, rate, momentum, velocities })
    }
}

impl Optimizer for Sgd {
    fn step(&mut self) -> Result<()> {
        check_borrows(&self.parameters)?;
        let (rate, momentum) = (self.rate, self.momentum);
        for (parameter, velocity) in self.parameters.iter().zip(&mut self.velocities) {
            let Some(grad) = parameter.grad() else { continue };
            let (mut values, grad) = (parameter.values_mut()?, grad.read()?);
            for ((value, velocity), grad) in values.iter_mut().zip(velocity).zip(&*grad) {
                *velocity = momentum * *velocity + grad;
                *value -= rate * *velocity;
            }
        }
        Ok(())
    }

    fn parameters(&self) -> &[Tensor] {
        &self.parameters
    }
}
