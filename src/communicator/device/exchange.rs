// SPDX-License-Identifier: MPL-2.0
//! How ranks come by each other's device memory: ranks of one process by a clone of the buffer, others by its name.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::super::Communicator;
use crate::driver::{Device, DeviceBuffer, IpcHandle};
use crate::error::{Cause, Error, Result};

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

/// Whether all ranks have succeeded so far. Collective. A rank that failed gets its own error, the others one of the same
/// variant that names it.
pub(super) fn agree<T>(comm: &Communicator, what: &str, own: Result<T>) -> Result<T> {
    let mut failed = vec![0_u32; comm.world_size()];
    comm.all_gather(&[own.as_ref().err().map_or(0, word_of)], &mut failed)?;
    let own = own?;
    match failed.iter().position(|failed| *failed != 0) {
        None => Ok(own),
        Some(rank) => {
            Err(error_of(failed[rank], format!("{what}: rank {rank} could not; its own error says why").into()))
        }
    }
}

/// A failure in a word that is not 0: the variant's number, and a bit for each rank that it names, above 8 others.
fn word_of(error: &Error) -> u32 {
    // Communicators on devices have 16 ranks at the most.
    let bits = |ranks: &[usize]| ranks.iter().filter(|rank| **rank < 16).fold(0, |bits, rank| bits | 1 << (16 + rank));
    match error {
        Error::InvalidArgument(_) => 1,
        Error::Mismatch(_) => 2,
        Error::RankLost { rank, cause: Cause::Left, .. } => 3 | bits(&[*rank]),
        Error::RankLost { rank, cause: Cause::Died, .. } => 4 | bits(&[*rank]),
        Error::Timeout { missing, .. } => 5 | bits(missing),
        Error::Aborted(_) => 6,
        Error::Unsupported(_) => 7,
        Error::System(_) => 8,
    }
}

/// The same failure, in these words.
fn error_of(word: u32, context: Arc<str>) -> Error {
    let mut named = (0..16).filter(|rank| word >> (16 + rank) & 1 == 1);
    let mut lost = |cause, context| Error::RankLost { rank: named.next().unwrap_or(0), cause, context };
    match word & 0xff {
        1 => Error::InvalidArgument(context),
        2 => Error::Mismatch(context),
        3 => lost(Cause::Left, context),
        4 => lost(Cause::Died, context),
        5 => Error::Timeout { missing: named.collect(), context },
        6 => Error::Aborted(context),
        7 => Error::Unsupported(context),
        _ => Error::System(context),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_come_as_what_they_were() {
        let why: Arc<str> = "why".into();
        let lost = |rank, cause| Error::RankLost { rank, cause, context: why.clone() };
        for error in [
            Error::InvalidArgument(why.clone()),
            Error::Mismatch(why.clone()),
            lost(0, Cause::Left),
            lost(15, Cause::Died),
            Error::Timeout { missing: vec![0, 3, 15], context: why.clone() },
            Error::Aborted(why.clone()),
            Error::Unsupported(why.clone()),
            Error::System(why.clone()),
        ] {
            assert_ne!(word_of(&error), 0);
            assert_eq!(error_of(word_of(&error), why.clone()), error);
        }
    }
}
