// SPDX-License-Identifier: MPL-2.0
//! Device memory: from a pool where nobody else maps it, else an allocation of its own.
//!
//! What peers and other processes map must not come from a pool: a pool's memory is neither exported nor mapped by peers.
//! Nor may it share pages with other allocations, as the driver lets short ones do: a handle is of the whole page, so
//! whoever opened it would see what is not its, and could not open a second allocation of the same page.
//!
//! To free an allocation, or to unmap what was imported, the driver waits for all that runs on the device; what runs
//! may wait for a peer, and the peer for the thread that frees. So such memory is *retired*, and given back when
//! nothing runs: at the next call that looks and finds all streams idle (`idle`). Meanwhile nothing can be enqueued
//! (`running`). Memory that is needed before is given back at once, whatever that waits for. Whenever memory is given
//! back, the pool gives its free memory back too.
#![allow(unsafe_code)]

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use super::super::backend::{Address, Failure, Handle, MemoryKind, StreamId};
use super::calls::Object;
use super::context::{Context, Entered};
use super::fault::{Fault, number};
use super::hosted::Hosted;
use super::idle::Streams;
use super::pinned::Pinned;
use super::pool::Pool;
use super::{ipc, stream};

/// The driver's page: no two allocations of whole pages share one.
const PAGE: usize = 2 << 20;

pub(super) struct Memory {
    pool: Option<Pool>,
    /// What memory is zeroed on. Never captures, and is urgent, so that whoever allocates waits for no call of a peer's.
    stream: StreamId,
    pinned: Pinned,
    hosted: Hosted,
    retired: Mutex<Retired>,
    pub streams: Streams,
    /// Held while imports are unmapped that are no longer among what is retired.
    unmapping: Mutex<()>,
    /// Held, shared, while something is enqueued; alone, while retired memory is given back.
    running: RwLock<()>,
}

#[derive(Default)]
struct Retired {
    allocations: Vec<Address>,
    imports: Vec<Address>,
    hosted: Vec<Address>,
}

impl Memory {
    pub fn new(context: &Context) -> Result<Memory, Failure> {
        let driver = context.enter()?;
        let stream = stream::create(&driver, true)?;
        let pool = Pool::new(context, &driver, stream)?;
        let (retired, running) = (Mutex::default(), RwLock::default());
        let (pinned, hosted, streams, unmapping) = Default::default();
        let memory = Memory { pool, stream, pinned, hosted, retired, streams, unmapping, running };
        // The first slab is pinned while nothing runs; it may be as short as this.
        memory.pinned.free(memory.pinned.allocate(&driver, 1 << 20)?);
        Ok(memory)
    }

    /// To be held while something is enqueued.
    pub fn enqueuing(&self) -> RwLockReadGuard<'_, ()> {
        self.running.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn allocate(&self, driver: &Entered, bytes: usize, kind: MemoryKind) -> Result<Address, Failure> {
        if kind == MemoryKind::Pinned {
            return self.pinned.allocate(driver, bytes);
        }
        self.give_back_if_idle(driver);
        if kind == MemoryKind::Hosted {
            return self.hosted.allocate(driver, bytes);
        }
        let bytes = match kind {
            MemoryKind::Mappable => bytes.checked_next_multiple_of(PAGE).unwrap_or(bytes),
            _ => bytes,
        };
        let allocated = self.allocate_of_device(driver, bytes, kind);
        let address = allocated.or_else(|_| {
            self.give_back(driver);
            self.allocate_of_device(driver, bytes, kind)
        })?;
        // SAFETY: the memory is new and has that many bytes; the stream is of this context.
        let zeroed = unsafe {
            driver
                .fill_8(address, 0, bytes, raw(self.stream))
                .and_then(|()| driver.synchronize_stream(raw(self.stream)))
        };
        if let Err(fault) = zeroed {
            // SAFETY: nobody has been told of the memory.
            let _ = unsafe { self.free(driver, address, kind) };
            return Err(fault.into());
        }
        Ok(address)
    }

    /// Memory of the device that another process has exported. The process may have freed what it had at this address
    /// before, which is still mapped here if it is retired: a driver refuses to map two of its allocations in one place.
    pub fn import(&self, driver: &Entered, handle: &Handle, bytes: u64) -> Result<(Address, usize), Failure> {
        self.give_back_if_idle(driver);
        match ipc::import(driver, handle, bytes) {
            Err(failure) if failure.code == number::ALREADY_MAPPED as i32 => {
                self.close_imports(driver);
                ipc::import(driver, handle, bytes)
            }
            answer => answer,
        }
    }

    /// Unmaps what is retired, whatever that waits for; what another thread unmaps has been too when this returns.
    pub fn close_imports(&self, driver: &Entered) {
        let alone = self.unmapping.lock().unwrap_or_else(PoisonError::into_inner);
        let imports = std::mem::take(&mut self.retired().imports);
        release(driver, Vec::new(), imports);
        drop(alone);
    }

    /// Memory of the host that another process has exported.
    pub fn import_hosted(&self, driver: &Entered, handle: &Handle) -> Result<(Address, usize), Failure> {
        self.hosted.import(driver, handle)
    }

    /// The name of what begins at this address, if that is memory of the host.
    pub fn export_hosted(&self, address: Address) -> Option<Handle> {
        self.hosted.export(address)
    }

    fn allocate_of_device(&self, driver: &Entered, bytes: usize, kind: MemoryKind) -> Result<Address, Fault> {
        if let Some(pool) = self.pool_for(kind) {
            return pool.allocate(driver, bytes);
        }
        let mut address = 0;
        // SAFETY: the pointer is to a variable of ours.
        unsafe { driver.allocate(&mut address, bytes, kind == MemoryKind::Mappable) }?;
        Ok(address)
    }

    fn pool_for(&self, kind: MemoryKind) -> Option<&Pool> {
        self.pool.as_ref().filter(|_| kind == MemoryKind::Local)
    }

    /// # Safety
    /// The memory is of this kind and this device, and nothing that is still to be done uses it.
    pub unsafe fn free(&self, driver: &Entered, address: Address, kind: MemoryKind) -> Result<(), Failure> {
        match (kind, self.pool_for(kind)) {
            // SAFETY: the caller's promise; memory of this kind is the pool's.
            (_, Some(pool)) => unsafe { pool.free(driver, address) }?,
            (MemoryKind::Pinned, _) => self.pinned.free(address),
            (MemoryKind::Imported, _) => self.retired().imports.push(address),
            (MemoryKind::Hosted, _) => self.retired().hosted.push(address),
            (MemoryKind::Local | MemoryKind::Mappable, _) => self.retired().allocations.push(address),
        }
        self.give_back_if_idle(driver);
        Ok(())
    }

    fn retired(&self) -> MutexGuard<'_, Retired> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives back what is retired, if nothing runs.
    pub fn give_back_if_idle(&self, driver: &Entered) {
        let Ok(alone) = self.running.try_write() else { return };
        let mut retired = self.retired();
        let Retired { allocations, imports, hosted } = &mut *retired;
        self.streams.sweep(driver);
        let nothing = allocations.is_empty() && imports.is_empty() && hosted.is_empty();
        if !nothing && self.streams.are_idle(driver) {
            release(driver, std::mem::take(allocations), std::mem::take(imports));
            self.trim(driver);
            hosted.drain(..).for_each(|address| self.hosted.release(driver, address));
        }
        drop(retired);
        drop(alone);
    }

    /// Gives back what is retired, whatever that waits for.
    fn give_back(&self, driver: &Entered) {
        self.close_imports(driver);
        let allocations = std::mem::take(&mut self.retired().allocations);
        release(driver, allocations, Vec::new());
        self.trim(driver);
    }

    fn trim(&self, driver: &Entered) {
        self.pool.iter().for_each(|pool| pool.trim(driver));
    }
}

/// Frees and unmaps. What the driver refuses is lost; there is nobody to tell.
fn release(driver: &Entered, allocations: Vec<Address>, imports: Vec<Address>) {
    // SAFETY: whoever freed this promised that nothing uses it any more, and each is of this kind and context.
    unsafe {
        allocations.into_iter().for_each(|address| _ = driver.free(address));
        imports.into_iter().for_each(|address| _ = driver.close_exported(address));
    }
}

/// A stream as the driver knows it.
pub(super) fn raw(stream: StreamId) -> Object {
    std::ptr::with_exposed_provenance_mut(stream.0 as usize)
}
