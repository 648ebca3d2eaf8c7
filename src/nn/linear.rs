// SPDX-License-Identifier: MPL-2.0
//! The linear layer.

use super::Module;
use crate::error::{Error, Result};
use crate::tensor::{Random, Tensor};

/// input x weight^T + bias. Parameters: `weight`, `[out, in]`, and `bias`, `[out]`, as PyTorch lays them out.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Tensor,
    /// `[out]`.
    pub bias: Tensor,
}

impl Linear {
    /// First parameters as PyTorch draws them: all from the uniform distribution between -1 / sqrt(inputs) and
    /// 1 / sqrt(inputs), the weight first.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if an extent is zero or the weight does not fit into memory.
    pub fn new(inputs: usize, outputs: usize, random: &mut Random) -> Result<Self> {
        let too_large = || Error::invalid(format!("a linear layer of {inputs} x {outputs} does not fit into memory"));
        if inputs == 0 || outputs == 0 {
            let given = format!("{inputs} and {outputs}");
            return Err(Error::invalid(format!(
                "a linear layer needs at least one input and one output; these are {given}"
            )));
        }
        let bound = (1.0 / (inputs as f64).sqrt()) as f32;
        let mut draw = |len: usize| -> Result<Vec<f32>> {
            let mut values = Vec::new();
            values.try_reserve_exact(len).map_err(|_| too_large())?;
            values.extend((0..len).map(|_| random.uniform(-bound, bound)));
            Ok(values)
        };
        let weights = inputs.checked_mul(outputs).ok_or_else(too_large)?;
        let weight = Tensor::new(draw(weights)?, &[outputs, inputs])?.trainable();
        let bias = Tensor::new(draw(outputs)?, &[outputs])?.trainable();
        Ok(Linear { weight, bias })
    }
}

impl Module for Linear {
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        input.linear(&self.weight, &self.bias)
    }

    fn named_parameters(&self) -> Vec<(String, Tensor)> {
        vec![("weight".into(), self.weight.clone()), ("bias".into(), self.bias.clone())]
    }
}
