// SPDX-License-Identifier: MPL-2.0
//! One rank's memory that its peers map: a sealed memfd, as large as the rank could ever need and sparse.
//!
//! Each rank creates one segment, passes its descriptor on, and maps those of the others once. The size never changes,
//! so an address never changes and a mapping is never stale; pages exist only where [`Segment::commit`] made them.
//!
//! What is promised, and by which means:
//!
//! - *A peer cannot pull pages away under us.* The memfd is sealed against shrinking before it is passed on, and
//!   [`Segment::open`] checks seals and size: a read beyond the end of a file would be a SIGBUS.
//! - *Exhausted memory is an error value*, from [`Segment::commit`], and not a fault at the first touch.
//! - *Children get nothing.* Mappings are not inherited by `fork` (MADV_DONTFORK), descriptors not by `exec`.
//! - *Core dumps stay small*: the mapping is left out of them (MADV_DONTDUMP).
//! - *Nothing is left behind.* A memfd has no name; its memory goes with the last process that has it.
#![allow(unsafe_code)]

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, MremapFlags, ProtFlags};
use rustix::process::{Resource, getrlimit};

use super::memory::{self, readable};
use crate::error::{Error, Result};

/// What all segments of one world may take together of a process's address space: a quarter of the smallest that
/// Linux gives on a 64-bit machine.
const ADDRESS_SPACE: u64 = 32 << 40;

/// How much one call to the kernel allocates. It undoes the whole call when a signal interrupts it: small enough that a
/// profiler's timer lets it come to an end, and a multiple of every page size that is used.
const COMMIT_STEP: usize = 4 << 20;

/// A mapped segment: this rank's own, or a peer's. It hands out addresses, never references: who may touch which bytes,
/// and when, is for the protocols that use it to say.
#[derive(Debug)]
pub struct Segment {
    base: NonNull<u8>,
    len: usize,
    file: OwnedFd,
}

// SAFETY: A segment owns its mapping and its descriptor, neither of which belongs to a thread. It never reads or writes
// the mapped bytes through a shared reference, it only says where they are.
unsafe impl Send for Segment {}
// SAFETY: As above; the methods that take `&self` make system calls, which the kernel orders among threads.
unsafe impl Sync for Segment {}

impl Segment {
    /// The size of each segment of a world: the machine's memory rounded up to a power of two, so that no allocation
    /// that could succeed lacks room, or less if `world_size` of them would not fit the address space.
    pub fn capacity(world_size: usize) -> usize {
        let room = ADDRESS_SPACE / (world_size.max(1) as u64);
        let room = 1 << room.max(1).ilog2();
        memory::physical().max(1).next_power_of_two().clamp(1 << 20, room.max(1 << 20)) as usize
    }

    /// Makes and maps a segment of `capacity` bytes (a multiple of the page size) with no memory in it yet. `name` is
    /// for people who read `/proc/PID/maps`.
    pub fn create(name: &str, capacity: usize) -> Result<Segment> {
        if capacity == 0 || !capacity.is_multiple_of(page_size()) {
            let page = page_size();
            return Err(Error::invalid(format!("a segment of {capacity} bytes is no multiple of the page of {page}")));
        }
        // Growing a file beyond this limit is not refused but punished with a deadly signal.
        if let Some(limit) = getrlimit(Resource::Fsize).current.filter(|&limit| limit < capacity as u64) {
            return Err(Error::system(
                format!("making a shared segment of {}", readable(capacity as u64)),
                format!("the largest file allowed (ulimit -f) is {}; set it to unlimited", readable(limit)),
            ));
        }
        let failed = |errno: Errno| Error::system("making a shared segment", errno);
        // Some systems refuse memfds that could be executed; kernels before 6.3 do not know the flag that says so.
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
            Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags),
            other => other,
        };
        let file = file.map_err(failed)?;
        rustix::fs::ftruncate(&file, capacity as u64).map_err(failed)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL).map_err(failed)?;
        Segment::map(file, capacity)
    }

    /// Maps the segment behind a descriptor that a peer sent, which must be `expected` bytes long and sealed so that it
    /// stays so.
    pub fn open(file: OwnedFd, expected: usize) -> Result<Segment> {
        let refused = |answer: String| Error::system("mapping a peer's shared segment", answer);
        let seals = rustix::fs::fcntl_get_seals(&file)
            .map_err(|errno| refused(format!("the descriptor it sent is not a memfd ({errno})")))?;
        if !seals.contains(SealFlags::SHRINK | SealFlags::GROW) {
            return Err(refused("it is not sealed, so the peer could take its memory away".into()));
        }
        let size = rustix::fs::fstat(&file).map_err(|errno| refused(errno.to_string()))?.st_size as u64;
        if size != expected as u64 {
            return Err(refused(format!("it has {size} bytes instead of {expected}")));
        }
        Segment::map(file, expected)
    }

    fn map(file: OwnedFd, len: usize) -> Result<Segment> {
        let attempt = || format!("mapping {} of address space for a shared segment", readable(len as u64));
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: A new mapping at an address of the kernel's choice overlaps nothing that exists.
        let base = unsafe {
            rustix::mm::mmap(ptr::null_mut(), len, protection, MapFlags::SHARED | MapFlags::NORESERVE, &file, 0)
        }
        .map_err(|errno| match getrlimit(Resource::As).current.filter(|_| errno == Errno::NOMEM) {
            None => Error::system(attempt(), errno),
            Some(limit) => Error::system(
                attempt(),
                format!("this process is limited to {} (ulimit -v); set it to unlimited", readable(limit)),
            ),
        })?;
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(|| Error::system(attempt(), "the address is zero"))?;
        // From here on the mapping is unmapped by `drop`, whatever fails.
        let segment = Segment { base, len, file };
        for advice in [Advice::LinuxDontFork, Advice::LinuxDontDump] {
            // SAFETY: The range is the mapping made above; both advices leave its bytes as they are.
            unsafe { rustix::mm::madvise(base.as_ptr().cast(), len, advice) }
                .map_err(|errno| Error::system("keeping a shared segment out of forks and core dumps", errno))?;
        }
        Ok(segment)
    }

    /// Where the segment begins in this process. Valid for reads and writes of [`Segment::len`] bytes while `self`
    /// lives; pages that were never committed are made at their first touch, or are a fault if memory is exhausted.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes of address space, a multiple of the page size.
    #[expect(clippy::len_without_is_empty, reason = "a segment is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Makes sure that the pages of `range` exist; new ones are zero. What does not fit the machine's memory is an
    /// error, after which the range is without memory; so it should be one that nobody uses yet.
    pub fn commit(&self, range: Range<usize>) -> Result<()> {
        self.check(&range)?;
        let bytes = range.len() as u64;
        let attempt = || format!("allocating {} of shared memory", readable(bytes));
        if let Some(available) = memory::available().filter(|&available| available < bytes) {
            return Err(Error::system(attempt(), format!("only {} are available", readable(available))));
        }
        for start in range.clone().step_by(COMMIT_STEP) {
            let step = COMMIT_STEP.min(range.end - start);
            // KEEP_SIZE, since a sealed file refuses any call that might make it longer.
            let allocated = rustix::io::retry_on_intr(|| {
                rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, start as u64, step as u64)
            });
            if let Err(errno) = allocated {
                self.release(range.start..start)?;
                return Err(Error::system(attempt(), errno));
            }
        }
        Ok(())
    }

    /// Gives the pages of `range` back to the system. Whoever touches them afterwards, on any rank, finds new zero
    /// pages.
    pub fn release(&self, range: Range<usize>) -> Result<()> {
        self.check(&range)?;
        if range.is_empty() {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::io::retry_on_intr(|| rustix::fs::fallocate(&self.file, flags, range.start as u64, range.len() as u64))
            .map_err(|errno| Error::system("giving shared memory back", errno))
    }

    /// Replaces this rank's own mapping of `range` by a private copy at the same address.
    ///
    /// A failing call uses this before it returns its buffers: a peer that was stopped in the middle of a step may wake
    /// at any later time and finish its writes. They then go to pages of the segment that nobody here looks at any
    /// more, while the buffer keeps its address and its bytes (those that the peer had written until now among them, or
    /// not: after an error they are unspecified). Since such a peer may write for as long as it lives, the range of the
    /// segment is never used again: see `Arena::retire`.
    ///
    /// The copy is filled apart and then moved over the range in one step (mremap), so that no other thread ever finds
    /// the address unmapped. The kernel fills it from the file, by `pread`: this process does not race with the peer's
    /// writes in the sense of the memory model, and pages that were never touched are not made.
    ///
    /// On an error the range is still shared, and the peer could still write to it: the caller must keep the buffer
    /// from its user until the peer is dead.
    ///
    /// # Safety
    ///
    /// This is the rank's own segment, and the caller holds `range` exclusively: no thread of this process writes to it
    /// during the call, and nothing in this process relies on sharing it with a peer afterwards.
    pub unsafe fn privatise(&self, range: Range<usize>) -> Result<()> {
        // SAFETY: as the caller promises.
        unsafe { self.exchange(range.clone(), |copy| self.read(copy, range)) }
    }

    /// The same by pages of zeros, which take no memory until they are written to.
    ///
    /// # Safety
    ///
    /// As [`Segment::privatise`].
    pub unsafe fn replace(&self, range: Range<usize>) -> Result<()> {
        // SAFETY: as the caller promises.
        unsafe { self.exchange(range, |_| Ok(())) }
    }

    /// Replaces the mapping of `range` by private pages, which `fill` gets when they are zero and nobody else's.
    ///
    /// # Safety
    ///
    /// As [`Segment::privatise`].
    unsafe fn exchange(&self, range: Range<usize>, fill: impl FnOnce(*mut u8) -> rustix::io::Result<()>) -> Result<()> {
        self.check(&range)?;
        let len = range.len();
        if len == 0 {
            return Ok(());
        }
        let attempt = || format!("making {} of shared memory private", readable(len as u64));
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // Without a reserve: a buffer may be larger than what memory is left.
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: A new mapping at an address of the kernel's choice overlaps nothing that exists.
        let pages = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), len, protection, flags) }
            .map_err(|errno| Error::system(attempt(), errno))?;
        let moved = fill(pages.cast()).and_then(|()| {
            // SAFETY: `pages` is the mapping of `len` bytes made above and nothing refers to it. The target is `len`
            // bytes within this segment's mapping by `check`, and the caller holds them exclusively: what could be read
            // there before can be read there after. The kernel looks at its limits before it unmaps anything, and other
            // threads find the old page or the new one, since the move is one change of the address space.
            unsafe {
                let target = self.base.as_ptr().add(range.start).cast();
                rustix::mm::mremap_fixed(pages, len, len, MremapFlags::MAYMOVE, target)
            }
        });
        moved.map(drop).map_err(|errno| {
            // SAFETY: The move failed, so the pages are still where they were made, and nothing refers to them.
            let _ = unsafe { rustix::mm::munmap(pages, len) };
            Error::system(attempt(), errno)
        })
    }

    /// Has the kernel copy `range` of the file to `to`, which holds that many zero bytes that nothing else refers to.
    fn read(&self, to: *mut u8, range: Range<usize>) -> rustix::io::Result<()> {
        // SAFETY: By the contract above: mapped, initialised, and referred to by nothing else.
        let to = unsafe { std::slice::from_raw_parts_mut(to, range.len()) };
        let mut done = 0;
        while done < to.len() {
            match rustix::io::pread(&self.file, &mut to[done..], (range.start + done) as u64) {
                Ok(0) => return Err(Errno::IO), // the file is sealed: it cannot end before the segment does
                Ok(count) => done += count,
                Err(Errno::INTR) => (),
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Refuses what is not whole pages within the segment.
    fn check(&self, range: &Range<usize>) -> Result<()> {
        let page = page_size();
        let whole = range.start.is_multiple_of(page) && range.end.is_multiple_of(page);
        if range.start <= range.end && range.end <= self.len && whole {
            return Ok(());
        }
        Err(Error::invalid(format!("bytes {range:?} are no whole pages of {page} in a segment of {}", self.len)))
    }
}

impl AsFd for Segment {
    /// The descriptor to pass on to the peers.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: The whole range was mapped by `map`, and parts of it since replaced in place by `exchange`: it is
        // this segment's alone. Addresses from `base` are valid only while the segment lives.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// The unit of all ranges here.
pub fn page_size() -> usize {
    rustix::param::page_size()
}

#[cfg(test)]
mod tests;
