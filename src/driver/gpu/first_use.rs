// SPDX-License-Identifier: MPL-2.0
//! What a driver makes ready at its first use, used once while nothing runs on the device that could wait for it.
//!
//! Fills and copies within a device are kernels of the driver's own, which it may load as late as any other's
//! (`CUDA_MODULE_LOADING`), and waits then for what runs.
#![allow(unsafe_code)]

use super::super::backend::Address;
use super::context::Context;
use super::fault::Fault;
use super::memory::raw;
use super::stream;

/// Fills and copies of each kind. What is refused here is refused again where it is needed, and told there.
pub(super) fn fills_and_copies(context: &Context) -> Result<(), Fault> {
    const HALF: usize = 64 << 10;
    let driver = context.enter()?;
    let stream = stream::create(&driver)?;
    let mut memory: Address = 0;
    // SAFETY: the pointer is to a variable of ours; all that is used is within the memory, which nobody else knows of,
    // and is given back once it has been done.
    unsafe {
        let used = driver.allocate(&mut memory, 2 * HALF, false).and_then(|()| {
            let work = driver
                .fill_8(memory, 0, HALF, raw(stream))
                .and_then(|()| driver.fill_16(memory, 0, HALF / 2, raw(stream)))
                .and_then(|()| driver.fill_32(memory, 0, HALF / 4, raw(stream)))
                .and_then(|()| driver.copy(memory + HALF as Address, memory, HALF, raw(stream)))
                .and_then(|()| driver.copy(memory + HALF as Address, memory, 3, raw(stream)));
            let done = driver.synchronize_stream(raw(stream));
            driver.free(memory)?;
            work.and(done)
        });
        driver.destroy_stream(raw(stream))?;
        used
    }
}
