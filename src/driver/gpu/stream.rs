// SPDX-License-Identifier: MPL-2.0
//! Streams, events, and what moves bytes on streams. An id is the driver's own handle.
#![allow(unsafe_code)]

use std::ptr;

use super::super::backend::{Address, EventId, Failure, StreamId};
use super::calls::Object;
use super::context::Entered;
use super::fault::{Fault, number};
use super::memory::raw;

/// A stream that waits for no other, the default stream included.
pub(super) fn create(driver: &Entered, urgent: bool) -> Result<StreamId, Fault> {
    let mut stream = ptr::null_mut();
    match urgent {
        // SAFETY: the pointer is to a variable of ours.
        true => unsafe { driver.create_urgent_stream(&mut stream) },
        // SAFETY: as above.
        false => unsafe { driver.create_stream(&mut stream) },
    }?;
    Ok(StreamId(stream.expose_provenance() as u64))
}

pub(super) fn create_event(driver: &Entered, timed: bool) -> Result<EventId, Fault> {
    let mut event = ptr::null_mut();
    // SAFETY: the pointer is to a variable of ours.
    unsafe { driver.create_event(&mut event, timed) }?;
    Ok(EventId(event.expose_provenance() as u64))
}

pub(super) fn raw_event(event: EventId) -> Object {
    ptr::with_exposed_provenance_mut(event.0 as usize)
}

/// # Safety
/// The event lives.
pub(super) unsafe fn has_passed(driver: &Entered, event: EventId) -> Result<bool, Failure> {
    // SAFETY: the caller's promise.
    match unsafe { driver.query_event(raw_event(event)) } {
        Ok(()) => Ok(true),
        Err(fault) if fault.code == number::NOT_READY => Ok(false),
        Err(fault) => Err(fault.into()),
    }
}

/// # Safety
/// Both live, keep the time and have passed.
pub(super) unsafe fn nanoseconds(driver: &Entered, from: EventId, to: EventId) -> Result<f64, Failure> {
    let mut milliseconds = 0.0;
    // SAFETY: the caller's promise; the pointer is to a variable of ours.
    unsafe { driver.elapsed(&mut milliseconds, raw_event(from), raw_event(to)) }?;
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
            1 => driver.fill_8(to, low as u8, count, stream),
            2 => driver.fill_16(to, low as u16, count, stream),
            4 => driver.fill_32(to, low, count, stream),
            _ if low == high => driver.fill_32(to, low, 2 * count, stream),
            _ => {
                driver.fill_32(to, low, 1, stream)?;
                driver.fill_32(to + 4, high, 1, stream)?;
                let (mut done, all) = (8, 8 * count);
                while done < all {
                    let more = done.min(all - done);
                    driver.copy(to + done as Address, to, more, stream)?;
                    done += more;
                }
                Ok(())
            }
        }
    }
}
