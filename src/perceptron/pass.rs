// SPDX-License-Identifier: MPL-2.0
//! Forward and backward. Each tensor is there from when it is written until it was read last.
//!
//! ```text
//! forward   output 0, output 1, logits
//! loss      softmax, losses; these are read at once
//! backward  slope 2; logits and softmax are no longer needed
//! leaves    of layer 2, from slope 2 and output 1
//! inward    slope 1; slope 2 and output 1 are no longer needed
//! leaves    of layer 1, ..
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
    softmax: Option<DeviceTensor<f32>>,
    /// The gradient of what layer number `outputs.len()` put out before its activation, once the pass goes backward.
    slope: Option<DeviceTensor<T>>,
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
        self.slope.as_ref().ok_or_else(|| Error::invalid("this pass does not go backward: call `backward` first"))
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
        let mut pass = Pass { rows, outputs: Vec::with_capacity(layers.len()), softmax: None, slope: None };
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

    /// The loss of the pass: [`mean`](Self::mean). `denominator` as in
    /// [`Tensor::cross_entropy`](crate::tensor::Tensor::cross_entropy).
    ///
    /// # Errors
    ///
    /// `InvalidArgument` after `backward`; those of allocating and launching.
    pub fn loss(&self, pass: &mut Pass<T>, denominator: f32, stream: &Stream) -> Result<()> {
        let (logits, labels) = (pass.logits()?, self.labels.part(..pass.rows)?);
        let softmax = self.memory.of_step(TensorClass::Losses, logits.len(), stream)?;
        let losses = self.memory.of_step(TensorClass::Losses, pass.rows, stream)?;
        self.kernels.cross_entropy(logits, &labels, &softmax, &losses, stream)?;
        self.kernels.mean_loss(&losses, denominator, &self.mean, stream)?;
        pass.softmax = Some(softmax);
        Ok(())
    }

    /// The gradient of the logits, after `loss`; multiplied by the scale of the loss, if there is one, as all gradients
    /// then are.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` without a loss; those of allocating and launching.
    pub fn backward(&self, pass: &mut Pass<T>, denominator: f32, stream: &Stream) -> Result<()> {
        let softmax = pass.softmax.take().ok_or_else(|| Error::invalid("this pass has no loss: call `loss` first"))?;
        let labels = self.labels.part(..pass.rows)?;
        let slope = self.memory.of_step(TensorClass::Slopes, softmax.len(), stream)?;
        let scaling = self.scaled.as_ref().map(|scaled| &*scaled.words);
        self.kernels.cross_entropy_backward(&softmax, &labels, denominator, scaling, &slope, stream)?;
        pass.slope = Some(slope);
        pass.outputs.pop();
        Ok(())
    }

    /// The gradients of the parameters of the layer that the pass has come back to: the last one after `backward`, and
    /// the one before after each `inward`. They replace what is there, or, if they are to `accumulate`, are added to
    /// it.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` before `backward`; those of launching.
    pub fn leaves(&self, pass: &Pass<T>, accumulate: bool, stream: &Stream) -> Result<()> {
        let (slope, layer) = (pass.slope()?, &self.layout.layers()[pass.outputs.len()]);
        let input = self.input(pass, layer)?;
        let (weight, bias) = (self.gradients.part(layer.weight.clone())?, self.gradients.part(layer.bias.clone())?);
        let slope = Matrix::new(slope, pass.rows, layer.outputs)?;
        self.kernels.column_sum(slope, &bias, accumulate, stream)?;
        let input = Matrix::new(&input, pass.rows, layer.inputs)?;
        self.kernels.product(slope.transposed(), input, &weight, accumulate, stream)
    }

    /// Comes back to the layer before: the gradient of what it put out, and of what was activated there.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` before `backward`, and at the first layer; those of allocating and launching.
    pub fn inward(&self, pass: &mut Pass<T>, stream: &Stream) -> Result<()> {
        let (slope, layer) = (pass.slope()?, &self.layout.layers()[pass.outputs.len()]);
        let output = pass.outputs.last().ok_or_else(|| Error::invalid("there is no layer before the first"))?;
        let to = self.memory.of_step(TensorClass::Slopes, output.len(), stream)?;
        let (left, weight) = (Matrix::new(slope, pass.rows, layer.outputs)?, self.read.part(layer.weight.clone())?);
        self.kernels.product(left, Matrix::new(&weight, layer.outputs, layer.inputs)?, &to, false, stream)?;
        self.kernels.rectify_backward(&to, output, stream)?;
        pass.slope = Some(to);
        pass.outputs.pop();
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
        self.backward(&mut pass, 1.0, stream)?;
        for layer in (0..self.layout.layers().len()).rev() {
            self.leaves(&pass, false, stream)?;
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
