// SPDX-License-Identifier: MPL-2.0
//! Memory of the host that processes share, pinned in each: what devices that do not reach each other meet in.
//!
//! To pin it, and to let go of it, a driver may wait for all that runs on the device, as of other pinned memory
//! (`pinned`). It is made while a communicator is, and given back when nothing runs (`memory`).
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::backend::{Address, Failure, Handle};
use super::super::mapping::Mapping;
use super::context::Entered;
use super::pinned::address_of;

/// By their addresses.
#[derive(Default)]
pub(super) struct Hosted(Mutex<HashMap<Address, Mapping>>);

impl Hosted {
    fn mappings(&self) -> MutexGuard<'_, HashMap<Address, Mapping>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Zeroed memory.
    pub fn allocate(&self, driver: &Entered, bytes: usize) -> Result<Address, Failure> {
        self.pin(driver, Mapping::named(bytes, 0)?)
    }

    /// Another process's; and how many bytes it has.
    pub fn import(&self, driver: &Entered, handle: &Handle) -> Result<(Address, usize), Failure> {
        let mapping = Mapping::import(handle)?;
        let bytes = mapping.bytes();
        Ok((self.pin(driver, mapping)?, bytes))
    }

    /// The name of what begins at this address, if that is such memory of this process.
    pub fn export(&self, address: Address) -> Option<Handle> {
        self.mappings().get(&address)?.handle()
    }

    fn pin(&self, driver: &Entered, mapping: Mapping) -> Result<Address, Failure> {
        let (address, memory) = (mapping.address(), at(mapping.address()));
        // SAFETY: the memory is mapped, and stays until it is unpinned.
        unsafe { driver.register(memory, mapping.bytes()) }?;
        let found = address_of(driver, memory);
        self.mappings().insert(address, mapping);
        if found.is_err() {
            self.release(driver, address);
        }
        found
    }

    /// Gives memory back, which nothing uses any more. What the driver does not let go of stays mapped; there is nobody
    /// to tell.
    pub fn release(&self, driver: &Entered, address: Address) {
        let Some(mapping) = self.mappings().remove(&address) else { return };
        // SAFETY: it was pinned when it came here.
        if unsafe { driver.unregister(at(address)) }.is_err() {
            std::mem::forget(mapping);
        }
    }
}

fn at(address: Address) -> *mut c_void {
    ptr::with_exposed_provenance_mut(address as usize)
}
