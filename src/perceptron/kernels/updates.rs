// SPDX-License-Identifier: MPL-2.0
//! Updates of weights, and of the scale of the loss.

use super::{Kernels, bytes_of, check};
use crate::driver::{DeviceBuffer, Stream};
use crate::element::DataType;
use crate::error::{Error, Result};
use crate::kernel::training::{self, AdamWBegin, AdamWStep, FindOverflow, Scaling, UpdateScale};
use crate::kernel::{self, Kernel};
use crate::optim::AdamW;
use crate::perceptron::{DeviceTensor, Number};

/// A step of the optimizer on all weights: the buffers that it uses, of one length.
pub struct Weights<'a, T: Number> {
    pub weights: &'a DeviceBuffer<f32>,
    pub gradients: &'a DeviceBuffer<T>,
    /// What the optimizer remembers of each weight: SGD's velocities, AdamW's first and second moments.
    pub state: &'a [DeviceTensor<f32>],
    /// The weights as layers read them, where those are not the weights themselves.
    pub copy: Option<&'a DeviceBuffer<T>>,
    /// A [`Scaling`], by whose scale gradients are divided, and by which the step may be skipped.
    pub scaling: Option<&'a DeviceBuffer<u32>>,
}

impl Kernels {
    /// Rounds weights to the type of their copy.
    pub fn round<T: Number>(&self, weights: &DeviceBuffer<f32>, copy: &DeviceBuffer<T>, stream: &Stream) -> Result<()> {
        check("a copy of the weights", copy.len(), weights.len())?;
        let arguments = kernel::Convert {
            from: weights.address(),
            to: copy.address(),
            overflow: 0,
            elements: weights.len() as u64,
            factor: 1.0,
            unused: 0,
        };
        let kernel = Kernel::Convert { from: DataType::F32, to: T::DATA_TYPE };
        let (shape, bytes) = (self.shape_of(kernel, weights)?, bytemuck::bytes_of(&arguments));
        self.launch(kernel, shape, bytes, &[weights.as_bytes()], &[copy.as_bytes()], stream)
    }

    /// Notes in `scaling`, a [`Scaling`], if one of the gradients is infinite or no number.
    pub fn find_overflow<T: Number>(
        &self,
        gradients: &DeviceBuffer<T>,
        scaling: &DeviceBuffer<u32>,
        stream: &Stream,
    ) -> Result<()> {
        check("the state of loss scaling", scaling.len(), Scaling::WORDS)?;
        let (from, elements) = (gradients.address(), gradients.len() as u64);
        let arguments = FindOverflow { from, scaling: scaling.address(), elements };
        let kernel = Kernel::FindOverflow(T::DATA_TYPE);
        let (shape, bytes) = (self.shape_of(kernel, gradients)?, bytemuck::bytes_of(&arguments));
        self.launch(kernel, shape, bytes, &[gradients.as_bytes()], &[scaling.as_bytes()], stream)
    }

    /// Ends a step with a scaled loss; `scaling` holds a [`Scaling`].
    pub fn update_scale(&self, scaling: &DeviceBuffer<u32>, interval: u32, stream: &Stream) -> Result<()> {
        check("the state of loss scaling", scaling.len(), Scaling::WORDS)?;
        let arguments = UpdateScale { scaling: scaling.address(), interval, unused: 0 };
        let kernel = Kernel::UpdateScale;
        let (shape, bytes) = (self.shape_of(kernel, scaling)?, bytemuck::bytes_of(&arguments));
        self.launch(kernel, shape, bytes, &[], &[scaling.as_bytes()], stream)
    }

    /// A step of gradient descent.
    pub fn sgd<T: Number>(&self, all: &Weights<'_, T>, rate: f32, momentum: f32, stream: &Stream) -> Result<()> {
        let [velocities] = all.states()?;
        let arguments = training::Sgd {
            weights: all.weights.address(),
            velocities: velocities.address(),
            gradients: all.gradients.address(),
            copy: all.copy.map_or(0, DeviceBuffer::address),
            scaling: all.scaling.map_or(0, DeviceBuffer::address),
            elements: all.weights.len() as u64,
            rate,
            momentum,
            copy_type: T::COPY,
            unused: 0,
        };
        let (kernel, mut reads) = (Kernel::Sgd(T::DATA_TYPE), vec![all.gradients.as_bytes()]);
        reads.extend(all.scaling.map(DeviceBuffer::as_bytes));
        let mut writes = vec![all.weights.as_bytes(), velocities.as_bytes()];
        writes.extend(all.copy.map(DeviceBuffer::as_bytes));
        let shape = self.shape_of(kernel, all.weights)?;
        self.launch(kernel, shape, bytemuck::bytes_of(&arguments), &reads, &writes, stream)
    }

    /// Counts a step of AdamW, if it is not skipped; `step` holds an [`AdamWStep`].
    pub fn adamw_begin(
        &self,
        step: &DeviceBuffer<u64>,
        scaling: Option<&DeviceBuffer<u32>>,
        rate: f32,
        stream: &Stream,
    ) -> Result<()> {
        check("the state of AdamW", bytes_of(step), size_of::<AdamWStep>())?;
        check("the state of loss scaling", scaling.map_or(Scaling::WORDS, DeviceBuffer::len), Scaling::WORDS)?;
        let ((beta1, beta2), of_scaling) = (AdamW::BETAS, scaling.map_or(0, DeviceBuffer::address));
        let arguments = AdamWBegin { step: step.address(), scaling: of_scaling, rate, beta1, beta2, unused: 0 };
        let (kernel, reads) = (Kernel::AdamWBegin, Vec::from_iter(scaling.map(DeviceBuffer::as_bytes)));
        let (shape, bytes) = (self.shape_of(kernel, step)?, bytemuck::bytes_of(&arguments));
        self.launch(kernel, shape, bytes, &reads, &[step.as_bytes()], stream)
    }

    /// A step of AdamW, with [`AdamW::new`]'s other settings.
    pub fn adamw<T: Number>(
        &self,
        all: &Weights<'_, T>,
        step: &DeviceBuffer<u64>,
        rate: f32,
        stream: &Stream,
    ) -> Result<()> {
        check("the state of AdamW", bytes_of(step), size_of::<AdamWStep>())?;
        let [moments, squares] = all.states()?;
        let (beta1, beta2) = AdamW::BETAS;
        let [first, second, keep] = training::AdamW::factors(rate, AdamW::BETAS, AdamW::DECAY);
        let arguments = training::AdamW {
            weights: all.weights.address(),
            moments: moments.address(),
            squares: squares.address(),
            gradients: all.gradients.address(),
            copy: all.copy.map_or(0, DeviceBuffer::address),
            step: step.address(),
            scaling: all.scaling.map_or(0, DeviceBuffer::address),
            elements: all.weights.len() as u64,
            beta1,
            beta2,
            first,
            second,
            keep,
            epsilon: AdamW::EPSILON,
            copy_type: T::COPY,
            unused: 0,
        };
        let (kernel, mut reads) = (Kernel::AdamW(T::DATA_TYPE), vec![all.gradients.as_bytes(), step.as_bytes()]);
        reads.extend(all.scaling.map(DeviceBuffer::as_bytes));
        let mut writes = vec![all.weights.as_bytes(), moments.as_bytes(), squares.as_bytes()];
        writes.extend(all.copy.map(DeviceBuffer::as_bytes));
        let shape = self.shape_of(kernel, all.weights)?;
        self.launch(kernel, shape, bytemuck::bytes_of(&arguments), &reads, &writes, stream)
    }
}

impl<T: Number> Weights<'_, T> {
    /// The state, `N` buffers, if everything has the weights' length.
    fn states<const N: usize>(&self) -> Result<&[DeviceTensor<f32>; N]> {
        check("gradients", self.gradients.len(), self.weights.len())?;
        for state in self.state {
            check("the optimizer's state", state.len(), self.weights.len())?;
        }
        let copied = if T::COPY == training::NO_COPY { 0 } else { self.weights.len() };
        check("a copy of the weights", self.copy.map_or(0, DeviceBuffer::len), copied)?;
        check("the state of loss scaling", self.scaling.map_or(Scaling::WORDS, DeviceBuffer::len), Scaling::WORDS)?;
        let count = self.state.len();
        self.state.try_into().map_err(|_| Error::invalid(format!("{count} is not the number of states: it is {N}")))
    }
}
