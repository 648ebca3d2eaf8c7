// SPDX-License-Identifier: MPL-2.0
//! Samples in device memory, of which batches are made there: nothing of a batch passes by the host.

use std::cell::Cell;
use std::ops::Range;

use super::{DeviceTensor, Memory, Number, Perceptron, TensorClass};
use crate::driver::Stream;
use crate::error::{Error, Result};

/// Samples and their labels in device memory, and an order of them, whose neighbours are a batch.
pub struct Samples<T: Number> {
    inputs: DeviceTensor<T>,
    labels: DeviceTensor<u32>,
    order: DeviceTensor<u32>,
    /// How many samples the order has.
    arranged: Cell<usize>,
}

impl<T: Number> Samples<T> {
    /// Samples whose inputs lie one after the other, a label each, in no order so far.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the labels do not divide the inputs, or there are more than a u32 counts; those of allocating
    /// and writing.
    pub fn new(memory: &Memory, inputs: &[T], labels: &[u32], stream: &Stream) -> Result<Self> {
        let count = labels.len();
        if inputs.len().checked_rem(count).unwrap_or(inputs.len()) != 0 || u32::try_from(count).is_err() {
            let have = inputs.len();
            return Err(Error::invalid(format!("{count} labels and {have} inputs are no samples of one width")));
        }
        let class = TensorClass::Inputs;
        let samples = Samples {
            inputs: memory.lasting(class, inputs.len(), stream)?,
            labels: memory.lasting(class, count, stream)?,
            order: memory.lasting(class, count, stream)?,
            arranged: Cell::new(0),
        };
        stream.write(&samples.inputs, inputs)?;
        stream.write(&samples.labels, labels)?;
        Ok(samples)
    }

    /// The samples of these numbers, at most as many as there are, in this order.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if one does not exist, or there are too many; those of writing.
    pub fn arrange(&self, order: &[usize], stream: &Stream) -> Result<()> {
        let count = self.labels.len();
        if let Some(sample) = order.iter().find(|sample| **sample >= count) {
            return Err(Error::invalid(format!("sample {sample} does not exist; there are {count}, counted from 0")));
        }
        if order.len() > count {
            let many = order.len();
            return Err(Error::invalid(format!(
                "an order of {many} samples is longer than the {count} that there are"
            )));
        }
        let order: Vec<u32> = order.iter().map(|sample| *sample as u32).collect();
        stream.write(&self.order.part(..order.len())?, &order)?;
        self.arranged.set(order.len());
        Ok(())
    }
}

impl<T: Number> Perceptron<T> {
    /// Makes a batch of the samples at these places of their order.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if these are more rows than there is memory for, or the order ends before, or the samples are of
    /// another width; those of launching.
    pub fn pick(&self, samples: &Samples<T>, places: Range<usize>, stream: &Stream) -> Result<()> {
        let (rows, most, arranged) = (places.len(), self.most_rows(), samples.arranged.get());
        let width = self.layout.layers().first().map_or(0, |first| first.inputs);
        if samples.inputs.len() != width * samples.labels.len() {
            let have = samples.inputs.len().checked_div(samples.labels.len()).unwrap_or(0);
            return Err(Error::invalid(format!("samples of {have} inputs are no batch of a model that has {width}")));
        }
        if rows > most || places.end > arranged {
            return Err(Error::invalid(format!(
                "places {places:?} are no batch: it has at most {most} rows, of the {arranged} places of the order"
            )));
        }
        let (inputs, labels) = (self.inputs.part(..rows * width)?, self.labels.part(..rows)?);
        let from = (&*samples.inputs, &*samples.labels);
        self.kernels.pick(from, &samples.order.part(places)?, (&inputs, &labels), stream)
    }
}
