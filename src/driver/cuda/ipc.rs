// SPDX-License-Identifier: MPL-2.0
//! Device memory between processes: a handle names a whole allocation, so what travels is the handle of the allocation
//! that holds an address, and where in it the address is.
#![allow(unsafe_code)]

use std::ffi::c_int;

use super::super::backend::{Address, Failure, Handle, Whole};
use super::context::{Entered, refused};
use super::library::Fault;
use super::sys::{CUdeviceptr, CUipcMemHandle, CUipcMemHandle_st, CUpointer_attribute};

/// `CUDA_ERROR_INVALID_CONTEXT`: what a process gets that opens a handle of its own.
const INVALID_CONTEXT: u32 = 201;

/// # Safety
/// The memory lives.
pub(super) unsafe fn export(driver: &Entered, address: Address) -> Result<(Handle, u64), Failure> {
    let (base, _) = range(driver, address)?;
    let mut handle = CUipcMemHandle_st { reserved: [0; 64] };
    // SAFETY: the pointer is to a variable of ours.
    unsafe { driver.cuIpcGetMemHandle(&mut handle, base) }?;
    Ok((handle.reserved.map(|byte| byte as u8), address - base))
}

pub(super) fn import(driver: &Entered, handle: &Handle) -> Result<(Address, usize), Failure> {
    const LAZY_ENABLE_PEER_ACCESS: u32 = 1;
    let handle: CUipcMemHandle = CUipcMemHandle_st { reserved: handle.map(|byte| byte as _) };
    let mut address = 0;
    // SAFETY: the pointer is to a variable of ours; the driver says which bytes are handles.
    unsafe { driver.cuIpcOpenMemHandle_v2(&mut address, handle, LAZY_ENABLE_PEER_ACCESS) }.map_err(
        |fault| match fault.code {
            INVALID_CONTEXT => refused(
                fault.call,
                fault.code as i32,
                format!("{}: the memory is this very process's; use the buffer itself", fault.name),
            ),
            _ => fault.into(),
        },
    )?;
    match range(driver, address) {
        Ok((base, bytes)) => Ok((address, bytes - (address - base) as usize)),
        Err(fault) => {
            // SAFETY: it was opened just now, and nobody has been told of it.
            let _ = unsafe { driver.cuIpcCloseMemHandle(address) };
            Err(fault.into())
        }
    }
}

/// The allocation that holds an address: where it begins, and how many bytes it has.
fn range(driver: &Entered, address: Address) -> Result<(CUdeviceptr, usize), Fault> {
    let (mut base, mut bytes) = (0, 0);
    // SAFETY: the pointers are to variables of ours.
    unsafe { driver.cuMemGetAddressRange_v2(&mut base, &mut bytes, address) }?;
    Ok((base, bytes))
}

/// What the driver knows of memory that somebody else allocated.
pub(super) fn inspect(driver: &Entered, address: Address) -> Result<Whole, Failure> {
    let (base, bytes) = range(driver, address)?;
    let ask = |attribute| {
        let mut value: c_int = 0;
        // SAFETY: both attributes are of 32 bits at the most, for which there is room.
        unsafe { driver.cuPointerGetAttribute((&raw mut value).cast(), attribute, address) }.map(|()| value)
    };
    let device = ask(CUpointer_attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL)?;
    let exportable = ask(CUpointer_attribute::CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE)?;
    Ok(Whole { device: device.max(0) as usize, begins: base, bytes, mappable: exportable != 0 })
}
