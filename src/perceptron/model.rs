// SPDX-License-Identifier: MPL-2.0
//! Forward and backward.

use super::kernels::{Kernels, Matrix};
use super::loss_scale::Scaled;
use super::{Layer, Layout, LossScale, Number};
use crate::driver::{DeviceBuffer, Stream};
use crate::error::{Error, Result};
use crate::kernel::training::{NO_COPY, Scaling};

/// Linear layers with a rectifier between each two, in device memory, with their gradients and the memory for batches
/// of some size. All calls enqueue, and return at once.
///
/// A step is [`load`](Self::load), [`forward`](Self::forward), [`loss`](Self::loss), [`backward`](Self::backward), then
/// for each layer, the last first, [`leaves`](Self::leaves) and, but for the first, [`inward`](Self::inward); they are
/// apart so that the gradients of a layer can travel while the layers before it are computed.
pub struct Perceptron<T: Number> {
    layout: Layout,
    kernels: Kernels,
    /// What the optimizer updates.
    weights: DeviceBuffer<f32>,
    /// What the layers read: the same memory if T is f32, else a copy.
    read: DeviceBuffer<T>,
    gradients: DeviceBuffer<T>,
    scaled: Option<Scaled>,
    batch: Batch<T>,
}

/// Memory for the rows of a batch; `rows` times the width of what is said.
struct Batch<T: Number> {
    /// The most rows.
    rows: usize,
    inputs: DeviceBuffer<T>,
    labels: DeviceBuffer<u32>,
    /// Of each layer, after its activation; of the last, the logits.
    outputs: Vec<DeviceBuffer<T>>,
    /// The gradients of these, and of what was activated, one after the other.
    slopes: Vec<DeviceBuffer<T>>,
    softmax: DeviceBuffer<f32>,
    losses: DeviceBuffer<f32>,
    /// One element: the mean.
    loss: DeviceBuffer<f32>,
}

impl<T: Number> Perceptron<T> {
    /// With weights of zero, for batches of at most `rows` rows. `gradients` are as many as the layout's elements; what
    /// is in them does not matter, as long as the spaces between parameters are zero. The loss may be scaled.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if `gradients` has another length, or the loss scale is out of its range; those of allocating
    /// and writing.
    pub fn new(
        layout: Layout,
        rows: usize,
        gradients: DeviceBuffer<T>,
        loss_scale: Option<LossScale>,
        stream: &Stream,
    ) -> Result<Self> {
        if gradients.len() != layout.elements() {
            let (have, need) = (gradients.len(), layout.elements());
            return Err(Error::invalid(format!("{have} gradients are given; this perceptron has {need}")));
        }
        let device = gradients.device();
        let all = |width: usize| {
            rows.checked_mul(width)
                .ok_or_else(|| Error::invalid(format!("{rows} rows of {width} do not fit into memory")))
        };
        let outputs = || -> Result<Vec<DeviceBuffer<T>>> {
            layout.layers().iter().map(|layer| device.allocate(all(layer.outputs)?)).collect()
        };
        let (inputs, classes) = ends(&layout);
        let batch = Batch {
            rows,
            inputs: device.allocate(all(inputs)?)?,
            labels: device.allocate(rows)?,
            outputs: outputs()?,
            slopes: outputs()?,
            softmax: device.allocate(all(classes)?)?,
            losses: device.allocate(rows)?,
            loss: device.allocate(1)?,
        };
        let weights = device.allocate(layout.elements())?;
        let read = if T::COPY == NO_COPY { weights.cast()? } else { device.allocate(layout.elements())? };
        let scaled = loss_scale.map(|settings| Scaled::new(settings, &device, stream)).transpose()?;
        let kernels = Kernels::load::<T>(&device)?;
        Ok(Perceptron { layout, kernels, weights, read, gradients, scaled, batch })
    }

    /// Where parameters and gradients are in their buffers.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The most rows of a batch.
    pub fn most_rows(&self) -> usize {
        self.batch.rows
    }

    /// The weights that the optimizer updates. Who else writes to them calls [`round`](Self::round) behind it.
    pub fn weights(&self) -> &DeviceBuffer<f32> {
        &self.weights
    }

    /// The gradients.
    pub fn gradients(&self) -> &DeviceBuffer<T> {
        &self.gradients
    }

    /// The loss of the batch that went forward last: one element.
    pub fn mean(&self) -> &DeviceBuffer<f32> {
        &self.batch.loss
    }

    /// Rounds the weights for the layers, which otherwise read what the last update has left them.
    ///
    /// # Errors
    ///
    /// Those of launching.
    pub fn round(&self, stream: &Stream) -> Result<()> {
        self.copy().map_or(Ok(()), |copy| self.kernels.round(&self.weights, copy, stream))
    }

    /// What has become of the loss scale, once everything enqueued before has been done; `None` if the loss is not
    /// scaled.
    ///
    /// # Errors
    ///
    /// The faults of the stream.
    pub fn scaling(&self, stream: &Stream) -> Result<Option<Scaling>> {
        self.scaled.as_ref().map(|scaled| scaled.read(stream)).transpose()
    }

    /// The weights as layers read them, where those are not the weights themselves.
    pub(super) fn copy(&self) -> Option<&DeviceBuffer<T>> {
        (T::COPY != NO_COPY).then_some(&self.read)
    }

    pub(super) fn scaled(&self) -> Option<&Scaled> {
        self.scaled.as_ref()
    }

    pub(super) fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    /// Writes a batch: rows of inputs, and their labels.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if there are more rows than there is memory for, or not one label a row.
    pub fn load(&self, inputs: &[T], labels: &[u32], stream: &Stream) -> Result<()> {
        let (rows, width) = (labels.len(), ends(&self.layout).0);
        if rows > self.batch.rows || inputs.len() != rows * width {
            let (have, most) = (inputs.len(), self.batch.rows);
            return Err(Error::invalid(format!(
                "{rows} labels and {have} inputs are no batch: it has at most {most} rows, of a label and {width} inputs"
            )));
        }
        stream.write(&self.batch.inputs.part(..inputs.len())?, inputs)?;
        stream.write(&self.batch.labels.part(..rows)?, labels)
    }

    /// The outputs of all layers, for the first `rows` rows; the logits of the last.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if there are not so many rows; those of launching.
    pub fn forward(&self, rows: usize, stream: &Stream) -> Result<DeviceBuffer<T>> {
        let mut input = self.batch.inputs.part(..rows.saturating_mul(ends(&self.layout).0))?;
        for (number, layer) in self.layout.layers().iter().enumerate() {
            let output = self.output(number, rows)?;
            let (weight, bias) = (self.read.part(layer.weight.clone())?, self.read.part(layer.bias.clone())?);
            let left = Matrix::new(&input, rows, layer.inputs)?;
            let right = Matrix::new(&weight, layer.outputs, layer.inputs)?.transposed();
            self.kernels.product(left, right, &output, false, stream)?;
            let is_last = number + 1 == self.layout.layers().len();
            self.kernels.activate(&output, &bias, !is_last, stream)?;
            input = output;
        }
        Ok(input)
    }

    /// The loss of those rows, after `forward`: [`mean`](Self::mean). `denominator` as in
    /// [`Tensor::cross_entropy`](crate::tensor::Tensor::cross_entropy).
    ///
    /// # Errors
    ///
    /// As [`forward`](Self::forward).
    pub fn loss(&self, rows: usize, denominator: f32, stream: &Stream) -> Result<()> {
        let (logits, labels) = (self.output(self.layout.layers().len() - 1, rows)?, self.batch.labels.part(..rows)?);
        let (softmax, losses) = (self.batch.softmax.part(..logits.len())?, self.batch.losses.part(..rows)?);
        self.kernels.cross_entropy(&logits, &labels, &softmax, &losses, stream)?;
        self.kernels.mean_loss(&losses, denominator, &self.batch.loss, stream)
    }

    /// The gradient of the logits, after `loss`; multiplied by the scale of the loss, as all gradients then are.
    ///
    /// # Errors
    ///
    /// As [`forward`](Self::forward).
    pub fn backward(&self, rows: usize, denominator: f32, stream: &Stream) -> Result<()> {
        let (slope, labels) = (self.slope(self.layout.layers().len() - 1, rows)?, self.batch.labels.part(..rows)?);
        let softmax = self.batch.softmax.part(..slope.len())?;
        let scaling = self.scaled.as_ref().map(|scaled| &scaled.words);
        self.kernels.cross_entropy_backward(&softmax, &labels, denominator, scaling, &slope, stream)
    }

    /// The gradients of a layer's parameters, after the gradient of its output; or, if they are to `accumulate`, these
    /// added to what is there.
    ///
    /// # Errors
    ///
    /// As [`forward`](Self::forward); `InvalidArgument` if there is no such layer.
    pub fn leaves(&self, number: usize, rows: usize, accumulate: bool, stream: &Stream) -> Result<()> {
        let (layer, slope) = (self.layer(number)?, self.slope(number, rows)?);
        let input = match number {
            0 => self.batch.inputs.part(..rows.saturating_mul(layer.inputs))?,
            _ => self.output(number - 1, rows)?,
        };
        let (weight, bias) = (self.gradients.part(layer.weight.clone())?, self.gradients.part(layer.bias.clone())?);
        let slope = Matrix::new(&slope, rows, layer.outputs)?;
        self.kernels.column_sum(slope, &bias, accumulate, stream)?;
        let input = Matrix::new(&input, rows, layer.inputs)?;
        self.kernels.product(slope.transposed(), input, &weight, accumulate, stream)
    }

    /// The gradient of the output of the layer before, and of what was activated there.
    ///
    /// # Errors
    ///
    /// As [`leaves`](Self::leaves); `InvalidArgument` for the first layer.
    pub fn inward(&self, number: usize, rows: usize, stream: &Stream) -> Result<()> {
        let before = number.checked_sub(1).ok_or_else(|| Error::invalid("there is no layer before the first"))?;
        let (layer, slope, to) = (self.layer(number)?, self.slope(number, rows)?, self.slope(before, rows)?);
        let weight = self.read.part(layer.weight.clone())?;
        let left = Matrix::new(&slope, rows, layer.outputs)?;
        self.kernels.product(left, Matrix::new(&weight, layer.outputs, layer.inputs)?, &to, false, stream)?;
        self.kernels.rectify_backward(&to, &self.output(before, rows)?, stream)
    }

    fn layer(&self, number: usize) -> Result<&Layer> {
        let layers = self.layout.layers();
        let there_are = layers.len();
        layers.get(number).ok_or_else(|| Error::invalid(format!("there is no layer {number}: there are {there_are}")))
    }

    fn output(&self, number: usize, rows: usize) -> Result<DeviceBuffer<T>> {
        let width = self.layer(number)?.outputs;
        self.batch.outputs[number].part(..rows.saturating_mul(width))
    }

    fn slope(&self, number: usize, rows: usize) -> Result<DeviceBuffer<T>> {
        let width = self.layer(number)?.outputs;
        self.batch.slopes[number].part(..rows.saturating_mul(width))
    }
}

/// How many inputs the first layer has, and how many outputs the last.
fn ends(layout: &Layout) -> (usize, usize) {
    let layers = layout.layers();
    (layers.first().map_or(0, |first| first.inputs), layers.last().map_or(0, |last| last.outputs))
}
