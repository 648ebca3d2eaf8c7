// SPDX-License-Identifier: MPL-2.0
//! Device memory, and who uses it.
//!
//! Each use of a range by an enqueued operation is noted with its mark. Two uses of overlapping ranges, at least one of
//! which writes, are in order if they are on one stream; otherwise the later one waits for the earlier one's mark. So
//! what safe functions enqueue never races, and disjoint parts of one allocation proceed on different streams.
//!
//! What a faulty stream has written is not to be taken for a result: whoever uses it on another stream gets the fault
//! there too. So a note stays after its operation if its stream has a fault, until all it is about is overwritten.
//!
//! An operation is noted while the locks of all its memory's notes are held, taken in the order of their addresses, so
//! that two threads cannot both overlook the other.
#![allow(unsafe_code)]

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::backend::{Address, MemoryKind};
use super::device::Core;
use super::faults::Watched;
use super::mark::{Kept, Mark};

/// Memory, freed with its last holder. Enqueued operations are holders.
pub(super) struct Allocation {
    pub core: Arc<Core>,
    pub address: Address,
    pub bytes: usize,
    pub kind: MemoryKind,
    pub notes: Arc<Notes>,
    /// Whoever gives the memory back, if it is not the allocation.
    pub owner: Option<Kept>,
}

impl Allocation {
    /// Zeroed memory; of no bytes, one byte.
    pub fn new(core: &Arc<Core>, bytes: usize, kind: MemoryKind) -> crate::error::Result<Arc<Allocation>> {
        core.sweep();
        let address = core.backend.allocate(bytes.max(1), kind).map_err(|failure| {
            core.failed(format_args!("allocating {bytes} bytes"), &failure, "free some memory, or ask for less")
        })?;
        Ok(Arc::new(Allocation { core: core.clone(), address, bytes, kind, notes: Arc::default(), owner: None }))
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        if self.owner.is_some() {
            return;
        }
        // A driver that refuses has lost the memory; there is nobody to tell.
        // SAFETY: the memory is this allocation's own, and operations that use it hold the allocation until done.
        let _ = unsafe { self.core.backend.free(self.address, self.kind) };
    }
}

/// How an operation uses memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Access {
    Reads,
    /// Writes all of it, whatever was there.
    Overwrites,
    /// Writes, and may read.
    Updates,
    /// Words that running kernels exchange: kept, and ordered with nothing.
    Shares,
}

/// One operation's use of a range of an allocation, in bytes.
#[derive(Clone)]
pub(super) struct Usage {
    pub allocation: Arc<Allocation>,
    pub range: Range<usize>,
    pub access: Access,
}

/// The uses of an allocation that still matter. Two mappings of the same imported memory have one.
#[derive(Default)]
pub(super) struct Notes(Mutex<Vec<Note>>);

struct Note {
    stream: u64,
    range: Range<usize>,
    access: Access,
    mark: Arc<Mark>,
    /// What may go wrong on its stream.
    watched: Arc<Watched>,
}

impl Notes {
    /// Whether all operations that were noted have been done.
    pub fn are_done(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().all(|note| note.mark.has_passed())
    }

    /// Waits until they have been; the first fault of a stream that wrote.
    pub fn wait(&self) -> crate::error::Result<()> {
        let notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: Vec<_> = notes.iter().map(|note| (note.mark.clone(), note.watched.clone(), note.writes())).collect();
        // Without the lock: others enqueue meanwhile.
        drop(notes);
        for (mark, watched, writes) in all {
            let waited = mark.wait();
            if writes {
                watched.look()?;
            }
            waited.map_err(|failure| mark.failed(&failure))?;
        }
        Ok(())
    }
}

/// The notes of all memory of one operation, locked.
pub(super) struct Locked<'a> {
    usages: &'a [Usage],
    /// Of each allocation once, by the address of its notes.
    notes: Vec<(*const Notes, MutexGuard<'a, Vec<Note>>)>,
}

impl<'a> Locked<'a> {
    pub fn new(usages: &'a [Usage]) -> Self {
        let ordered = usages.iter().filter(|usage| usage.access != Access::Shares);
        let mut notes: Vec<&Arc<Notes>> = ordered.map(|usage| &usage.allocation.notes).collect();
        notes.sort_by_key(|notes| Arc::as_ptr(notes));
        notes.dedup_by_key(|notes| Arc::as_ptr(notes));
        let lock = |notes: &'a Arc<Notes>| notes.0.lock().unwrap_or_else(PoisonError::into_inner);
        Locked { usages, notes: notes.into_iter().map(|notes| (Arc::as_ptr(notes), lock(notes))).collect() }
    }

    /// What an operation on `stream` comes after: the marks that it has to wait for, and what may have gone wrong with
    /// what it reads.
    pub fn before(&mut self, stream: u64) -> (Vec<Arc<Mark>>, Vec<Arc<Watched>>) {
        let (mut marks, mut faults) = (Vec::new(), Vec::new());
        for (address, notes) in &mut self.notes {
            notes.retain(|note| !note.mark.has_passed() || (note.writes() && note.watched.look().is_err()));
            for usage in self.usages.iter().filter(|usage| Arc::as_ptr(&usage.allocation.notes) == *address) {
                for note in notes.iter().filter(|note| note.stream != stream && note.conflicts(usage)) {
                    if !note.mark.has_passed() {
                        marks.push(note.mark.clone());
                    }
                    if note.writes() && usage.access != Access::Overwrites {
                        faults.push(note.watched.clone());
                    }
                }
            }
        }
        marks.dedup_by(|a, b| Arc::ptr_eq(a, b));
        faults.dedup_by(|a, b| Arc::ptr_eq(a, b));
        (marks, faults)
    }

    /// Notes the operation.
    pub fn note(mut self, stream: u64, watched: &Arc<Watched>, mark: &Arc<Mark>) {
        for (address, notes) in &mut self.notes {
            for usage in self.usages.iter().filter(|usage| Arc::as_ptr(&usage.allocation.notes) == *address) {
                if usage.access == Access::Shares {
                    continue;
                }
                let (range, access) = (usage.range.clone(), usage.access);
                let new = Note { stream, range, access, mark: mark.clone(), watched: watched.clone() };
                notes.retain(|old| !new.stands_for(old));
                notes.push(new);
            }
        }
    }
}

impl Note {
    fn writes(&self) -> bool {
        self.access != Access::Reads
    }

    fn conflicts(&self, usage: &Usage) -> bool {
        let (a, b) = (&self.range, &usage.range);
        usage.access != Access::Shares
            && a.start < b.end
            && b.start < a.end
            && (self.writes() || usage.access != Access::Reads)
    }

    /// Whether the older note says nothing any more. What writes all of its range has waited for it, so whoever waits
    /// for this one has waited for both. What reads stands for earlier reads of the same stream.
    fn stands_for(&self, old: &Note) -> bool {
        let covers = self.range.start <= old.range.start && self.range.end >= old.range.end;
        covers
            // Where this one has read what a faulty stream wrote, its own stream watches that fault.
            && (self.writes() || (self.stream == old.stream && !old.writes()))
    }
}
