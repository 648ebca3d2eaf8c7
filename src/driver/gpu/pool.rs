// SPDX-License-Identifier: MPL-2.0
//! A pool of our own on a device, for memory that nobody else maps.
//!
//! The device's default pool is the user's to configure. As it comes, it gives back to the system whatever is free in it,
//! each time that somebody waits for a stream; to unmap memory, a driver may wait for all that runs on the device, and what
//! runs may wait for a peer. So this one keeps what it has until it is told to give it back.
#![allow(unsafe_code)]

use std::ptr;

use super::super::backend::{Address, Failure, StreamId};
use super::calls::{Attribute, Object};
use super::context::{Context, Entered};
use super::fault::Fault;
use super::memory::raw;

pub(super) struct Pool {
    /// The library's handle. The pool is never destroyed.
    id: u64,
    /// On which memory is taken and given back, so that the next one gets at once what the one before gave back.
    stream: StreamId,
}

impl Pool {
    /// One on the device that has been entered, if it can have one.
    pub fn new(context: &Context, driver: &Entered, stream: StreamId) -> Result<Option<Pool>, Failure> {
        if context.ordinal.attribute(Attribute::MemoryPools)? == 0 {
            return Ok(None);
        }
        let mut pool = ptr::null_mut();
        // SAFETY: the pointer is to a variable of ours.
        unsafe { driver.create_pool(&mut pool, context.place.device) }?;
        Ok(Some(Pool { id: pool.expose_provenance() as u64, stream }))
    }

    /// As it was left by whoever had it before. What is enqueued on the stream may use it; others, when that is done.
    pub fn allocate(&self, driver: &Entered, bytes: usize) -> Result<Address, Fault> {
        let mut address = 0;
        // SAFETY: the pointer is to a variable of ours; pool and stream live, and are of this place.
        unsafe { driver.allocate_of_pool(&mut address, bytes, self.raw(), raw(self.stream)) }?;
        Ok(address)
    }

    /// # Safety
    /// The memory came from here, and nothing that is still to be done uses it.
    pub unsafe fn free(&self, driver: &Entered, address: Address) -> Result<(), Fault> {
        // SAFETY: the caller's promise; the stream lives.
        unsafe { driver.free_to_pool(address, raw(self.stream)) }
    }

    /// Gives back to the system what nobody has, whatever that waits for. What is refused stays in the pool.
    pub fn trim(&self, driver: &Entered) {
        // SAFETY: pool and stream live, and are of this place. What has been freed counts as free once the host has seen
        // the stream come to it.
        let _ = unsafe { driver.synchronize_stream(raw(self.stream)).and_then(|()| driver.trim_pool(self.raw())) };
    }

    fn raw(&self) -> Object {
        ptr::with_exposed_provenance_mut(self.id as usize)
    }
}
