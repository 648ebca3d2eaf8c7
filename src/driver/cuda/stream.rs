// SPDX-License-Identifier: MPL-2.0
//! Streams, events, and what moves bytes on streams. An id is the driver's own handle.
#![allow(unsafe_code)]

use std::ptr;

use super::super::backend::{Address, EventId, Failure, StreamId};
use super::context::Entered;
use super::library::Fault;
use super::memory::raw;
use super::sys::CUevent;

/// `CUDA_ERROR_NOT_READY`.
const NOT_READY: u32 = 600;

/// A stream that waits for no other, the default stream included.
pub(super) fn create(driver: &Entered) -> Result<StreamId, Fault> {
    const NON_BLOCKING: u32 = 1;
    let mut stream = ptr::null_mut();
    // SAFETY: the pointer is to a variable of ours.
    unsafe { driver.cuStreamCreate(&mut stream, NON_BLOCKING) }?;
    Ok(StreamId(stream.expose_provenance() as u64))
}

pub(super) fn create_event(driver: &Entered, timed: bool) -> Result<EventId, Fault> {
    const DISABLE_TIMING: u32 = 2;
    let mut event = ptr::null_mut();
    // SAFETY: the pointer is to a variable of ours.
    unsafe { driver.cuEventCreate(&mut event, if timed { 0 } else { DISABLE_TIMING }) }?;
    Ok(EventId(event.expose_provenance() as u64))
}

pub(super) fn raw_event(event: EventId) -> CUevent {
    ptr::with_exposed_provenance_mut(event.0 as usize)
}

/// # Safety
/// The event lives.
pub(super) unsafe fn has_passed(driver: &Entered, event: EventId) -> Result<bool, Failure> {
    // SAFETY: the caller's promise.
    match unsafe { driver.cuEventQuery(raw_event(event)) } {
        Ok(()) => Ok(true),
        Err(fault) if fault.code == NOT_READY => Ok(false),
        Err(fault) => Err(fault.into()),
    }
}

/// # Safety
/// Both live, keep the time and have passed.
pub(super) unsafe fn nanoseconds(driver: &Entered, from: EventId, to: EventId) -> Result<f64, Failure> {
    let mut milliseconds = 0.0;
    // SAFETY: the caller's promise; the pointer is to a variable of ours.
    unsafe { driver.cuEventElapsedTime(&mut milliseconds, raw_event(from), raw_event(to)) }?;
    Ok(f64::from(milliseconds) * 1e6)
}

/// Stores a pattern of `width` bytes `count` times in a row. The driver has no pattern of 8 bytes: where the halves differ,
/// the first is stored in two words, and what is there is copied behind itself, twice as much each time.
///
/// # Safety
/// The range is of this device until it has been done, and aligned to `width`.
pub(super) unsafe fn fill(
    driver: &Entered,
    to: Address,
    pattern: u64,
    width: usize,
    count: usize,
    stream: StreamId,
) -> Result<(), Fault> {
    let stream = raw(stream);
    let (low, high) = (pattern as u32, (pattern >> 32) as u32);
    // SAFETY: each call writes within the caller's range, and copies read what the ones before wrote.
    unsafe {
        match width {
            1 => driver.cuMemsetD8Async(to, low as u8, count, stream),
            2 => driver.cuMemsetD16Async(to, low as u16, count, stream),
            4 => driver.cuMemsetD32Async(to, low, count, stream),
            _ if low == high => driver.cuMemsetD32Async(to, low, 2 * count, stream),
            _ => {
                driver.cuMemsetD32Async(to, low, 1, stream)?;
                driver.cuMemsetD32Async(to + 4, high, 1, stream)?;
                let (mut done, all) = (8, 8 * count);
                while done < all {
                    let more = done.min(all - done);
                    driver.cuMemcpyDtoDAsync_v2(to + done as Address, to, more, stream)?;
                    done += more;
                }
                Ok(())
            }
        }
    }
}
