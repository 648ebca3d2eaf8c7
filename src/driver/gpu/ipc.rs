// SPDX-License-Identifier: MPL-2.0
//! Device memory between processes: a handle names a whole allocation, so what travels is the handle of the allocation
//! that holds an address, where in it the address is, and how long it is: who allocated it knows, and of memory that was
//! mapped a driver may not say.
#![allow(unsafe_code)]

use super::super::backend::{Address, Failure, Handle};
use super::context::Entered;
use super::fault::{Fault, number, refused};

/// # Safety
/// The memory lives.
pub(super) unsafe fn export(driver: &Entered, address: Address) -> Result<(Handle, u64, u64), Failure> {
    let (base, bytes) = range(driver, address)?;
    let mut handle = [0; 64];
    // SAFETY: the pointer is to a variable of ours.
    unsafe { driver.export(&mut handle, base) }?;
    Ok((handle, address - base, bytes as u64))
}

pub(super) fn import(driver: &Entered, handle: &Handle, bytes: u64) -> Result<(Address, usize), Failure> {
    let mut address = 0;
    // SAFETY: the pointer is to a variable of ours; the library says which bytes are handles.
    unsafe { driver.open_exported(&mut address, handle) }.map_err(|fault| match fault.code {
        number::INVALID_CONTEXT => refused(
            fault.call,
            fault.code,
            format!("{}: the memory is this very process's; use the buffer itself", fault.name),
        ),
        _ => fault.into(),
    })?;
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    // A driver that knows it shorter is right: the name is damaged.
    let after = |(base, whole): (Address, usize)| whole.checked_sub(address.checked_sub(base)? as usize);
    let known = range(driver, address).ok().and_then(after);
    Ok((address, known.map_or(bytes, |known| known.min(bytes))))
}

/// The allocation that holds an address: where it begins, and how many bytes it has.
fn range(driver: &Entered, address: Address) -> Result<(Address, usize), Fault> {
    let (mut base, mut bytes) = (0, 0);
    // SAFETY: the pointers are to variables of ours.
    unsafe { driver.range(&mut base, &mut bytes, address) }?;
    Ok((base, bytes))
}

/// What the library knows of memory that somebody else allocated.
#[cfg(feature = "cuda")]
pub(super) fn inspect(driver: &Entered, address: Address) -> Result<super::Whole, Failure> {
    let (begins, bytes) = range(driver, address)?;
    let (mut device, mut exportable) = (0, 0);
    // SAFETY: the pointers are to integers of ours.
    unsafe { driver.inspect(&mut device, &mut exportable, address) }?;
    Ok(super::Whole { device: device.max(0) as usize, begins, bytes, mappable: exportable != 0 })
}
