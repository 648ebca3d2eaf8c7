// SPDX-License-Identifier: MPL-2.0
//! Forward and backward. Each tensor is there from when it is written until it was read last.
//!
//! ```text
//! forward   output 0, output 1, logits
//! loss      slope 2; logits are no longer needed
//! leaves    of layer 2, from slope 2 and output 1
//! inward    slope 1, before the rectifier; slope 2 is no longer needed
//! leaves    of layer 1; the rectifier acts on slope 1 by output 1, which is no longer needed, ..
//! ```

use super::kernels::Matrix;
use super::{DeviceTensor, Layer, Number, Perceptron, TensorClass};
use crate::driver::{DeviceBuffer, Stream};
use crate::error::{Error, Result};

/// A batch on its way through a [`Perceptron`]: what was computed and is still needed.
#[derive(Debug)]
pub struct Pass<T: Number> {
    rows: usize,
    /// Of the layers below, after their activation; of the last layer, the logits.
    outputs: Vec<DeviceTensor<T>>,
    /// The gradient of what layer number `outputs.len()` put out before its activation, once the pass goes backward.
    slope: Option<DeviceTensor<T>>,
    /// What that layer put out, as long as the slope is the gradient of that, and not yet of what came before it.
    output: Option<DeviceTensor<T>>,
}

/// The loss of a batch, of those of its rows: their sum, in their order and in f64, divided by `denominator`, and rounded
/// once, as that of [`Tensor::cross_entropy`](crate::tensor::Tensor::cross_entropy).
pub fn mean_loss(losses: &[f32], denominator: f32) -> f32 {
    let sum = losses.iter().fold(0.0, |sum, loss| sum + f64::from(*loss));
    (sum / f64::from(denominator)) as f32
}

impl<T: Number> Pass<T> {
    /// What the last layer put out, before the pass goes backward.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` after that.
    pub fn logits(&self) -> Result<&DeviceBuffer<T>> {
        match (&self.slope, self.outputs.last()) {
            (None, Some(logits)) => Ok(logits),
            _ => Err(Error::invalid("logits are there before a pass goes backward, and not after")),
        }
    }

    fn slope(&self) -> Result<&DeviceTensor<T>> {
        self.slope.as_ref().ok_or_else(|| Error::invalid("this pass does not go backward: call `loss` first"))
    }
}

impl<T: Number> Perceptron<T> {
    /// Begins a pass of the first `rows` rows of the batch: the outputs of all layers.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if there are not so many rows; those of allocating and launching.
    pub fn forward(&self, rows: usize, stream: &Stream) -> Result<Pass<T>> {
        let layers = self.layout.layers();
        let mut pass = Pass { rows, outputs: Vec::with_capacity(layers.len()), slope: None, output: None };
        for layer in layers {
            let input = self.input(&pass, layer)?;
            let output = self.memory.of_step(TensorClass::Activations, rows.saturating_mul(layer.outputs), stream)?;
            let (weight, bias) = (self.read.part(layer.weight.clone())?, self.read.part(layer.bias.clone())?);
            let left = Matrix::new(&input, rows, layer.inputs)?;
            let right = Matrix::new(&weight, layer.outputs, layer.inputs)?.transposed();
            self.kernels.product(left, right, &output, false, stream)?;
            pass.outputs.push(output);
            let (output, is_last) = (&pass.outputs[pass.outputs.len() - 1], pass.outputs.len() == layers.len());
            self.kernels.activate(output, &bias, !is_last, stream)?;
        }
        Ok(pass)
    }

    /// The [`losses`](Self::losses) of the pass, with which it goes backward: the gradient of the logits, multiplied by the
    /// scale of the loss, if there is one, as all gradients then are. `denominator` as in
    /// [`Tensor::cross_entropy`](crate::tensor::Tensor::cross_entropy).
    ///
    /// # Errors
    ///
    /// `InvalidArgument` where the pass goes backward already; those of allocating and launching.
    pub fn loss(&self, pass: &mut Pass<T>, denominator: f32, stream: &Stream) -> Result<()> {
        let (logits, labels) = (pass.logits()?, self.labels.part(..pass.rows)?);
        let slope = self.memory.of_step(TensorClass::Slopes, logits.len(), stream)?;
        let losses = self.losses.part(..pass.rows)?;
        let scaling = self.scaled.as_ref().map(|scaled| &*scaled.words);
        self.kernels.cross_entropy((logits, &labels), denominator, scaling, (&losses, &slope), stream)?;
        pass.slope = Some(slope);
        pass.outputs.pop();
        Ok(())
    }

    /// The gradients of the parameters of the layer that the pass has come back to: the last one after `loss`, and
    /// the one before after each `inward`. They replace what is there, or, if they are to `accumulate`, are added to
    /// it.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` before `loss`; those of launching.
    pub fn leaves(&self, pass: &mut Pass<T>, accumulate: bool, stream: &Stream) -> Result<()> {
        let (slope, layer) = (pass.slope()?, &self.layout.layers()[pass.outputs.len()]);
        let input = self.input(pass, layer)?;
        let (weight, bias) = (self.gradients.part(layer.weight.clone())?, self.gradients.part(layer.bias.clone())?);
        let slope = Matrix::new(slope, pass.rows, layer.outputs)?;
        self.kernels.column_sum(slope, pass.output.as_deref(), &bias, accumulate, stream)?;
        let input = Matrix::new(&input, pass.rows, layer.inputs)?;
        self.kernels.product(slope.transposed(), input, &weight, accumulate, stream)?;
        pass.output = None;
        Ok(())
    }

    /// Comes back to the layer before: the gradient of what it put out.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` before `loss` and before this layer's `leaves`, and at the first layer; those of allocating and
    /// launching.
    pub fn inward(&self, pass: &mut Pass<T>, stream: &Stream) -> Result<()> {
        let (slope, layer) = (pass.slope()?, &self.layout.layers()[pass.outputs.len()]);
        let output = pass.outputs.last().ok_or_else(|| Error::invalid("there is no layer before the first"))?;
        if pass.output.is_some() {
            return Err(Error::invalid("a pass goes inward behind a layer's gradients: call `leaves` first"));
        }
        let to = self.memory.of_step(TensorClass::Slopes, output.len(), stream)?;
        let (left, weight) = (Matrix::new(slope, pass.rows, layer.outputs)?, self.read.part(layer.weight.clone())?);
        self.kernels.product(left, Matrix::new(&weight, layer.outputs, layer.inputs)?, &to, false, stream)?;
        pass.slope = Some(to);
        pass.output = pass.outputs.pop();
        Ok(())
    }

    /// Makes a pass of so many rows for nothing, where a library makes the products: such a library loads code at the first
    /// product of some extents, and waits then for what runs on the device. What is in the batch and in the gradients
    /// afterwards does not matter.
    ///
    /// # Errors
    ///
    /// As those of a pass.
    pub fn rehearse(&self, rows: usize, stream: &Stream) -> Result<()> {
        if self.kernels.products().is_err() {
            return Ok(());
        }
        let mut pass = self.forward(rows, stream)?;
        self.loss(&mut pass, 1.0, stream)?;
        for layer in (0..self.layout.layers().len()).rev() {
            self.leaves(&mut pass, false, stream)?;
            if layer > 0 {
                self.inward(&mut pass, stream)?;
            }
        }
        Ok(())
    }

    /// What the layer behind the outputs of a pass reads.
    fn input(&self, pass: &Pass<T>, layer: &Layer) -> Result<DeviceBuffer<T>> {
        match pass.outputs.last() {
            Some(output) => Ok((**output).clone()),
            None => self.inputs.part(..pass.rows.saturating_mul(layer.inputs)),
        }
    }
}
