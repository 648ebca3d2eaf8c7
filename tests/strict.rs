// SPDX-License-Identifier: MPL-2.0
//! Strict simulated devices: every kernel of the library gives the bits of other simulated devices, in every schedule
//! that is tried; and mistakes that are planted in kernels, of the library and of `strict/faults.cu`, are said.

#![cfg(all(feature = "sim", target_os = "linux"))]
#![allow(unsafe_code)] // kernels are launched

#[path = "strict/collectives.rs"]
mod collectives;
mod compiler;
#[path = "strict/faults.rs"]
mod faults;
mod ranks;
#[path = "strict/residency.rs"]
mod residency;
mod simulated;
#[path = "standin/mod.rs"]
mod standin;
#[path = "strict/trainer.rs"]
mod trainer;

use std::ops::Range;

use annulus::driver::{Device, DeviceBuffer, Shape, Use};
use annulus::{Element, Result};

/// Schedules that are tried of each kernel.
const SEEDS: Range<u64> = 0..20;

/// Launches a kernel of one's own, whose argument is made of addresses and numbers, and waits for its end.
fn launch(device: &Device, kernel: &str, shape: Shape, argument: &[u64], uses: &[Use]) -> Result<()> {
    let stream = device.stream()?;
    let kernel = device.kernel(kernel)?;
    // SAFETY: callers give the kernel's own argument, whose addresses are of the buffers in `uses`. A kernel with a
    // mistake in it is ended before it does what it must not do.
    unsafe { stream.launch(&kernel, shape, bytemuck::cast_slice(argument), uses) }?;
    stream.synchronize()
}

/// A buffer with these values.
fn upload<T: Element>(device: &Device, values: &[T]) -> Result<DeviceBuffer<T>> {
    let buffer = device.allocate(values.len())?;
    device.stream()?.write(&buffer, values)?;
    Ok(buffer)
}

/// What is there.
fn read<T: Element>(device: &Device, buffer: &DeviceBuffer<T>) -> Result<Vec<T>> {
    device.stream()?.read(buffer)
}
