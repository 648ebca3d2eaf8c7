// SPDX-License-Identifier: MPL-2.0
//! Batches of samples that are in device memory.

use super::{Kernels, check};
use crate::driver::{DeviceBuffer, Stream};
use crate::error::Result;
use crate::kernel::training::Pick;
use crate::kernel::{Kernel, Shape};
use crate::perceptron::Number;

impl Kernels {
    /// Rows and labels of the samples that `order` names, each of which must exist.
    pub fn pick<T: Number>(
        &self,
        (inputs, labels): (&DeviceBuffer<T>, &DeviceBuffer<u32>),
        order: &DeviceBuffer<u32>,
        (to, to_labels): (&DeviceBuffer<T>, &DeviceBuffer<u32>),
        stream: &Stream,
    ) -> Result<()> {
        if order.is_empty() {
            return Ok(());
        }
        let width = to.len() / order.len();
        check("the rows of a batch", to.len(), width * order.len())?;
        check("the labels of a batch", to_labels.len(), order.len())?;
        check("the inputs of all samples", inputs.len(), width * labels.len())?;
        let arguments = Pick {
            inputs: inputs.address(),
            labels: labels.address(),
            order: order.address(),
            to: to.address(),
            to_labels: to_labels.address(),
            rows: order.len() as u64,
            bytes: (width * size_of::<T>()) as u64,
        };
        let shape = Shape::of_rows(arguments.rows, self.resident(Kernel::Pick)?.1);
        let (reads, writes) =
            ([inputs.as_bytes(), labels.as_bytes(), order.as_bytes()], [to.as_bytes(), to_labels.as_bytes()]);
        self.launch(Kernel::Pick, shape, bytemuck::bytes_of(&arguments), &reads, &writes, stream)
    }
}
