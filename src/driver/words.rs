// SPDX-License-Identifier: MPL-2.0
//! Words that the host and kernels both see while kernels run: abort words, counters, records of faults.
#![allow(unsafe_code)]

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use super::allocation::Allocation;
use super::backend::MemoryKind;
use super::device::Core;
use crate::error::Result;

/// Words of 32 bits in the host's memory, where the device addresses them directly. Zero at first. Clones are the same
/// words.
///
/// Host and kernels see each other's stores at once, so nothing orders uses of them: what a word means, and which
/// memory ordering that takes, is agreed between the kernel and whoever reads the word.
#[derive(Clone)]
pub struct Words {
    pub(super) allocation: Arc<Allocation>,
}

impl Words {
    pub(super) fn new(core: &Arc<Core>, count: usize) -> Result<Words> {
        let bytes = count.checked_mul(4).ok_or_else(|| core.too_long(count, 4))?;
        Ok(Words { allocation: Allocation::new(core, bytes, MemoryKind::Pinned)? })
    }

    /// The words, as the host sees them.
    pub fn get(&self) -> &[AtomicU32] {
        let count = self.allocation.bytes / 4;
        // SAFETY: Pinned memory is mapped at its address while the allocation lives, which `self` holds; it is zeroed,
        // aligned and that long. Both sides access it as atomic words alone: the host by this view, kernels because
        // that is what these words are for.
        unsafe { std::slice::from_raw_parts(self.allocation.address as *const AtomicU32, count) }
    }

    /// Where kernels find the first word.
    pub fn address(&self) -> u64 {
        self.allocation.address
    }
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.get()).finish()
    }
}
