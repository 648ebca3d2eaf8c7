// SPDX-License-Identifier: MPL-2.0
//! Programs that are kept, and the memory that they share.
//!
//! It is one for all programs, though each has a layout of its own: the entry is a barrier, behind which nothing of an
//! earlier call is still going on.

use std::cell::{Ref, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use super::super::Communicator;
use super::super::descriptor::Descriptor;
use super::super::loaded::Loaded;
use super::DeviceCommunicator;
use super::copies;
use super::exchange::{agree, exchange};
use super::join::Members;
use crate::driver::DeviceBuffer;
use crate::error::{Error, Result};
use crate::schedule::Access;

/// Bytes of shared memory that schedules have on each rank at first. Built-in ones make their segments as long as it
/// allows: each segment costs a few launches a step, and is what one rank moves while another moves the one before.
const SHARED: usize = 8 << 20;

/// Programs that are kept before all are dropped.
const KEPT: usize = 512;

/// Memory that programs share.
pub(super) struct Shared {
    /// By rank; all of one length.
    pub all: Vec<DeviceBuffer<u8>>,
    /// Where that is the host's: as much of the device's own, through which copies go from it to it. A driver would
    /// have the caller wait for those.
    pub hop: Option<DeviceBuffer<u8>>,
}

/// Programs of this rank, and their shared memory.
pub(super) struct Schedules {
    memory: RefCell<Shared>,
    loaded: RefCell<HashMap<(Descriptor, Access), Arc<Loaded>>>,
}

impl Schedules {
    /// Collective, on the host.
    pub fn new(control: &Communicator, members: &Members) -> Result<Self> {
        Ok(Schedules { memory: RefCell::new(Shared::new(control, members, SHARED)?), loaded: RefCell::default() })
    }

    /// The shared memory.
    pub fn memory(&self) -> Ref<'_, Shared> {
        self.memory.borrow()
    }

    /// Each rank's part of it, by rank.
    pub fn into_memory(self) -> Vec<DeviceBuffer<u8>> {
        self.memory.into_inner().all
    }

    /// Bytes of a rank's.
    pub fn bytes(&self) -> usize {
        self.memory.borrow().all[0].len()
    }
}

impl Shared {
    /// So many bytes of each rank, where all see them. Collective, on the host.
    fn new(control: &Communicator, members: &Members, bytes: usize) -> Result<Shared> {
        let allocate = || {
            let hop = members.hosted.then(|| members.device.allocate(bytes)).transpose()?;
            Ok((members.allocate_shared(bytes)?, hop))
        };
        let (own, hop) = agree(control, "allocating memory for schedules", allocate())?;
        Ok(Shared { all: exchange(control, &members.device, &own)?, hop })
    }
}

impl DeviceCommunicator {
    /// How much memory schedules share on each rank, in bytes; 8 MiB at first. Built-in schedules make their segments
    /// as long as it allows. One's own must fit: what it declares, and with peers' buffers that they do not see, the
    /// longest input and output. Collective, on the host, and alike on all ranks.
    ///
    /// # Errors
    ///
    /// On all ranks: `System` where a rank's memory is exhausted; and the failures of every collective.
    pub fn set_schedule_memory(&self, bytes: usize) -> Result<()> {
        self.members.failure(&self.faults)?;
        let mut all = vec![0_u64; self.world_size()];
        self.control.all_gather(&[bytes as u64], &mut all)?;
        let differs = all.iter().position(|other| *other != all[0]);
        if let Some(rank) = differs {
            return Err(Error::invalid(format!(
                "set_schedule_memory: rank 0 asks for {} bytes and rank {rank} for {}; ask for the same on all ranks",
                all[0], all[rank]
            )));
        }
        let memory = Shared::new(&self.control, &self.members, bytes)?;
        // What is enqueued or captured holds the memory that it uses.
        *self.schedules.memory.borrow_mut() = memory;
        self.schedules.loaded.borrow_mut().clear();
        Ok(())
    }

    /// The program of such a call, from those that are kept or made.
    pub(super) fn load(
        &self,
        kind: (Descriptor, Access),
        make: impl FnOnce() -> Result<Loaded>,
    ) -> Result<Arc<Loaded>> {
        if let Some(loaded) = self.schedules.loaded.borrow().get(&kind) {
            return Ok(loaded.clone());
        }
        let loaded = Arc::new(make()?);
        copies::check(&loaded, self.world_size())?;
        let mut kept = self.schedules.loaded.borrow_mut();
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(kind, loaded.clone());
        Ok(loaded)
    }
}
