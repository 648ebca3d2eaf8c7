// SPDX-License-Identifier: MPL-2.0
//! A device, that of a thread for as long as a call takes. What the thread was in before, it is in again after each call.
//!
//! CUDA has contexts. The primary one is what CUDA's runtime and cudarc use, so their streams and memory are ours and the
//! other way round; it is retained for good. HIP has a device for each thread, and no more than that.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::ops::Deref;
use std::ptr;

use super::calls::{Attribute, Calls, Place};
use super::fault::Fault;

/// A device as the library counts them, before it has a context.
#[derive(Clone, Copy)]
pub(crate) struct Ordinal {
    pub library: &'static dyn Calls,
    pub device: c_int,
}

impl Ordinal {
    pub fn new(library: &'static dyn Calls, index: usize) -> Result<Ordinal, Fault> {
        let mut device = 0;
        // SAFETY: the pointer is to a variable of ours.
        unsafe { library.device(&mut device, c_int::try_from(index).unwrap_or(c_int::MAX)) }?;
        Ok(Ordinal { library, device })
    }

    pub fn name(self) -> Result<String, Fault> {
        // SAFETY: the function writes so many bytes at the most.
        self.text(|text, bytes| unsafe { self.library.name(text.cast(), bytes, self.device) })
    }

    /// Where the device is on the PCI bus: `0000:3B:00.0`.
    pub fn bus(self) -> Result<String, Fault> {
        // SAFETY: as above.
        self.text(|text, bytes| unsafe { self.library.bus(text.cast(), bytes, self.device) })
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
        let mut identity = [0; 16];
        // SAFETY: the pointer is to a variable of ours.
        unsafe { self.library.identity(&mut identity, self.device) }?;
        Ok(identity)
    }

    pub fn attribute(self, attribute: Attribute) -> Result<u32, Fault> {
        let mut value = 0;
        // SAFETY: the pointer is to an integer of ours.
        unsafe { self.library.attribute(&mut value, attribute, self.device) }?;
        Ok(value.max(0) as u32)
    }

    /// The compute capability: 90 is 9.0.
    pub fn capability(self) -> Result<u32, Fault> {
        let major = self.attribute(Attribute::CapabilityMajor)?;
        let minor = self.attribute(Attribute::CapabilityMinor)?;
        Ok(10 * major + minor)
    }

    pub fn multiprocessors(self) -> Result<u32, Fault> {
        self.attribute(Attribute::Multiprocessors)
    }

    /// Whether it can address another device's memory.
    pub fn reaches(self, other: Ordinal) -> Result<bool, Fault> {
        let mut can = 0;
        // SAFETY: the pointer is to an integer of ours.
        unsafe { self.library.can_access_peer(&mut can, self.device, other.device) }?;
        Ok(can != 0)
    }

    /// Bytes of its memory that are free. Makes a context for as long as that takes, if there is none.
    pub fn free_memory(self) -> Result<u64, Fault> {
        let context = Context::retain(self)?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: the pointers are to integers of ours.
        let asked = context.enter().and_then(|library| unsafe { library.memory(&mut free, &mut total) });
        // SAFETY: it was retained here, and is not used any more.
        unsafe { self.library.release_context(self.device) }?;
        asked.map(|()| free as u64)
    }

    /// Bytes of its memory.
    pub fn memory(self) -> Result<u64, Fault> {
        let mut bytes = 0;
        // SAFETY: the pointer is to an integer of ours.
        unsafe { self.library.total_memory(&mut bytes, self.device) }?;
        Ok(bytes as u64)
    }
}

/// A device, retained.
pub(super) struct Context {
    pub ordinal: Ordinal,
    pub place: Place,
}

// SAFETY: any thread may enter a place and use it.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// Retains the device for good.
    pub fn retain(ordinal: Ordinal) -> Result<Context, Fault> {
        let mut context = ptr::null_mut();
        // SAFETY: the pointer is to a variable of ours.
        unsafe { ordinal.library.retain_context(&mut context, ordinal.device) }?;
        Ok(Context { ordinal, place: Place { device: ordinal.device, context } })
    }

    /// Makes the device that of this thread, until what is returned is dropped.
    pub fn enter(&self) -> Result<Entered, Fault> {
        let mut before = 0;
        // SAFETY: the context is never released, and the pointer is to a variable of ours.
        unsafe { self.ordinal.library.enter(self.place, &mut before) }?;
        Ok(Entered { library: self.ordinal.library, before })
    }
}

/// The library, with a device entered in this thread.
pub(super) struct Entered {
    library: &'static dyn Calls,
    before: u64,
}

impl Deref for Entered {
    type Target = dyn Calls;

    fn deref(&self) -> &Self::Target {
        self.library
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        // It cannot be refused: the thread was there before.
        // SAFETY: it is what `enter` gave.
        let _ = unsafe { self.library.leave(self.before) };
    }
}
