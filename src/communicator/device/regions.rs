// SPDX-License-Identifier: MPL-2.0
//! Memory that peers see, by the number of its region: 0 are the arenas, 1 is where a
//! call packs what a launch is to read, others were registered by all ranks together.
//!
//! A kernel of a peer may use a region whenever all ranks have entered a call, also one that this rank has found to
//! fail: so it is given up only when all have agreed that their calls have been done (`close`). Its number is never
//! used again, and its addresses become zero: a graph that names it still is told so by the kernel.

use std::sync::PoisonError;

use super::DeviceCommunicator;
use super::exchange::{agree, exchange};
use super::join::Members;
use crate::driver::DeviceBuffer;
use crate::element::Element;
use crate::error::{Error, Result};
use crate::kernel::Place;

/// The most regions, the communicator's own two included: what the table of addresses has room for.
pub(super) const REGIONS: usize = 4096;

impl DeviceCommunicator {
    /// `len` zeroed elements of this rank's device that peers see, so that calls on it, or on parts of it, copy nothing
    /// but what they must. Collective, on the host; lengths may differ.
    ///
    /// # Errors
    ///
    /// On all ranks: `System` where a rank's memory is exhausted, `InvalidArgument` where 4094 buffers have been registered,
    /// and the failures of every collective.
    pub fn allocate<T: Element>(&self, len: usize) -> Result<DeviceBuffer<T>> {
        let allocated = self.members.device.allocate_mappable::<T>(len);
        let buffer = agree(&self.control(), "allocating memory that peers see", allocated)?;
        self.register(&buffer)?;
        Ok(buffer)
    }

    /// Lets peers see a buffer of this rank's device, so that calls on it, or on parts of it, copy nothing but what
    /// they must; where devices do not reach each other, it is staged all the same. Collective, on the host; each rank
    /// passes a buffer of its own, of any length. It is kept as long as the communicator, or until all
    /// [deregister](Self::deregister) it.
    ///
    /// # Errors
    ///
    /// On all ranks: `InvalidArgument` where a rank's buffer is of another device or was not made by
    /// [`allocate_mappable`](crate::driver::Device::allocate_mappable), or where 4094 buffers have been registered;
    /// and the failures of every collective.
    pub fn register<T: Element>(&self, buffer: &DeviceBuffer<T>) -> Result<()> {
        let members = &self.members;
        let check = || {
            members.failure(&self.faults)?;
            let known = members.regions.lock().unwrap_or_else(PoisonError::into_inner).len();
            if !buffer.is_mappable() || buffer.device() != members.device {
                return Err(Error::invalid(format!(
                    "rank {} can register what {} has allocated with `allocate_mappable`; {buffer:?} is other memory",
                    members.rank, members.device
                )));
            }
            match known < REGIONS {
                true => Ok(()),
                false => Err(Error::invalid(format!("{} buffers have been registered, and no more can be", known - 2))),
            }
        };
        agree(&self.control(), "registering device memory", check())?;
        let own = buffer.as_bytes();
        // Where devices do not reach each other, peers see nothing: it is only remembered.
        let region = match members.hosted {
            true => vec![own; members.world],
            false => exchange(&self.control(), &members.device, &own)?,
        };
        let added = members.add_region(region);
        agree(&self.control(), "registering device memory", added)
    }
}

impl Members {
    /// Makes the next region of these buffers, one a rank, and lets kernels know where they are.
    pub fn add_region(&self, buffers: Vec<DeviceBuffer<u8>>) -> Result<()> {
        let addresses: Vec<u64> = buffers.iter().map(DeviceBuffer::address).collect();
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        #[cfg(annulus_corrupt)]
        let addresses = super::corrupt::disordered(addresses, self.rank, regions.len());
        let first = regions.len() * self.world;
        self.stream.write(&self.table.part(first..first + self.world)?, &addresses)?;
        // A kernel reads the table without any order: it is complete before a call can name the region.
        self.stream.synchronize()?;
        regions.push(buffers);
        Ok(())
    }

    /// The region that is these very bytes, of those that were registered.
    pub fn region_of(&self, address: u64, bytes: usize) -> Option<usize> {
        let regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        let is = |own: &DeviceBuffer<u8>| own.address() == address && own.len() == bytes;
        // The last of them, where a buffer was registered twice.
        (2..regions.len()).rev().find(|number| regions[*number].get(self.rank).is_some_and(is))
    }

    /// Gives a region up, which no call uses.
    pub fn remove_region(&self, number: usize) -> Result<()> {
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        let first = number * self.world;
        self.stream.write(&self.table.part(first..first + self.world)?, &vec![0; self.world])?;
        self.stream.synchronize()?;
        let buffers = regions.get_mut(number).map(std::mem::take);
        drop(regions);
        drop(buffers);
        Ok(())
    }

    /// Where peers find these bytes of this rank's memory.
    pub fn place_of(&self, address: u64, bytes: usize) -> Place {
        let regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = if self.hosted { 2 } else { regions.len() };
        let found = regions.iter().take(seen).enumerate().find_map(|(number, buffers)| {
            let own = buffers.get(self.rank)?;
            let offset = address.checked_sub(own.address())?;
            let fits = offset + bytes as u64 <= own.len() as u64 && bytes > 0;
            // The arena begins with what is no buffer of anybody's, so no place in it is `STAGED`.
            fits.then(|| Place::new(number as u16, offset))
        });
        found.unwrap_or(Place::STAGED)
    }
}
