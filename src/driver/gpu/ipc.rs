// SPDX-License-Identifier: MPL-2.0
//! Device memory between processes: a handle names a whole allocation, so what travels is the handle of the allocation
//! that holds an address, and where in it the address is.
#![allow(unsafe_code)]

use super::super::backend::{Address, Failure, Handle};
use super::context::Entered;
use super::fault::{Fault, number, refused};

/// # Safety
/// The memory lives.
pub(super) unsafe fn export(driver: &Entered, address: Address) -> Result<(Handle, u64), Failure> {
    let (base, _) = range(driver, address)?;
    let mut handle = [0; 64];
    // SAFETY: the pointer is to a variable of ours.
    unsafe { driver.export(&mut handle, base) }?;
    Ok((handle, address - base))
}

pub(super) fn import(driver: &Entered, handle: &Handle) -> Result<(Address, usize), Failure> {
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
    match range(driver, address) {
        Ok((base, bytes)) => Ok((address, bytes - (address - base) as usize)),
        Err(fault) => {
            // SAFETY: it was opened just now, and nobody has been told of it.
            let _ = unsafe { driver.close_exported(address) };
            Err(fault.into())
        }
    }
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
