// SPDX-License-Identifier: MPL-2.0
//! Owned memory that peers may reach: from the heap among threads, from the rank's segment among processes.
#![allow(unsafe_code)] // allocation and the promise that this memory may move between threads

use std::alloc::Layout;
use std::ptr::NonNull;

use crate::error::{Error, Result};

/// The granularity at which memory is allocated and may be split; that of a segment is the system's, if that is larger.
pub(crate) const PAGE: usize = 4096;

/// A run of zeroed memory, aligned to [`PAGE`], at an address that stays.
pub(crate) struct Memory {
    data: NonNull<u8>,
    bytes: usize,
    home: Home,
}

enum Home {
    Heap(Layout),
    /// The range goes back to the segment when this is dropped.
    #[cfg(target_os = "linux")]
    Segment {
        _lease: super::shm::Lease,
    },
}

// SAFETY: a `Memory` owns its bytes; nothing about them is bound to a thread.
unsafe impl Send for Memory {}
// SAFETY: a shared `Memory` only gives out its address and length.
unsafe impl Sync for Memory {}

impl Memory {
    /// `bytes` (at least one page's worth are taken) from the heap.
    pub fn from_heap(bytes: usize) -> Result<Self> {
        let too_large = || Error::system(format_args!("allocating {bytes} bytes"), "out of memory");
        let size = bytes.max(1).checked_next_multiple_of(PAGE).ok_or_else(too_large)?;
        let layout = Layout::from_size_align(size, PAGE).map_err(|_| too_large())?;
        // SAFETY: the layout's size is at least one page, hence not zero.
        let data = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).ok_or_else(too_large)?;
        Ok(Memory { data, bytes, home: Home::Heap(layout) })
    }

    /// The memory of a lease on a segment.
    #[cfg(target_os = "linux")]
    pub fn from_segment(data: NonNull<u8>, bytes: usize, lease: super::shm::Lease) -> Self {
        Memory { data, bytes, home: Home::Segment { _lease: lease } }
    }

    /// Where it begins.
    pub fn data(&self) -> NonNull<u8> {
        self.data
    }

    /// Bytes of the pages that peers can be kept from one by one.
    pub fn page(&self) -> usize {
        match self.home {
            Home::Heap(_) => PAGE,
            #[cfg(target_os = "linux")]
            Home::Segment { .. } => super::shm::segment::page_size(),
        }
    }

    /// How long it is.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Home::Heap(layout) = self.home {
            // SAFETY: allocated in `from_heap` with this very layout, and not freed before.
            unsafe { std::alloc::dealloc(self.data.as_ptr(), layout) };
        }
    }
}
