// SPDX-License-Identifier: MPL-2.0
//! Weights, their gradients, and a batch.

use super::kernels::Kernels;
use super::loss_scale::Scaled;
use super::{DeviceTensor, Layout, LossScale, Memory, Number, TensorClass};
use crate::driver::{DeviceBuffer, Stream};
use crate::error::{Error, Result};
use crate::kernel::training::{NO_COPY, Scaling};

/// Linear layers with a rectifier between each two, in device memory, with their gradients and a batch. All calls
/// enqueue, and return at once.
///
/// A step is [`load`](Self::load) or [`pick`](Self::pick), [`forward`](Self::forward), [`loss`](Self::loss), then for
/// each layer, the last first, [`leaves`](Self::leaves) and, but for the first, [`inward`](Self::inward); they are apart
/// so that the gradients of a layer can travel while the layers before it are computed. What a step has to keep from one of them to the next is a [`Pass`](super::Pass).
pub struct Perceptron<T: Number> {
    pub(super) layout: Layout,
    pub(super) kernels: Kernels,
    pub(super) memory: Memory,
    /// What the optimizer updates.
    weights: DeviceTensor<f32>,
    /// What the layers read, where that is not the weights themselves.
    copy: Option<DeviceTensor<T>>,
    /// That, in either case.
    pub(super) read: DeviceBuffer<T>,
    pub(super) gradients: DeviceBuffer<T>,
    pub(super) scaled: Option<Scaled>,
    rows: usize,
    pub(super) inputs: DeviceTensor<T>,
    pub(super) labels: DeviceTensor<u32>,
    /// One a row.
    pub(super) losses: DeviceTensor<f32>,
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
        let (device, width) = (gradients.device(), layout.layers().first().map_or(0, |first| first.inputs));
        let inputs = rows
            .checked_mul(width)
            .ok_or_else(|| Error::invalid(format!("{rows} rows of {width} do not fit into memory")))?;
        let memory = Memory::new(&device);
        memory.count(TensorClass::Gradients, gradients.as_bytes().len());
        let weights = memory.lasting::<f32>(TensorClass::Weights, layout.elements(), stream)?;
        let copy = match T::COPY {
            NO_COPY => None,
            _ => Some(memory.lasting::<T>(TensorClass::Weights, layout.elements(), stream)?),
        };
        Ok(Perceptron {
            kernels: Kernels::load::<T>(&device)?,
            read: copy.as_deref().map_or_else(|| weights.cast(), |copy| Ok(copy.clone()))?,
            scaled: loss_scale.map(|settings| Scaled::new(settings, &memory, stream)).transpose()?,
            inputs: memory.lasting(TensorClass::Inputs, inputs, stream)?,
            labels: memory.lasting(TensorClass::Inputs, rows, stream)?,
            losses: memory.lasting(TensorClass::Losses, rows, stream)?,
            layout,
            memory,
            weights,
            copy,
            gradients,
            rows,
        })
    }

    /// Where parameters and gradients are in their buffers.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The most rows of a batch.
    pub fn most_rows(&self) -> usize {
        self.rows
    }

    /// The weights that the optimizer updates. Who else writes to them calls [`round`](Self::round) behind it.
    pub fn weights(&self) -> &DeviceBuffer<f32> {
        &self.weights
    }

    /// The gradients.
    pub fn gradients(&self) -> &DeviceBuffer<T> {
        &self.gradients
    }

    /// The losses of the rows of the batch that went backward last; behind them, what was there. The batch's loss is
    /// their [mean](super::mean_loss).
    pub fn losses(&self) -> &DeviceBuffer<f32> {
        &self.losses
    }

    /// The memory of its tensors, and of those that go with them.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Who makes its matrix products: the library of the device's vendor, by its name and version, or else the own kernel,
    /// and then why.
    ///
    /// # Errors
    ///
    /// That reason.
    pub fn products(&self) -> std::result::Result<&str, &str> {
        self.kernels.products()
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
        self.copy.as_deref()
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
        let (rows, most) = (labels.len(), self.rows);
        let width = self.layout.layers().first().map_or(0, |first| first.inputs);
        if rows > most || inputs.len() != rows * width {
            let have = inputs.len();
            return Err(Error::invalid(format!(
                "{rows} labels and {have} inputs are no batch: it has at most {most} rows, of a label and {width} inputs"
            )));
        }
        stream.write(&self.inputs.part(..inputs.len())?, inputs)?;
        stream.write(&self.labels.part(..rows)?, labels)
    }
}
