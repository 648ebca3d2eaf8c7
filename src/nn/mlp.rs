// SPDX-License-Identifier: MPL-2.0
//! The multilayer perceptron.

use super::{Linear, Module};
use crate::error::{Error, Result};
use crate::tensor::{Random, Tensor};

/// Linear layers with a rectifier between each two. Parameters: `layers.{i}.weight` and `layers.{i}.bias`.
#[derive(Debug, Clone)]
pub struct Mlp {
    /// The layers, the input's first.
    pub layers: Vec<Linear>,
}

impl Mlp {
    /// A perceptron of these widths, the input's first and the number of classes last, with first parameters drawn by
    /// `seed`: `&[64, 32, 10]` has one hidden layer of 32.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if there are fewer than two widths, or one is zero.
    pub fn new(widths: &[usize], seed: u64) -> Result<Self> {
        if widths.len() < 2 {
            let have = widths.len();
            return Err(Error::invalid(format!(
                "a perceptron needs the widths of input and output at least; {have} given"
            )));
        }
        let mut random = Random::new(&[seed, 0]);
        let layers = widths.windows(2).map(|pair| Linear::new(pair[0], pair[1], &mut random)).collect::<Result<_>>()?;
        Ok(Mlp { layers })
    }
}

impl Module for Mlp {
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        let mut output = input.clone();
        for (index, layer) in self.layers.iter().enumerate() {
            output = layer.forward(&if index == 0 { output } else { output.relu()? })?;
        }
        Ok(output)
    }

    fn named_parameters(&self) -> Vec<(String, Tensor)> {
        let layers = self.layers.iter().enumerate();
        let named = layers.map(|(i, layer)| (i, layer.named_parameters()));
        named
            .flat_map(|(i, of)| of.into_iter().map(move |(name, tensor)| (format!("layers.{i}.{name}"), tensor)))
            .collect()
    }
}
