// SPDX-License-Identifier: MPL-2.0
//! The trainer's kernels, each as a call on buffers whose lengths are checked: of a `batch`, of `layers` and loss, and of
//! `updates`.
//! Matrix products are the vendor's library's, where the device has one.
#![allow(unsafe_code)]

mod batch;
mod layers;
mod updates;

use std::collections::HashMap;

pub(super) use self::layers::Matrix;
pub(super) use self::updates::Weights;
use super::Number;
use crate::driver::{self, Device, DeviceBuffer, Products, Stream, Use};
use crate::element::{DataType, Element};
use crate::error::{Error, Result};
use crate::kernel::{Kernel, Shape};

/// Threads of the blocks by which rooms are asked for: of kernels that go through elements, and of all others.
const THREADS: (u32, u32) = (256, 64);

/// The kernels of a perceptron that computes with one type, loaded.
pub(super) struct Kernels {
    loaded: HashMap<Kernel, Loaded>,
    /// The vendor's products, or why they are not used.
    products: Result<Products, String>,
}

/// A kernel, and how many blocks of it are resident: with 256 threads, and with 64.
struct Loaded {
    kernel: driver::Kernel,
    resident: (u32, u32),
}

impl Kernels {
    /// All that a perceptron of that type needs.
    pub fn load<T: Number>(device: &Device) -> Result<Self> {
        let own = T::DATA_TYPE;
        let mut all = vec![
            Kernel::Pick,
            Kernel::Product { from: own, to: own },
            Kernel::Activate(own),
            Kernel::CrossEntropy(own),
            Kernel::ColumnSum { from: own, to: own },
            Kernel::Sgd(own),
            Kernel::AdamWBegin,
            Kernel::AdamW(own),
            Kernel::FindOverflow(own),
            Kernel::UpdateScale,
        ];
        if own != DataType::F32 {
            all.push(Kernel::Convert { from: DataType::F32, to: own });
        }
        let loaded = all.into_iter().map(|name| {
            let kernel = device.kernel(&name.to_string())?;
            let resident = (kernel.resident_blocks(THREADS.0, 0)?, kernel.resident_blocks(THREADS.1, 0)?);
            Ok((name, Loaded { kernel, resident }))
        });
        let products = match Products::of(device) {
            Ok(products) => Ok(products),
            Err(Error::Unsupported(why)) => Err(why.to_string()),
            Err(other) => return Err(other),
        };
        Ok(Kernels { loaded: loaded.collect::<Result<_>>()?, products })
    }

    /// Whose products these are: the library's name, or why the own kernel makes them.
    pub fn products(&self) -> Result<&str, &str> {
        self.products.as_ref().map(Products::name).map_err(String::as_str)
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

    /// Enqueues a kernel. Each caller, in the files below, gives the kernel's own arguments, whose addresses are of
    /// `reads` and `writes` and whose lengths it has checked against theirs.
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

fn check(what: &str, have: usize, need: usize) -> Result<()> {
    if have == need { Ok(()) } else { Err(Error::invalid(format!("{what}: {have} are given where {need} belong"))) }
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
