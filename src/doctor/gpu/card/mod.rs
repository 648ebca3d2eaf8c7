// SPDX-License-Identifier: MPL-2.0
//! A card as the questions see it: one context, its memory, streams, events and graphs, safe to use as they stand.
//!
//! A question has a process of its own that ends with it, and that is what makes this simple: nothing is ever destroyed
//! or freed (but where freeing is the question), so nothing that a running kernel was given can go away under it.
//! Everything belongs to the thread that opened the card.
#![allow(unsafe_code)]

mod code;
mod graphs;
mod memory;
mod streams;

use std::marker::PhantomData;
use std::ptr;
use std::time::{Duration, Instant};

pub(super) use code::{Function, Shape};
pub(super) use graphs::Graph;
pub(super) use memory::{DeviceMemory, Handle, Memory, PeerMemory, PinnedMemory};
pub(super) use streams::{Event, Stream};

use crate::driver::cuda::sys::{CUdevice, CUdevice_attribute};
use crate::driver::cuda::{Driver, Fault};
use crate::error::Result;

/// The first device that the driver shows, and its primary context.
pub(super) struct Card {
    driver: &'static Driver,
    device: CUdevice,
    /// The context is current in one thread.
    _thread: PhantomData<*const ()>,
}

impl Card {
    /// The driver, started, and how many devices it shows.
    pub fn count() -> Result<usize> {
        let driver = Driver::get()?;
        let mut count = 0;
        // SAFETY: the pointer is to an integer of ours.
        unsafe { driver.cuDeviceGetCount(&mut count) }?;
        Ok(count.max(0) as usize)
    }

    /// Opens device 0 for this thread.
    pub fn open() -> Result<Self> {
        let driver = Driver::get()?;
        let mut device = 0;
        let mut context = ptr::null_mut();
        // SAFETY: the pointers are to variables of ours; the context is retained for good.
        unsafe {
            driver.cuDeviceGet(&mut device, 0)?;
            driver.cuDevicePrimaryCtxRetain(&mut context, device)?;
            driver.cuCtxSetCurrent(context)?;
        }
        Ok(Card { driver, device, _thread: PhantomData })
    }

    /// Copies for a while: an idle card's clocks are low, and what is timed on it says little.
    pub fn warm(&self) -> Result<()> {
        let (_, free) = self.memory()?;
        let bytes = (16 << 20).min(free / 64);
        let (stream, from, to) = (self.stream()?, self.allocate(bytes)?, self.allocate(bytes)?);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(300) {
            for _ in 0..16 {
                from.copy_to(&to, &stream)?;
            }
            stream.synchronize()?;
        }
        Ok(())
    }

    /// The version of CUDA that the driver is for: 12080 is 12.8.
    pub fn driver_version(&self) -> Result<i32, Fault> {
        self.driver.version()
    }

    pub fn name(&self) -> Result<String, Fault> {
        let mut name = [0_u8; 256];
        // SAFETY: the length is that of the array, which ends up with a zero in it.
        unsafe { self.driver.cuDeviceGetName(name.as_mut_ptr().cast(), name.len() as i32 - 1, self.device) }?;
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        Ok(String::from_utf8_lossy(&name[..end]).into_owned())
    }

    pub fn attribute(&self, attribute: CUdevice_attribute) -> Result<u32, Fault> {
        let mut value = 0;
        // SAFETY: the pointer is to an integer of ours.
        unsafe { self.driver.cuDeviceGetAttribute(&mut value, attribute, self.device) }?;
        Ok(value.max(0) as u32)
    }

    pub fn multiprocessors(&self) -> Result<u32, Fault> {
        self.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
    }

    /// The compute capability: 90 is 9.0.
    pub fn capability(&self) -> Result<u32, Fault> {
        let major = self.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = self.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        Ok(10 * major + minor)
    }

    /// Bytes of memory, all and free.
    pub fn memory(&self) -> Result<(usize, usize), Fault> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: the pointers are to integers of ours.
        unsafe { self.driver.cuMemGetInfo_v2(&mut free, &mut total) }?;
        Ok((total, free))
    }

    /// Whether functions are loaded when they are first used: 1 if at once, 2 if when used.
    pub fn loading_mode(&self) -> Result<u32, Fault> {
        let mut mode = 0_u32;
        // SAFETY: The pointer is to 32 bits of ours, which is what the enumeration takes; they are read as a number.
        unsafe { self.driver.cuModuleGetLoadingMode((&raw mut mode).cast()) }?;
        Ok(mode)
    }

    /// Waits for everything that was enqueued.
    pub fn synchronize(&self) -> Result<(), Fault> {
        // SAFETY: takes no arguments.
        unsafe { self.driver.cuCtxSynchronize() }
    }
}
