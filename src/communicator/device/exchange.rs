// SPDX-License-Identifier: MPL-2.0
//! How ranks come by each other's device memory: ranks of one process by a clone of the buffer, others by its name.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::super::Communicator;
use crate::driver::{Device, DeviceBuffer, IpcHandle};
use crate::error::{Error, Result};

/// Buffers on offer to ranks of this process, each by the number under which it is offered.
static OFFERED: Mutex<Option<HashMap<u64, DeviceBuffer<u8>>>> = Mutex::new(None);

/// An offer, taken back when it is dropped.
struct Offer(u64);

impl Offer {
    fn new(buffer: &DeviceBuffer<u8>) -> Self {
        static OFFERS: AtomicU64 = AtomicU64::new(0);
        // Relaxed: numbers only have to differ.
        let number = OFFERS.fetch_add(1, Ordering::Relaxed);
        let mut offered = OFFERED.lock().unwrap_or_else(PoisonError::into_inner);
        offered.get_or_insert_default().insert(number, buffer.clone());
        Offer(number)
    }

    fn take(number: u64) -> Option<DeviceBuffer<u8>> {
        OFFERED.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.get(&number).cloned()
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        let gone = OFFERED.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(|all| all.remove(&self.0));
        // With the lock given up: it may be the last handle.
        drop(gone);
    }
}

/// Whether all ranks have succeeded so far. Collective. A rank that failed gets its own error, the others one that
/// names it.
pub(super) fn agree<T>(comm: &Communicator, what: &str, own: Result<T>) -> Result<T> {
    let mut failed = vec![0_u8; comm.world_size()];
    comm.all_gather(&[u8::from(own.is_err())], &mut failed)?;
    let own = own?;
    match failed.iter().position(|failed| *failed != 0) {
        None => Ok(own),
        Some(rank) => Err(Error::unsupported(format!("{what}: rank {rank} could not; its own error says why"))),
    }
}

/// Every rank's buffer as this rank's device addresses it, by rank. Collective; `own` is mappable, or the host's.
pub(super) fn exchange(comm: &Communicator, device: &Device, own: &DeviceBuffer<u8>) -> Result<Vec<DeviceBuffer<u8>>> {
    let what = "mapping device memory of other ranks";
    let is_one_process = comm.transport_kind() == "threads";
    // Held until all have taken theirs, which the last agreement says.
    let mut offer = None;
    let mut name = [0; IpcHandle::BYTES];
    let named = match is_one_process {
        true => {
            let number = offer.insert(Offer::new(own)).0;
            name[..8].copy_from_slice(&number.to_le_bytes());
            Ok(())
        }
        false => own.export().map(|handle| name = handle.to_bytes()),
    };
    agree(comm, what, named)?;
    let mut names = vec![0; IpcHandle::BYTES * comm.world_size()];
    comm.all_gather(&name, &mut names)?;
    let (names, _) = names.as_chunks::<{ IpcHandle::BYTES }>();
    let map = |(rank, name): (usize, &[u8; IpcHandle::BYTES])| {
        if rank == comm.rank() {
            return Ok(own.clone());
        }
        if !is_one_process {
            return device.import(&IpcHandle::from_bytes(name));
        }
        let number = u64::from_le_bytes(std::array::from_fn(|byte| name[byte]));
        let theirs =
            Offer::take(number).ok_or_else(|| Error::system(what, format!("rank {rank} has taken it back")))?;
        if !theirs.is_hosted() {
            device.enable_peer(&theirs.device())?;
        }
        Ok(theirs)
    };
    agree(comm, what, names.iter().enumerate().map(map).collect())
}
