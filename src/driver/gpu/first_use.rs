// SPDX-License-Identifier: MPL-2.0
//! What a driver makes ready at its first use, used once while nothing runs on the device that could wait for it.
//!
//! Fills and copies within a device are kernels of the driver's own, which it may load as late as any other's
//! (`CUDA_MODULE_LOADING`), and waits then for what runs. Copies from and to the host, graphs and functions of the host may
//! want memory or a thread of the driver's, and a pool its first piece.
#![allow(unsafe_code)]

use std::ffi::c_void;

use super::super::backend::{Address, Failure, MemoryKind, StreamId};
use super::context::{Context, Entered};
use super::fault::Fault;
use super::memory::{Memory, raw};
use super::{graph, stream};

const HALF: usize = 64 << 10;

/// Each kind of what is enqueued, but for kernels. What is refused here is refused again where it is needed, and told
/// there.
pub(super) fn rehearse(context: &Context, memory: &Memory) -> Result<(), Failure> {
    let driver = context.enter()?;
    let stream = stream::create(&driver, false)?;
    let kinds = [MemoryKind::Local, MemoryKind::Pinned];
    let [local, pinned] = kinds.map(|kind| memory.allocate(&driver, 2 * HALF, kind));
    if let (Ok(local), Ok(pinned)) = (&local, &pinned) {
        // SAFETY: both have that many bytes, and are kept until all has been done.
        let _ = unsafe { enqueue(&driver, stream, *local, *pinned) };
    }
    // SAFETY: the stream lives, and nobody else has it.
    let done = unsafe {
        let done = driver.synchronize_stream(raw(stream));
        driver.destroy_stream(raw(stream)).and(done)
    };
    // What may still be used stays.
    done?;
    for (address, kind) in [local, pinned].into_iter().zip(kinds) {
        let Ok(address) = address else { continue };
        // SAFETY: it is of that kind, and all that used it has been done.
        unsafe { memory.free(&driver, address, kind) }?;
    }
    Ok(())
}

/// # Safety
/// Both addresses are of `2 * HALF` bytes, that the stream's work may use until it has been done.
unsafe fn enqueue(driver: &Entered, stream: StreamId, local: Address, pinned: Address) -> Result<(), Fault> {
    let (second, on) = (local + HALF as Address, raw(stream));
    // SAFETY: all that is used is within the memory; the graph is destroyed when its launch has been done.
    unsafe {
        driver.fill_8(local, 0, HALF, on)?;
        driver.fill_16(local, 0, HALF / 2, on)?;
        driver.fill_32(local, 0, HALF / 4, on)?;
        // What begins and ends anywhere may be another kernel's.
        driver.fill_8(local + 1, 0, HALF - 2, on)?;
        driver.fill_16(local + 2, 0, HALF / 2 - 2, on)?;
        driver.fill_32(local + 4, 0, HALF / 4 - 2, on)?;
        for (to, from, bytes) in
            [(second, local, HALF), (second, local, 3), (pinned, local, HALF), (local, pinned, HALF)]
        {
            driver.copy(to, from, bytes, on)?;
        }
        graph::begin(driver, stream)?;
        let filled = driver.fill_8(local, 0, HALF, on);
        let captured = graph::end(driver, stream)?;
        let captured = graph::raw_graph(captured);
        let launched = filled.and_then(|()| driver.launch_graph(captured, on));
        let done = launched.and_then(|()| driver.synchronize_stream(on));
        driver.destroy_executable(captured)?;
        done?;
        driver.call_host(on, nothing, std::ptr::null_mut())
    }
}

extern "C" fn nothing(_: *mut c_void) {}
