// SPDX-License-Identifier: MPL-2.0
//! A rank's own segment with its book of free pages, and leases on parts of it that give themselves back.

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::arena::Arena;
use super::segment::{Segment, page_size};
use crate::error::{Error, Result};
use crate::transport::memory::Memory;

/// This rank's segment, to allocate from.
pub(crate) struct Own {
    segment: Segment,
    arena: Mutex<Arena>,
    /// Ranges that failed calls have taken out of sharing: peers still see the segment's pages there, this rank others.
    private: Mutex<Vec<Range<usize>>>,
    /// Whether `private` holds any: the usual answer, without the lock. Relaxed: a failing call returns to the thread
    /// that set it before that thread can pass such a buffer on.
    any_private: AtomicBool,
}

/// A part of the segment, given back when dropped.
pub(crate) struct Lease {
    own: Arc<Own>,
    range: Range<usize>,
}

impl Own {
    pub fn new(segment: Segment) -> Self {
        let arena = Arena::new(segment.len(), page_size());
        Own { segment, arena: Mutex::new(arena), private: Mutex::default(), any_private: AtomicBool::new(false) }
    }

    pub fn segment(&self) -> &Segment {
        &self.segment
    }

    fn arena(&self) -> MutexGuard<'_, Arena> {
        self.arena.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Zeroed pages that hold `bytes`, to be given back with [`Own::free`] or never.
    pub fn take(&self, bytes: usize) -> Result<Range<usize>> {
        self.take_with_room(bytes, 0)
    }

    /// The same, and after them `room` bytes of addresses, to be committed by parts when they are needed.
    pub fn take_with_room(&self, bytes: usize, room: usize) -> Result<Range<usize>> {
        let bytes = bytes.max(1).next_multiple_of(page_size());
        let range = self.arena().allocate(bytes.saturating_add(room)).ok_or_else(|| {
            Error::system(format_args!("allocating {bytes} bytes of shared memory"), "the segment has no room left")
        })?;
        let committed = self.segment.commit(range.start..range.start + bytes);
        committed.inspect_err(|_| self.arena().free(range.clone()))?;
        Ok(range)
    }

    /// Gives pages back: the memory to the system, the addresses to the arena unless a failed call made them private.
    pub fn free(&self, range: Range<usize>) {
        // If the system keeps the memory, later users of the range would find old bytes in it.
        let released = self.segment.release(range.clone()).is_ok();
        if released && !self.is_private(&range) {
            self.arena().free(range);
        } else {
            self.arena().retire(range);
        }
    }

    /// Zeroed memory that gives itself back.
    pub fn lease(self: &Arc<Self>, bytes: usize) -> Result<Memory> {
        let range = self.take(bytes)?;
        let data = self.address(range.start);
        Ok(Memory::from_segment(data, bytes, Lease { own: self.clone(), range }))
    }

    /// Where `offset` of the segment is.
    pub fn address(&self, offset: usize) -> NonNull<u8> {
        let base = self.segment.base();
        NonNull::new(base.as_ptr().wrapping_add(offset)).unwrap_or(base)
    }

    /// Where in the segment these bytes are, whether peers see them or not.
    pub fn place(&self, data: *const u8, bytes: usize) -> Option<Range<usize>> {
        let offset = (data as usize).checked_sub(self.segment.base().as_ptr() as usize)?;
        let end = offset.checked_add(bytes)?;
        (end <= self.segment.len()).then_some(offset..end)
    }

    /// The offset of memory that peers see as this rank does.
    pub fn offset(&self, data: *const u8, bytes: usize) -> Option<usize> {
        self.place(data, bytes).filter(|place| !self.is_private(place)).map(|place| place.start)
    }

    fn is_private(&self, range: &Range<usize>) -> bool {
        self.any_private.load(Ordering::Relaxed)
            && self.private().iter().any(|private| private.start < range.end && range.start < private.end)
    }

    /// The ranges that are private; no two overlap.
    pub fn private(&self) -> MutexGuard<'_, Vec<Range<usize>>> {
        self.private.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that `range` is private from now on, beside those in `private`.
    pub fn note_private(&self, private: &mut Vec<Range<usize>>, range: Range<usize>) {
        private.push(range);
        self.any_private.store(true, Ordering::Relaxed);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.own.free(self.range.clone());
    }
}
