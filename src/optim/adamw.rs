// SPDX-License-Identifier: MPL-2.0
//! Adam with decoupled weight decay (Loshchilov and Hutter, "Decoupled weight decay regularization", 2019).

use super::{Optimizer, check_borrows, check_setting, zeros};
use crate::error::Result;
use crate::tensor::Tensor;

/// In step t, with gradient g:
///
/// - parameter -= rate x decay x parameter, as one product by 1 - rate x decay;
/// - first moment m = beta1 m + (1 - beta1) g; second moment v = beta2 v + (1 - beta2) g g; both start at zero;
/// - parameter -= rate / (1 - beta1^t) x m / (sqrt(v) / sqrt(1 - beta2^t) + epsilon).
///
/// The factors are computed in f64 and rounded once.
pub struct AdamW {
    parameters: Vec<Tensor>,
    rate: f32,
    betas: (f32, f32),
    epsilon: f32,
    decay: f32,
    /// beta1^t and beta2^t.
    powers: (f64, f64),
    moments: Vec<Vec<f32>>,
    squares: Vec<Vec<f32>>,
}

impl AdamW {
    /// PyTorch's betas.
    pub const BETAS: (f32, f32) = (0.9, 0.999);
    /// PyTorch's epsilon.
    pub const EPSILON: f32 = 1e-8;
    /// PyTorch's weight decay.
    pub const DECAY: f32 = 0.01;

    /// Over these parameters, with PyTorch's other settings: betas 0.9 and 0.999, epsilon 1e-8, decay 0.01.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` unless the learning rate is zero or more.
    pub fn new(parameters: Vec<Tensor>, rate: f32) -> Result<Self> {
        Self::with(parameters, rate, Self::BETAS, Self::EPSILON, Self::DECAY)
    }

    /// With every setting given.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` unless each is zero or more and the betas are below 1.
    pub fn with(parameters: Vec<Tensor>, rate: f32, betas: (f32, f32), epsilon: f32, decay: f32) -> Result<Self> {
        for (name, value) in [("the learning rate", rate), ("epsilon", epsilon), ("the weight decay", decay)] {
            check_setting(name, value, value >= 0.0 && value.is_finite(), "a number, zero or more")?;
        }
        for (name, value) in [("beta1", betas.0), ("beta2", betas.1)] {
            check_setting(name, value, (0.0..1.0).contains(&value), "from 0 to below 1")?;
        }
        let (moments, squares) = (zeros(&parameters), zeros(&parameters));
        Ok(AdamW { parameters, rate, betas, epsilon, decay, powers: (1.0, 1.0), moments, squares })
    }
}

impl Optimizer for AdamW {
    fn step(&mut self) -> Result<()> {
        check_borrows(&self.parameters)?;
        let (rate, beta1, beta2) = (f64::from(self.rate), f64::from(self.betas.0), f64::from(self.betas.1));
        self.powers = (self.powers.0 * beta1, self.powers.1 * beta2);
        let keep = (1.0 - rate * f64::from(self.decay)) as f32;
        let (first, second) = ((1.0 - beta1) as f32, (1.0 - beta2) as f32);
        let (beta1, beta2) = self.betas;
        let pace = (rate / (1.0 - self.powers.0)) as f32;
        let root = (1.0 - self.powers.1).sqrt() as f32;
        let states = self.moments.iter_mut().zip(&mut self.squares);
        for (parameter, (moments, squares)) in self.parameters.iter().zip(states) {
            let Some(grad) = parameter.grad() else { continue };
            let (mut values, grad) = (parameter.values_mut()?, grad.read()?);
            for (((value, m), v), g) in values.iter_mut().zip(moments).zip(squares).zip(&*grad) {
                *m = beta1 * *m + first * g;
                *v = beta2 * *v + second * g * g;
                *value = *value * keep - pace * (*m / (v.sqrt() / root + self.epsilon));
            }
        }
        Ok(())
    }

    fn parameters(&self) -> &[Tensor] {
        &self.parameters
    }
}
