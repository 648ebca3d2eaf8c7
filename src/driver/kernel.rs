// SPDX-License-Identifier: MPL-2.0
//! Kernels: found by name, launched with the bytes of their one argument.
#![allow(unsafe_code)]

use std::fmt;
use std::sync::Arc;

use super::allocation::{Access, Usage};
use super::backend::{Function, Grid};
use super::buffer::DeviceBuffer;
use super::device::Core;
use super::stream::Stream;
use super::words::Words;
use crate::element::Element;
use crate::error::{Error, Result};

/// A kernel of a device.
#[derive(Clone)]
pub struct Kernel {
    device: Arc<Core>,
    name: Arc<str>,
    function: Function,
}

/// How a kernel is launched: so many blocks of so many threads, in one dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    blocks: u32,
    threads: u32,
    shared: u32,
    together: bool,
}

impl Shape {
    /// Blocks, threads of a block, no dynamic shared memory.
    pub const fn new(blocks: u32, threads: u32) -> Self {
        Shape { blocks, threads, shared: 0, together: false }
    }

    /// With so many bytes of dynamic shared memory a block.
    pub const fn shared(self, bytes: u32) -> Self {
        Shape { shared: bytes, ..self }
    }

    /// Refused unless all blocks can be resident at once, which is what blocks need that wait for one another.
    pub const fn together(self) -> Self {
        Shape { together: true, ..self }
    }
}

/// How a launch uses memory. What it does not name, it must not use.
pub struct Use(pub(super) Usage);

impl Use {
    /// The kernel reads these elements.
    pub fn reads<T: Element>(buffer: &DeviceBuffer<T>) -> Self {
        Use(buffer.usage(Access::Reads))
    }

    /// The kernel writes these elements, or reads and writes them.
    pub fn writes<T: Element>(buffer: &DeviceBuffer<T>) -> Self {
        Use(buffer.usage(Access::Updates))
    }

    /// The kernel accesses these elements at the same time as others do, as peers do by flags. They are kept for it,
    /// and nothing is ordered on their account.
    pub fn shares<T: Element>(buffer: &DeviceBuffer<T>) -> Self {
        Use(buffer.usage(Access::Shares))
    }

    /// The kernel accesses these words, as atomics.
    pub fn words(words: &Words) -> Self {
        let allocation = words.allocation.clone();
        Use(Usage { range: 0..allocation.bytes, allocation, access: Access::Shares })
    }
}

impl Kernel {
    pub(super) fn new(device: &Arc<Core>, name: &str) -> Result<Kernel> {
        let function = device.backend.function(name).map_err(|failure| {
            device.failed(format_args!("loading the kernel {name}"), &failure, "see the driver's own log")
        })?;
        let function = function
            .ok_or_else(|| Error::invalid(format!("{device} has no kernel {name}; kernels/ has the library's")))?;
        Ok(Kernel { device: device.clone(), name: name.into(), function })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many blocks of so many threads, with so many bytes of dynamic shared memory, the device holds at once when
    /// nothing else runs.
    ///
    /// # Errors
    ///
    /// `System` where the driver does not say.
    pub fn resident_blocks(&self, threads: u32, shared: u32) -> Result<u32> {
        // SAFETY: the function is this device's.
        unsafe { self.device.backend.resident_blocks(self.function.id, threads, shared) }.map_err(|failure| {
            self.device.failed(format_args!("asking for the room of {}", self.name), &failure, "see the driver's log")
        })
    }

    fn check(&self, shape: Shape, argument: &[u8]) -> Result<()> {
        let (device, name) = (&self.device, &self.name);
        let refused = |why: String| Err(Error::invalid(format!("{device} cannot launch {name} with {why}")));
        if let Some(expected) = self.function.argument_bytes.filter(|expected| *expected != argument.len()) {
            return refused(format!("an argument of {} bytes: it takes {expected}", argument.len()));
        }
        let has = device.backend.capabilities();
        if shape.blocks == 0 || shape.threads == 0 {
            return refused(format!("{} blocks of {} threads: there is one of each", shape.blocks, shape.threads));
        }
        if shape.threads > has.threads_per_block {
            return refused(format!("{} threads a block: it has {} at the most", shape.threads, has.threads_per_block));
        }
        if shape.shared > has.shared_per_block {
            return refused(format!(
                "{} bytes of shared memory a block: it has {} at the most",
                shape.shared, has.shared_per_block
            ));
        }
        let resident = self.resident_blocks(shape.threads, shape.shared)?;
        if resident == 0 || (shape.together && shape.blocks > resident) {
            return refused(format!(
                "{} blocks of {} threads and {} bytes of shared memory at once: it has room for {resident} ({} \
                 multiprocessors); use fewer or smaller blocks",
                shape.blocks, shape.threads, shape.shared, has.multiprocessors
            ));
        }
        Ok(())
    }
}

impl Stream {
    /// Enqueues a kernel. `argument` is the bytes of its one argument, a struct of the same layout.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` where the kernel is of another device, the argument has not the kernel's size, the device has
    /// no room for such blocks (or, of a shape that says [`Shape::together`], for all of them at once), or a use is of
    /// memory that the device cannot address.
    ///
    /// # Safety
    ///
    /// The argument is one that the kernel takes. Every address in it is of memory that `uses` names, as long and as
    /// aligned as the kernel takes it to be, and used as said there; where that is [`Use::shares`] or [`Use::words`],
    /// all who access the memory meanwhile do so as the kernel's protocol says.
    pub unsafe fn launch(&self, kernel: &Kernel, shape: Shape, argument: &[u8], uses: &[Use]) -> Result<()> {
        if !Arc::ptr_eq(&kernel.device, &self.core.device) {
            return Err(Error::invalid(format!(
                "{} is a kernel of {} and cannot be launched on {self}; ask that device for it",
                kernel.name, kernel.device
            )));
        }
        kernel.check(shape, argument)?;
        for Use(usage) in uses {
            self.core.device.address(&usage.allocation)?;
        }
        let usages = uses.iter().map(|used| used.0.clone()).collect();
        let grid = Grid { blocks: shape.blocks, threads: shape.threads, shared: shape.shared };
        self.enqueue(format_args!("launching {}", kernel.name), usages, Vec::new(), |backend, stream| {
            // SAFETY: The function and the stream are of this device. The argument is the kernel's by the caller's
            // promise, its size was checked where it is known; the memory it uses is kept until it has ended. The
            // device has room for such blocks.
            unsafe { backend.launch(kernel.function.id, grid, shape.together, argument, stream) }
        })
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kernel({} of {})", self.name, self.device)
    }
}
