// SPDX-License-Identifier: MPL-2.0
//! Code: modules, kernels, and how they are launched.
#![allow(unsafe_code)]

use std::ffi::{CString, c_void};
use std::ptr;

use super::{Card, Stream};
use crate::driver::cuda::Fault;
use crate::driver::cuda::sys::{CUfunction, CUfunction_attribute, CUmodule};
use crate::error::{Error, Result};

impl Card {
    /// Loads PTX.
    pub fn load(&self, ptx: &str) -> Result<Module<'_>> {
        let image = CString::new(ptx).map_err(|_| Error::invalid("PTX has no zero bytes"))?;
        let mut module = ptr::null_mut();
        // SAFETY: the image is text that ends with a zero, and is copied by the call.
        unsafe { self.driver.cuModuleLoadData(&mut module, image.as_ptr().cast()) }?;
        Ok(Module { card: self, module })
    }
}

/// Loaded code.
pub(in super::super) struct Module<'a> {
    card: &'a Card,
    module: CUmodule,
}

impl<'a> Module<'a> {
    pub fn function(&self, name: &str) -> Result<Function<'a>> {
        let name = CString::new(name).map_err(|_| Error::invalid("a name has no zero bytes"))?;
        let mut function = ptr::null_mut();
        // SAFETY: the name ends with a zero; the module stays loaded for good.
        unsafe { self.card.driver.cuModuleGetFunction(&mut function, self.module, name.as_ptr()) }?;
        Ok(Function { card: self.card, function })
    }

    /// Unloads code of which no function was launched or is known.
    pub fn unload(self) -> Result<(), Fault> {
        // SAFETY: the module is given up, and what was enqueued has been done.
        unsafe {
            self.card.driver.cuCtxSynchronize()?;
            self.card.driver.cuModuleUnload(self.module)
        }
    }
}

/// How a kernel is launched.
#[derive(Clone, Copy)]
pub(in super::super) struct Shape {
    pub blocks: u32,
    pub threads: u32,
    /// Bytes of dynamic shared memory a block.
    pub shared: u32,
    /// Whether the driver is to refuse what cannot be resident at once.
    pub cooperative: bool,
}

impl Shape {
    pub fn new(blocks: u32, threads: u32) -> Self {
        Shape { blocks, threads, shared: 0, cooperative: false }
    }
}

/// A kernel.
#[derive(Clone, Copy)]
pub(in super::super) struct Function<'a> {
    card: &'a Card,
    function: CUfunction,
}

impl Function<'_> {
    /// Blocks of this shape that are resident on a multiprocessor, by the driver's reckoning.
    pub fn occupancy(&self, threads: u32, shared: u32) -> Result<u32, Fault> {
        let mut blocks = 0;
        // SAFETY: the pointer is to an integer of ours.
        unsafe {
            self.card.driver.cuOccupancyMaxActiveBlocksPerMultiprocessor(
                &mut blocks,
                self.function,
                threads as i32,
                shared as usize,
            )
        }?;
        Ok(blocks.max(0) as u32)
    }

    /// Registers a thread uses.
    pub fn registers(&self) -> Result<u32, Fault> {
        let mut value = 0;
        // SAFETY: the pointer is to an integer of ours.
        unsafe {
            self.card.driver.cuFuncGetAttribute(
                &mut value,
                CUfunction_attribute::CU_FUNC_ATTRIBUTE_NUM_REGS,
                self.function,
            )
        }?;
        Ok(value.max(0) as u32)
    }

    /// Allows blocks that much dynamic shared memory.
    pub fn allow_shared(&self, bytes: u32) -> Result<(), Fault> {
        let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: takes no pointers.
        unsafe { self.card.driver.cuFuncSetAttribute(self.function, attribute, bytes as i32) }
    }

    /// Enqueues a launch.
    ///
    /// # Safety
    /// The kernel takes an `A`, and every address in it is of memory as long as the kernel takes it to be, which stays
    /// until the kernel has ended.
    pub unsafe fn launch<A>(&self, stream: &Stream, shape: Shape, mut arguments: A) -> Result<(), Fault> {
        let Shape { blocks, threads, shared, cooperative } = shape;
        let (driver, function) = (self.card.driver, self.function);
        let mut pointers = [(&raw mut arguments).cast::<c_void>()];
        let pointers = pointers.as_mut_ptr();
        // SAFETY: the one argument is the kernel's, by the caller's promise, and is copied by the call.
        unsafe {
            if cooperative {
                driver.cuLaunchCooperativeKernel(function, blocks, 1, 1, threads, 1, 1, shared, stream.stream, pointers)
            } else {
                let none = ptr::null_mut();
                driver.cuLaunchKernel(function, blocks, 1, 1, threads, 1, 1, shared, stream.stream, pointers, none)
            }
        }
    }
}
