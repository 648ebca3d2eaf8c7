// SPDX-License-Identifier: MPL-2.0
//! A device's primary context, current in a thread for as long as a call takes.
//!
//! The primary context is the one that CUDA's runtime and cudarc use, so their streams and memory are ours and the other
//! way round. It is retained for good. What was current in the user's thread before is current again after each call.
//!
//! A user may capture meanwhile, by default so that whatever allocates or asks on any thread spoils the capture. None of
//! our calls is of that capture, so each is made as a relaxed one.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::ops::Deref;
use std::ptr;

use super::super::backend::Failure;
use super::library::{Driver, Fault};
use super::sys::{CUcontext, CUdevice, CUdevice_attribute, CUstreamCaptureMode, CUuuid};

/// What was refused by the library itself, for a reason that the driver has a number for.
pub(super) fn refused(call: &'static str, code: i32, meaning: impl Into<String>) -> Failure {
    Failure { call, code, meaning: meaning.into() }
}

/// `CUDA_ERROR_NOT_SUPPORTED`.
pub(super) const NOT_SUPPORTED: i32 = 801;
/// `CUDA_ERROR_NO_BINARY_FOR_GPU`.
pub(super) const NO_BINARY: i32 = 209;

/// A device as the driver counts them, before it has a context.
#[derive(Clone, Copy)]
pub(crate) struct Ordinal {
    pub driver: &'static Driver,
    pub device: CUdevice,
}

impl Ordinal {
    pub fn new(driver: &'static Driver, index: usize) -> Result<Ordinal, Fault> {
        let mut device = 0;
        // SAFETY: the pointer is to a variable of ours.
        unsafe { driver.cuDeviceGet(&mut device, c_int::try_from(index).unwrap_or(c_int::MAX)) }?;
        Ok(Ordinal { driver, device })
    }

    pub fn name(self) -> Result<String, Fault> {
        // SAFETY: the function writes so many bytes at the most.
        self.text(|text, bytes| unsafe { self.driver.cuDeviceGetName(text.cast(), bytes, self.device) })
    }

    /// Where the device is on the PCI bus: `0000:3B:00.0`.
    pub fn bus(self) -> Result<String, Fault> {
        // SAFETY: as above.
        self.text(|text, bytes| unsafe { self.driver.cuDeviceGetPCIBusId(text.cast(), bytes, self.device) })
    }

    fn text(self, ask: impl FnOnce(*mut u8, c_int) -> Result<(), Fault>) -> Result<String, Fault> {
        let mut text = [0_u8; 256];
        // The last byte stays zero.
        ask(text.as_mut_ptr(), text.len() as c_int - 1)?;
        let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
        Ok(String::from_utf8_lossy(&text[..end]).into_owned())
    }

    /// The same wherever the device is seen, under whatever number.
    pub fn identity(self) -> Result<[u8; 16], Fault> {
        let mut uuid = CUuuid { bytes: [0; 16] };
        // SAFETY: the pointer is to a variable of ours.
        unsafe { self.driver.cuDeviceGetUuid_v2(&mut uuid, self.device) }?;
        Ok(uuid.bytes.map(|byte| byte as u8))
    }

    pub fn attribute(self, attribute: CUdevice_attribute) -> Result<u32, Fault> {
        let mut value = 0;
        // SAFETY: the pointer is to an integer of ours.
        unsafe { self.driver.cuDeviceGetAttribute(&mut value, attribute, self.device) }?;
        Ok(value.max(0) as u32)
    }

    /// The compute capability: 90 is 9.0.
    pub fn capability(self) -> Result<u32, Fault> {
        let major = self.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = self.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        Ok(10 * major + minor)
    }

    pub fn multiprocessors(self) -> Result<u32, Fault> {
        self.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
    }

    /// Whether it can address another device's memory.
    pub fn reaches(self, other: Ordinal) -> Result<bool, Fault> {
        let mut can = 0;
        // SAFETY: the pointer is to an integer of ours.
        unsafe { self.driver.cuDeviceCanAccessPeer(&mut can, self.device, other.device) }?;
        Ok(can != 0)
    }

    /// Bytes of its memory that are free. Makes a context for as long as that takes, if there is none.
    pub fn free_memory(self) -> Result<u64, Fault> {
        let context = Context::retain(self)?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: the pointers are to integers of ours.
        let asked = context.enter().and_then(|driver| unsafe { driver.cuMemGetInfo_v2(&mut free, &mut total) });
        // SAFETY: it was retained here, and is not used any more.
        unsafe { self.driver.cuDevicePrimaryCtxRelease_v2(self.device) }?;
        asked.map(|()| free as u64)
    }

    /// Bytes of its memory.
    pub fn memory(self) -> Result<u64, Fault> {
        let mut bytes = 0;
        // SAFETY: the pointer is to an integer of ours.
        unsafe { self.driver.cuDeviceTotalMem_v2(&mut bytes, self.device) }?;
        Ok(bytes as u64)
    }
}

/// A device's primary context.
pub(super) struct Context {
    pub ordinal: Ordinal,
    pub raw: CUcontext,
}

// SAFETY: any thread may make a context current and use it.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// The context, retained for good.
    pub fn retain(ordinal: Ordinal) -> Result<Context, Fault> {
        let mut raw = ptr::null_mut();
        // SAFETY: the pointer is to a variable of ours.
        unsafe { ordinal.driver.cuDevicePrimaryCtxRetain(&mut raw, ordinal.device) }?;
        Ok(Context { ordinal, raw })
    }

    /// Makes the context current in this thread, until what is returned is dropped.
    pub fn enter(&self) -> Result<Entered, Fault> {
        // SAFETY: the context is never released.
        unsafe { self.ordinal.driver.cuCtxPushCurrent_v2(self.raw) }?;
        let mut entered = Entered { driver: self.ordinal.driver, mode: None };
        let mut mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the pointer is to a variable of ours, of one of the modes, and gets another of them.
        unsafe { entered.cuThreadExchangeStreamCaptureMode(&mut mode) }?;
        entered.mode = Some(mode);
        Ok(entered)
    }
}

/// The driver, with a context current in this thread.
pub(super) struct Entered {
    driver: &'static Driver,
    /// How the thread took others' captures before.
    mode: Option<CUstreamCaptureMode>,
}

impl Deref for Entered {
    type Target = Driver;

    fn deref(&self) -> &Driver {
        self.driver
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut context = ptr::null_mut();
        // Neither can be refused: the mode was the thread's, and what was pushed is there.
        // SAFETY: the pointers are to variables of ours.
        unsafe {
            let _ = self.mode.take().map(|mut mode| self.driver.cuThreadExchangeStreamCaptureMode(&mut mode));
            let _ = self.driver.cuCtxPopCurrent_v2(&mut context);
        }
    }
}
