// SPDX-License-Identifier: MPL-2.0
//! Pinned memory of the host, where every device addresses it under the host's own addresses.
//!
//! To pin memory, and to let go of it, a driver may wait for all that runs on the device; what runs may wait for a peer,
//! and the peer for the thread that pins. So a slab is pinned with the device, and what is pinned is kept. Blocks are cut
//! from slabs and go back there. Their sizes are powers of two: a block that is too long is cut in halves, and when both
//! halves are free they are one block again.
//!
//! What is longer than a slab is pinned when it is first needed, in whole pages, and kept for what is as long. A copy of that
//! length does not go through a shorter block in pieces: the host would wait for a piece before it could give the block the
//! next one, and whoever enqueues must not wait.
#![allow(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::c_void;
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::backend::{Address, Failure};
use super::context::Entered;
use super::fault::{number, refused};

/// What blocks are cut from: room for some copies of MiB at a time, and little of a host's memory for each of its ranks.
const SLAB: usize = 32 << 20;
/// The shortest block, and the alignment of all.
const LEAST: usize = 256;
/// What a block is a multiple of that is longer than a slab: copies of nearly the same length have the same blocks.
const PAGE: usize = 2 << 20;

#[derive(Default)]
pub(super) struct Pinned(Mutex<Blocks>);

#[derive(Default)]
struct Blocks {
    /// Where slabs begin, and how long they are.
    slabs: BTreeMap<Address, usize>,
    /// Blocks that nobody uses, by their size. Those longer than `SLAB` are never cut.
    spare: BTreeMap<usize, BTreeSet<Address>>,
    /// The sizes of those in use.
    sizes: HashMap<Address, usize>,
}

impl Pinned {
    /// Zeroed memory.
    pub fn allocate(&self, driver: &Entered, bytes: usize) -> Result<Address, Failure> {
        let size = block_for(bytes);
        let found = self.blocks().take(size);
        let address = match found {
            Some(address) => address,
            // With the lock given up: what the driver waits for may wait for a thread that needs a block.
            None => {
                let (slab, length) = pin(driver, size)?;
                self.blocks().add(slab, length, size)
            }
        };
        // SAFETY: the block has that many bytes, is mapped into the host at its address, and is nobody else's.
        unsafe { (address as *mut u8).write_bytes(0, bytes) };
        Ok(address)
    }

    /// Takes a block back.
    pub fn free(&self, address: Address) {
        self.blocks().give_back(address);
    }

    fn blocks(&self) -> MutexGuard<'_, Blocks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long the block is that so many bytes get.
fn block_for(bytes: usize) -> usize {
    match bytes {
        ..=SLAB => bytes.next_power_of_two().max(LEAST),
        _ => bytes.checked_next_multiple_of(PAGE).unwrap_or(bytes),
    }
}

impl Blocks {
    /// A block of that size, if there is one or a longer one: the shortest of those.
    fn take(&mut self, size: usize) -> Option<Address> {
        let longest = if size > SLAB { usize::MAX } else { SLAB };
        let mut free = self.spare.range_mut(size..=longest);
        let (length, address) = free.find_map(|(length, blocks)| Some((*length, blocks.pop_first()?)))?;
        Some(self.cut(address, length, size))
    }

    /// Takes a block of a new slab.
    fn add(&mut self, slab: Address, length: usize, size: usize) -> Address {
        self.slabs.insert(slab, length);
        self.cut(slab, length, size)
    }

    /// Begins to use a block's beginning. The rest is halves; of a long block, there is none.
    fn cut(&mut self, address: Address, mut length: usize, size: usize) -> Address {
        while length > size && length <= SLAB {
            length /= 2;
            self.spare.entry(length).or_default().insert(address + length as Address);
        }
        self.sizes.insert(address, length);
        address
    }

    fn give_back(&mut self, address: Address) {
        let Some(mut size) = self.sizes.remove(&address) else { return };
        let Some((slab, length)) = self.slabs.range(..=address).next_back() else { return };
        let mut offset = address - slab;
        // The other half of what both were cut from is where this bit differs.
        while size < *length && self.spare.entry(size).or_default().remove(&(slab + (offset ^ size as Address))) {
            offset &= !(size as Address);
            size *= 2;
        }
        self.spare.entry(size).or_default().insert(slab + offset);
    }
}

/// A slab that is pinned for good, aligned to pages, of that length at the least: where and how long it is. It is shorter
/// than others where no more can be pinned.
fn pin(driver: &Entered, least: usize) -> Result<(Address, usize), Failure> {
    let mut length = SLAB.max(least);
    loop {
        let mut memory = ptr::null_mut::<c_void>();
        // SAFETY: the pointer is to a variable of ours.
        match unsafe { driver.pin(&mut memory, length) } {
            Ok(()) => return Ok((address_of(driver, memory)?, length)),
            Err(_) if length / 2 >= least => length /= 2,
            Err(fault) => return Err(fault.into()),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of all lengths, taken and given back in an order that is drawn: no two share a byte, and in the end all are
    /// one again.
    #[test]
    fn blocks_are_apart_and_become_whole_again() {
        const BEGIN: Address = 0x7000;
        let mut blocks = Blocks::default();
        let whole = blocks.add(BEGIN, SLAB, SLAB);
        blocks.give_back(whole);
        let (mut held, mut seed) = (Vec::<(Address, usize)>::new(), 1_u64);
        for turn in 0..10_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let size = LEAST << ((seed >> 40) % 18);
            match turn < 5000 && seed >> 63 == 0 {
                true => held.extend(blocks.take(size).map(|address| (address, size))),
                false if held.is_empty() => {}
                false => blocks.give_back(held.swap_remove((seed >> 33) as usize % held.len()).0),
            }
            let mut ranges = held.clone();
            ranges.sort_unstable();
            assert!(ranges.windows(2).all(|two| two[0].0 + two[0].1 as Address <= two[1].0), "{ranges:x?}");
        }
        held.into_iter().for_each(|(address, _)| blocks.give_back(address));
        assert_eq!(blocks.take(SLAB), Some(BEGIN));
        assert_eq!((blocks.take(LEAST), blocks.sizes.len()), (None, 1));
    }

    /// What is long is not doubled, and is kept whole for what is long.
    #[test]
    fn long_blocks_are_of_pages_and_stay_whole() {
        assert_eq!([1, 1000, SLAB].map(block_for), [LEAST, 1024, SLAB]);
        let long = block_for(129 << 20);
        assert_eq!((long, block_for((129 << 20) + 1)), (130 << 20, 130 << 20));
        let mut blocks = Blocks::default();
        let whole = blocks.add(PAGE as Address, long, long);
        blocks.give_back(whole);
        assert_eq!((blocks.take(SLAB), blocks.take(long + 1)), (None, None));
        for _ in 0..2 {
            assert_eq!(blocks.take(SLAB + PAGE), Some(whole));
            assert_eq!(blocks.take(long), None);
            blocks.give_back(whole);
        }
    }
}
