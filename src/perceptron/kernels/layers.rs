// SPDX-License-Identifier: MPL-2.0
//! Layers and loss, forward and backward.

use super::{Kernels, check};
use crate::driver::{DeviceBuffer, Factor, Stream};
use crate::element::Element;
use crate::error::Result;
use crate::kernel::training::{Activate, ColumnSum, CrossEntropy, NO_ACTIVATION, Product, RECTIFIER, Scaling};
use crate::kernel::{Kernel, Shape};
use crate::perceptron::Number;

/// A matrix in a buffer.
#[derive(Clone, Copy)]
pub struct Matrix<'a, T: Number> {
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

    fn as_factor(&self) -> Factor<'a, T> {
        let Matrix { elements, rows, columns, transposed } = *self;
        Factor { elements, rows, columns, transposed }
    }

    /// Elements from a row to the next, and from a column to the next.
    fn steps(&self) -> (u64, u64) {
        if self.transposed { (1, self.rows as u64) } else { (self.columns as u64, 1) }
    }
}

impl Kernels {
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
        if let Ok(products) = &self.products {
            return products.multiply([left.as_factor(), right.as_factor()], to, accumulate, stream);
        }
        let ((left_row, left_column), (right_row, right_column)) = (left.steps(), right.steps());
        let kernel = Kernel::Product { from: T::DATA_TYPE, to: T::DATA_TYPE };
        let (rows, columns) = (left.rows as u64, right.columns as u64);
        let (shape, small) = Shape::of_product(rows, columns, self.resident(kernel)?.1);
        let arguments = Product {
            left: left.elements.address(),
            right: right.elements.address(),
            to: to.address(),
            rows,
            columns,
            inner: left.columns as u64,
            left_row,
            left_column,
            right_row,
            right_column,
            accumulate: accumulate.into(),
            small: small.into(),
        };
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

    /// The loss of each row of logits, and the gradient of the logits, multiplied by the scale of the loss, if there is
    /// one: `scaling` holds a [`Scaling`].
    pub fn cross_entropy<T: Number>(
        &self,
        (logits, labels): (&DeviceBuffer<T>, &DeviceBuffer<u32>),
        denominator: f32,
        scaling: Option<&DeviceBuffer<u32>>,
        (losses, to): (&DeviceBuffer<f32>, &DeviceBuffer<T>),
        stream: &Stream,
    ) -> Result<()> {
        check("the state of loss scaling", scaling.map_or(Scaling::WORDS, DeviceBuffer::len), Scaling::WORDS)?;
        let classes = classes(logits, labels)?;
        check("the losses of rows", losses.len(), labels.len())?;
        check("the gradient of logits", to.len(), logits.len())?;
        let rows = labels.len() as u64;
        let arguments = CrossEntropy {
            logits: logits.address(),
            labels: labels.address(),
            losses: losses.address(),
            scaling: scaling.map_or(0, DeviceBuffer::address),
            to: to.address(),
            rows,
            classes,
            denominator,
            unused: 0,
        };
        let kernel = Kernel::CrossEntropy(T::DATA_TYPE);
        let shape = Shape::of_each(rows, self.resident(kernel)?.1);
        let (bytes, mut reads) = (bytemuck::bytes_of(&arguments), vec![logits.as_bytes(), labels.as_bytes()]);
        reads.extend(scaling.map(DeviceBuffer::as_bytes));
        self.launch(kernel, shape, bytes, &reads, &[losses.as_bytes(), to.as_bytes()], stream)
    }

    /// The sum of each column. With an `output`, the matrix is the gradient of what the rectifier put out, and becomes that
    /// of what it was given, in place.
    pub fn column_sum<T: Number>(
        &self,
        from: Matrix<'_, T>,
        output: Option<&DeviceBuffer<T>>,
        to: &DeviceBuffer<T>,
        accumulate: bool,
        stream: &Stream,
    ) -> Result<()> {
        check("sums of columns", to.len(), from.columns)?;
        check(
            "what the rectifier put out",
            output.map_or(from.elements.len(), DeviceBuffer::len),
            from.elements.len(),
        )?;
        let arguments = ColumnSum {
            from: from.elements.address(),
            output: output.map_or(0, DeviceBuffer::address),
            to: to.address(),
            rows: from.rows as u64,
            columns: from.columns as u64,
            accumulate: accumulate.into(),
            unused: 0,
        };
        let kernel = Kernel::ColumnSum { from: T::DATA_TYPE, to: T::DATA_TYPE };
        let shape = Shape::of_columns(arguments.columns, self.resident(kernel)?.0);
        let (own, bytes) = (from.elements.as_bytes(), bytemuck::bytes_of(&arguments));
        match output {
            Some(output) => self.launch(kernel, shape, bytes, &[output.as_bytes()], &[own, to.as_bytes()], stream),
            None => self.launch(kernel, shape, bytes, &[own], &[to.as_bytes()], stream),
        }
    }
}

/// How many classes each row has.
fn classes<T: Element>(logits: &DeviceBuffer<T>, labels: &DeviceBuffer<u32>) -> Result<u64> {
    let classes = logits.len().checked_div(labels.len()).unwrap_or(0);
    check("the logits of all rows", logits.len(), classes * labels.len())?;
    Ok(classes as u64)
}
