// SPDX-License-Identifier: MPL-2.0
//! The trainer's kernels, each as a call on buffers whose lengths are checked.
#![allow(unsafe_code)]

use std::collections::HashMap;

use super::Number;
use crate::driver::{self, Device, DeviceBuffer, Stream, Use};
use crate::element::Element;
use crate::error::{Error, Result};
use crate::kernel::training::{
    self, Activate, ActivateBackward, AdamWBegin, AdamWStep, ColumnSum, CrossEntropy, CrossEntropyBackward, MeanLoss,
    NO_ACTIVATION, NO_COPY, Product, RECTIFIER,
};
use crate::kernel::{Kernel, Shape};
use crate::optim::AdamW;

/// Threads of the blocks by which rooms are asked for: of kernels that go through elements, and of all others.
const THREADS: (u32, u32) = (256, 64);

/// The kernels of a perceptron that computes with one type, loaded.
pub(super) struct Kernels {
    loaded: HashMap<Kernel, Loaded>,
}

/// A kernel, and how many blocks of it are resident: with 256 threads, and with 64.
struct Loaded {
    kernel: driver::Kernel,
    resident: (u32, u32),
}

/// A matrix in a buffer.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a, T: Number> {
    elements: &'a DeviceBuffer<T>,
    rows: usize,
    columns: usize,
    transposed: bool,
}

impl<'a, T: Number> Matrix<'a, T> {
    /// Row-major, all of the buffer.
    pub fn new(elements: &'a DeviceBuffer<T>, rows: usize, columns: usize) -> Result<Self> {
        check("a matrix", elements.len(), rows * columns)?;
        Ok(Matrix { elements, rows, columns, transposed: false })
    }

    pub fn transposed(self) -> Self {
        Matrix { rows: self.columns, columns: self.rows, transposed: !self.transposed, ..self }
    }

    /// Elements from a row to the next, and from a column to the next.
    fn steps(&self) -> (u64, u64) {
        if self.transposed { (1, self.rows as u64) } else { (self.columns as u64, 1) }
    }
}

/// A step of the optimizer on all weights: the buffers that it uses, of one length.
pub(super) struct Weights<'a, T: Number> {
    pub weights: &'a DeviceBuffer<f32>,
    pub gradients: &'a DeviceBuffer<T>,
    /// What the optimizer remembers of each weight: SGD's velocities, AdamW's first and second moments.
    pub state: &'a [DeviceBuffer<f32>],
}

impl Kernels {
    /// All that a perceptron of that type needs.
    pub fn load<T: Number>(device: &Device) -> Result<Self> {
        let own = T::DATA_TYPE;
        let all = [
            Kernel::Product { from: own, to: own },
            Kernel::Activate(own),
            Kernel::ActivateBackward(own),
            Kernel::CrossEntropy(own),
            Kernel::CrossEntropyBackward(own),
            Kernel::MeanLoss,
            Kernel::ColumnSum { from: own, to: own },
            Kernel::Sgd(own),
            Kernel::AdamWBegin,
            Kernel::AdamW(own),
        ];
        let loaded = all.into_iter().map(|name| {
            let kernel = device.kernel(&name.to_string())?;
            let resident = (kernel.resident_blocks(THREADS.0, 0)?, kernel.resident_blocks(THREADS.1, 0)?);
            Ok((name, Loaded { kernel, resident }))
        });
        Ok(Kernels { loaded: loaded.collect::<Result<_>>()? })
    }

    /// to = left x right.
    pub fn product<T: Number>(
        &self,
        left: Matrix<'_, T>,
        right: Matrix<'_, T>,
        to: &DeviceBuffer<T>,
        accumulate: bool,
        stream: &Stream,
    ) -> Result<()> {
        check("the inner extent of a product", left.columns, right.rows)?;
        check("a product", to.len(), left.rows * right.columns)?;
        let ((left_row, left_column), (right_row, right_column)) = (left.steps(), right.steps());
        let arguments = Product {
            left: left.elements.address(),
            right: right.elements.address(),
            to: to.address(),
            rows: left.rows as u64,
            columns: right.columns as u64,
            inner: left.columns as u64,
            left_row,
            left_column,
            right_row,
            right_column,
            accumulate: accumulate.into(),
            unused: 0,
        };
        let kernel = Kernel::Product { from: T::DATA_TYPE, to: T::DATA_TYPE };
        let shape = Shape::of_product(arguments.rows, arguments.columns, self.resident(kernel)?.1);
        let reads = [left.elements.as_bytes(), right.elements.as_bytes()];
        self.launch(kernel, shape, bytemuck::bytes_of(&arguments), &reads, &[to.as_bytes()], stream)
    }

    /// Adds the bias to each row of `rows`, in place, and lets the rectifier act on the sums, where it is to.
    pub fn activate<T: Number>(
        &self,
        rows: &DeviceBuffer<T>,
        bias: &DeviceBuffer<T>,
        is_rectified: bool,
        stream: &Stream,
    ) -> Result<()> {
        check("elements of a last, broken row", rows.len().checked_rem(bias.len()).unwrap_or(1), 0)?;
        let arguments = Activate {
            from: rows.address(),
            bias: bias.address(),
            to: rows.address(),
            elements: rows.len() as u64,
            columns: bias.len() as u64,
            activation: if is_rectified { RECTIFIER } else { NO_ACTIVATION },
            unused: 0,
        };
        let (kernel, bytes) = (Kernel::Activate(T::DATA_TYPE), bytemuck::bytes_of(&arguments));
        let shape = self.shape_of(kernel, rows)?;
        self.launch(kernel, shape, bytes, &[bias.as_bytes()], &[rows.as_bytes()], stream)
    }

    /// Makes the gradient of what the rectifier put out that of what it was given, in place.
    pub fn rectify_backward<T: Number>(
        &self,
        gradient: &DeviceBuffer<T>,
        output: &DeviceBuffer<T>,
        stream: &Stream,
    ) -> Result<()> {
        check("a gradient", gradient.len(), output.len())?;
        let arguments = ActivateBackward {
            gradient: gradient.address(),
            output: output.address(),
            to: gradient.address(),
            elements: gradient.len() as u64,
            activation: RECTIFIER,
            unused: 0,
        };
        let (kernel, bytes) = (Kernel::ActivateBackward(T::DATA_TYPE), bytemuck::bytes_of(&arguments));
        let shape = self.shape_of(kernel, gradient)?;
        self.launch(kernel, shape, bytes, &[output.as_bytes()], &[gradient.as_bytes()], stream)
    }

    /// The softmax of each row of logits, and its loss.
    pub fn cross_entropy<T: Number>(
        &self,
        logits: &DeviceBuffer<T>,
        labels: &DeviceBuffer<u32>,
        softmax: &DeviceBuffer<f32>,
        losses: &DeviceBuffer<f32>,
        stream: &Stream,
    ) -> Result<()> {
        let classes = classes(logits, labels)?;
        check("a softmax", softmax.len(), logits.len())?;
        check("the losses of rows", losses.len(), labels.len())?;
        let rows = labels.len() as u64;
        let arguments = CrossEntropy {
            logits: logits.address(),
            labels: labels.address(),
            softmax: softmax.address(),
            losses: losses.address(),
            rows,
            classes,
        };
        let kernel = Kernel::CrossEntropy(T::DATA_TYPE);
        let shape = Shape::of_each(rows, self.resident(kernel)?.1);
        let (reads, writes) = ([logits.as_bytes(), labels.as_bytes()], [softmax.as_bytes(), losses.as_bytes()]);
        self.launch(kernel, shape, bytemuck::bytes_of(&arguments), &reads, &writes, stream)
    }

    /// The sum of the losses divided by the denominator.
    pub fn mean_loss(
        &self,
        losses: &DeviceBuffer<f32>,
        denominator: f32,
        to: &DeviceBuffer<f32>,
        stream: &Stream,
    ) -> Result<()> {
        check("a mean", to.len(), 1)?;
        let (from, rows) = (losses.address(), losses.len() as u64);
        let arguments = MeanLoss { losses: from, to: to.address(), rows, denominator, unused: 0 };
        let (kernel, bytes) = (Kernel::MeanLoss, bytemuck::bytes_of(&arguments));
        let shape = self.shape_of(kernel, to)?;
        self.launch(kernel, shape, bytes, &[losses.as_bytes()], &[to.as_bytes()], stream)
    }

    /// The gradient of the logits.
    pub fn cross_entropy_backward<T: Number>(
        &self,
        softmax: &DeviceBuffer<f32>,
        labels: &DeviceBuffer<u32>,
        denominator: f32,
        to: &DeviceBuffer<T>,
        stream: &Stream,
    ) -> Result<()> {
        let classes = classes(softmax, labels)?;
        check("the gradient of logits", to.len(), softmax.len())?;
        let rows = labels.len() as u64;
        let arguments = CrossEntropyBackward {
            softmax: softmax.address(),
            labels: labels.address(),
            scaling: 0,
            to: to.address(),
            rows,
            classes,
            denominator,
            unused: 0,
        };
        let kernel = Kernel::CrossEntropyBackward(T::DATA_TYPE);
        let shape = Shape::of_each(rows, self.resident(kernel)?.1);
        let (bytes, reads) = (bytemuck::bytes_of(&arguments), [softmax.as_bytes(), labels.as_bytes()]);
        self.launch(kernel, shape, bytes, &reads, &[to.as_bytes()], stream)
    }

    /// The sum of each column.
    pub fn column_sum<T: Number>(
        &self,
        from: Matrix<'_, T>,
        to: &DeviceBuffer<T>,
        accumulate: bool,
        stream: &Stream,
    ) -> Result<()> {
        check("sums of columns", to.len(), from.columns)?;
        let arguments = ColumnSum {
            from: from.elements.address(),
            to: to.address(),
            rows: from.rows as u64,
            columns: from.columns as u64,
            accumulate: accumulate.into(),
            unused: 0,
        };
        let kernel = Kernel::ColumnSum { from: T::DATA_TYPE, to: T::DATA_TYPE };
        let shape = Shape::of_each(arguments.columns, self.resident(kernel)?.1);
        let (bytes, reads) = (bytemuck::bytes_of(&arguments), [from.elements.as_bytes()]);
        self.launch(kernel, shape, bytes, &reads, &[to.as_bytes()], stream)
    }

    /// A step of gradient descent.
    pub fn sgd<T: Number>(&self, all: &Weights<'_, T>, rate: f32, momentum: f32, stream: &Stream) -> Result<()> {
        let [velocities] = all.states()?;
        let arguments = training::Sgd {
            weights: all.weights.address(),
            velocities: velocities.address(),
            gradients: all.gradients.address(),
            copy: 0,
            scaling: 0,
            elements: all.weights.len() as u64,
            rate,
            momentum,
            copy_type: NO_COPY,
            unused: 0,
        };
        let (kernel, bytes) = (Kernel::Sgd(T::DATA_TYPE), bytemuck::bytes_of(&arguments));
        let (shape, writes) = (self.shape_of(kernel, all.weights)?, [all.weights.as_bytes(), velocities.as_bytes()]);
        self.launch(kernel, shape, bytes, &[all.gradients.as_bytes()], &writes, stream)
    }

    /// Counts a step of AdamW; `step` holds an [`AdamWStep`].
    pub fn adamw_begin(&self, step: &DeviceBuffer<u64>, rate: f32, stream: &Stream) -> Result<()> {
        check("the state of AdamW", bytes_of(step), size_of::<AdamWStep>())?;
        let (beta1, beta2) = AdamW::BETAS;
        let arguments = AdamWBegin { step: step.address(), scaling: 0, rate, beta1, beta2, unused: 0 };
        let kernel = Kernel::AdamWBegin;
        let (shape, bytes) = (self.shape_of(kernel, step)?, bytemuck::bytes_of(&arguments));
        self.launch(kernel, shape, bytes, &[], &[step.as_bytes()], stream)
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
            copy: 0,
            step: step.address(),
            scaling: 0,
            elements: all.weights.len() as u64,
            beta1,
            beta2,
            first,
            second,
            keep,
            epsilon: AdamW::EPSILON,
            copy_type: NO_COPY,
            unused: 0,
        };
        let kernel = Kernel::AdamW(T::DATA_TYPE);
        let reads = [all.gradients.as_bytes(), step.as_bytes()];
        let writes = [all.weights.as_bytes(), moments.as_bytes(), squares.as_bytes()];
        let shape = self.shape_of(kernel, all.weights)?;
        self.launch(kernel, shape, bytemuck::bytes_of(&arguments), &reads, &writes, stream)
    }

    fn loaded(&self, kernel: Kernel) -> Result<&Loaded> {
        self.loaded.get(&kernel).ok_or_else(|| Error::invalid(format!("{kernel} is no kernel of this perceptron")))
    }

    fn resident(&self, kernel: Kernel) -> Result<(u32, u32)> {
        Ok(self.loaded(kernel)?.resident)
    }

    /// The shape for a kernel that goes through these elements.
    fn shape_of<T: Element>(&self, kernel: Kernel, elements: &DeviceBuffer<T>) -> Result<Shape> {
        Ok(Shape::of(kernel, bytes_of(elements) as u64, self.resident(kernel)?.0))
    }

    /// Enqueues a kernel. Each caller above gives the kernel's own arguments, whose addresses are of `reads` and
    /// `writes` and whose lengths it has checked against theirs.
    fn launch(
        &self,
        kernel: Kernel,
        shape: Shape,
        arguments: &[u8],
        reads: &[DeviceBuffer<u8>],
        writes: &[DeviceBuffer<u8>],
        stream: &Stream,
    ) -> Result<()> {
        for (place, written) in writes.iter().enumerate() {
            if reads.iter().chain(&writes[place + 1..]).any(|other| overlap(written, other)) {
                return Err(Error::invalid(format!("{kernel} cannot write to memory that it uses otherwise")));
            }
        }
        let uses: Vec<Use> = reads.iter().map(Use::reads).chain(writes.iter().map(Use::writes)).collect();
        let shape = driver::Shape::new(shape.blocks, shape.threads);
        // SAFETY: The argument is the kernel's and names `reads` and `writes` alone, as long as it takes them to be: see
        // each caller. Every buffer begins at a multiple of its elements' size. What is written is used in no other way,
        // as was just checked, but for what a kernel updates in place, which each thread reads before it writes it.
        // These kernels take any shape, and no part of them waits for another.
        unsafe { stream.launch(&self.loaded(kernel)?.kernel, shape, arguments, &uses) }
    }
}

impl<T: Number> Weights<'_, T> {
    /// The state, `N` buffers, if everything has the weights' length.
    fn states<const N: usize>(&self) -> Result<&[DeviceBuffer<f32>; N]> {
        check("gradients", self.gradients.len(), self.weights.len())?;
        for state in self.state {
            check("the optimizer's state", state.len(), self.weights.len())?;
        }
        let count = self.state.len();
        self.state.try_into().map_err(|_| Error::invalid(format!("{count} is not the number of states: it is {N}")))
    }
}

fn check(what: &str, have: usize, need: usize) -> Result<()> {
    if have == need { Ok(()) } else { Err(Error::invalid(format!("{what}: {have} are given where {need} belong"))) }
}

/// How many classes each row has.
fn classes<T: Element>(logits: &DeviceBuffer<T>, labels: &DeviceBuffer<u32>) -> Result<u64> {
    let classes = logits.len().checked_div(labels.len()).unwrap_or(0);
    check("the logits of all rows", logits.len(), classes * labels.len())?;
    Ok(classes as u64)
}

/// Bytes of a buffer.
fn bytes_of<T: Element>(buffer: &DeviceBuffer<T>) -> usize {
    buffer.len() * size_of::<T>()
}

/// Whether two buffers have bytes in common.
fn overlap(one: &DeviceBuffer<u8>, other: &DeviceBuffer<u8>) -> bool {
    let end = |buffer: &DeviceBuffer<u8>| buffer.address() + buffer.len() as u64;
    one.address() < end(other) && other.address() < end(one)
}
