// SPDX-License-Identifier: MPL-2.0
//! Pinned memory of the host, where every device addresses it under the host's own addresses.
//!
//! To pin memory, and to let go of it, a driver may wait for all that runs on the device; what runs may wait for a peer,
//! and the peer for the thread that pins. So blocks are kept and used again: after a while nothing is pinned any more.
//! Their sizes are powers of two; small ones are cut from slabs, the first of which is pinned with the device.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::c_void;
use std::ops::Range;
use std::ptr;
use std::sync::{Mutex, PoisonError};

use super::super::backend::{Address, Failure};
use super::context::Entered;
use super::fault::{number, refused};

/// What small blocks are cut from.
const SLAB: usize = 1 << 20;
/// The longest block that is cut from a slab.
const SMALL: usize = SLAB / 16;
/// The shortest block, and the alignment of all.
const LEAST: usize = 256;

#[derive(Default)]
pub(super) struct Pinned(Mutex<Blocks>);

#[derive(Default)]
struct Blocks {
    /// Blocks that nobody uses, by their size.
    spare: HashMap<usize, Vec<Address>>,
    /// The sizes of those in use.
    sizes: HashMap<Address, usize>,
    /// What is left of the last slab. The rest of a slab before it is lost, which is less than a block.
    slab: Range<Address>,
}

impl Pinned {
    /// Zeroed memory.
    pub fn allocate(&self, driver: &Entered, bytes: usize) -> Result<Address, Failure> {
        let size = bytes.checked_next_power_of_two().unwrap_or(usize::MAX).max(LEAST);
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let address = match blocks.spare.get_mut(&size).and_then(Vec::pop) {
            Some(address) => address,
            None if size > SMALL => pin(driver, size)?,
            None => {
                if blocks.slab.end - blocks.slab.start < size as Address {
                    let slab = pin(driver, SLAB)?;
                    blocks.slab = slab..slab + SLAB as Address;
                }
                let address = blocks.slab.start;
                blocks.slab.start += size as Address;
                address
            }
        };
        blocks.sizes.insert(address, size);
        drop(blocks);
        // SAFETY: the block has that many bytes, is mapped into the host at its address, and is nobody else's.
        unsafe { (address as *mut u8).write_bytes(0, bytes) };
        Ok(address)
    }

    /// Takes a block back.
    pub fn free(&self, address: Address) {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(size) = blocks.sizes.remove(&address) {
            blocks.spare.entry(size).or_default().push(address);
        }
    }
}

/// Memory of the host that is pinned for good, aligned to pages.
fn pin(driver: &Entered, bytes: usize) -> Result<Address, Failure> {
    let mut memory = ptr::null_mut::<c_void>();
    // SAFETY: the pointer is to a variable of ours.
    unsafe { driver.pin(&mut memory, bytes) }?;
    address_of(driver, memory)
}

/// Where devices address pinned memory, which is where the host does.
pub(super) fn address_of(driver: &Entered, memory: *mut c_void) -> Result<Address, Failure> {
    let mut address = 0;
    // SAFETY: the pointer is to a variable of ours; the driver says of any memory whether it is pinned.
    unsafe { driver.device_address(&mut address, memory) }?;
    if address != memory.expose_provenance() as Address {
        return Err(refused(
            "device_address",
            number::NOT_SUPPORTED,
            format!("pinned memory at {memory:p} is at {address:#x} for the device; unified addresses are needed"),
        ));
    }
    Ok(address)
}
