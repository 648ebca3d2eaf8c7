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
use super::super::loaded::{Loaded, Target};
use super::DeviceCommunicator;
use super::close::{outlive, unmap};
use super::exchange::{agree, exchange};
use super::join::Members;
use super::operations;
use crate::driver::DeviceBuffer;
use crate::error::{Error, Result};
use crate::schedule::select::{self, Request};
use crate::schedule::{Access, Collective, Entry, Layout};

/// Programs that are kept before all are dropped.
const KEPT: usize = 512;

/// Memory that programs share.
pub(super) struct Shared {
    /// By rank; all of one length.
    pub all: Vec<DeviceBuffer<u8>>,
    /// Where that is the host's: as much of the device's own, through which copies go from it to it. A driver would
    /// have the caller wait for those.
    pub hop: Option<DeviceBuffer<u8>>,
    /// Which of them other processes map, if they do.
    lent: Option<usize>,
}

/// Programs of this rank, and their shared memory.
pub(super) struct Schedules {
    memory: RefCell<Shared>,
    loaded: RefCell<HashMap<(Descriptor, Access), Arc<Loaded>>>,
}

impl Schedules {
    /// Collective, on the host.
    pub fn new(control: &Communicator, members: &Members) -> Result<Self> {
        let memory = Shared::new(control, members, DeviceCommunicator::SCHEDULE_MEMORY)?;
        Ok(Schedules { memory: RefCell::new(memory), loaded: RefCell::default() })
    }

    /// The shared memory.
    pub fn memory(&self) -> Ref<'_, Shared> {
        self.memory.borrow()
    }

    /// Each rank's part of it, by rank.
    pub fn into_memory(self) -> Vec<DeviceBuffer<u8>> {
        std::mem::take(&mut self.memory.into_inner().all)
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
        let lent = members.lends().then_some(members.rank);
        Ok(Shared { all: exchange(control, &members.device, &own)?, hop, lent })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(own) = self.lent {
            outlive(std::mem::take(&mut self.all).into_iter().nth(own));
        }
    }
}

impl DeviceCommunicator {
    /// How much memory schedules share on each rank, in bytes; [`SCHEDULE_MEMORY`](Self::SCHEDULE_MEMORY) at first.
    /// One's own must fit: what it declares, and with peers' buffers that they do not see, the longest input and
    /// output. Collective, on the host, and alike on all ranks. Waits until all ranks' calls have been done, and as
    /// [`close`](Self::close) does; what graphs captured goes on with the memory that there was.
    ///
    /// # Errors
    ///
    /// On all ranks: `System` where a rank's memory is exhausted; and the failures of every collective.
    pub fn set_schedule_memory(&self, bytes: usize) -> Result<()> {
        self.members.failure(&self.faults)?;
        let mut all = vec![0_u64; self.world_size()];
        self.control().all_gather(&[bytes as u64], &mut all)?;
        let differs = all.iter().position(|other| *other != all[0]);
        if let Some(rank) = differs {
            return Err(Error::invalid(format!(
                "set_schedule_memory: rank 0 asks for {} bytes and rank {rank} for {}; ask for the same on all ranks",
                all[0], all[rank]
            )));
        }
        let memory = Shared::new(&self.control(), &self.members, bytes)?;
        agree(&self.control(), "finishing calls before schedules have other memory", self.drain())?;
        let mut before = self.schedules.memory.replace(memory);
        self.schedules.loaded.borrow_mut().clear();
        self.members.let_go();
        let own = std::mem::take(&mut before.all).into_iter().nth(self.rank());
        drop(before);
        unmap(&self.control(), self.device(), own.into_iter().collect(), self.members.lends())
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
        let checked = make().and_then(|loaded| operations::check(&loaded, self.world_size()).map(|()| loaded));
        let loaded = Arc::new(checked.map_err(|error| kind.0.refused(self.rank(), error))?);
        let mut kept = self.schedules.loaded.borrow_mut();
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(kind, loaded.clone());
        Ok(loaded)
    }

    /// How ranks take part in a call by a built-in schedule. A broadcast is in place.
    pub(super) fn layout(&self, descriptor: &Descriptor) -> Layout {
        let in_place = descriptor.in_place || descriptor.collective == Collective::Broadcast;
        Layout::uniform(self.world_size(), descriptor.count).with_root(descriptor.root).in_place(in_place)
    }

    /// The program of a call by a built-in schedule, with or without buffers that peers see.
    pub(super) fn load_built_in(
        &self,
        descriptor: &Descriptor,
        layout: &Layout,
        access: Access,
    ) -> Result<Arc<Loaded>> {
        let Descriptor { collective, op, algorithm, .. } = *descriptor;
        self.load((*descriptor, access), || {
            let shared = self.schedules.bytes();
            let element = descriptor.data_type.size();
            let schedule = select::choose(&Request {
                collective,
                layout,
                element,
                accumulator: op.map_or(element, |op| descriptor.data_type.accumulator(op).size()),
                access,
                always: 0,
                inline: shared / 2,
                region: shared,
                algorithm,
            })?;
            let program = schedule.program(self.rank(), layout);
            // The entry has been passed when it begins, also of one that could carry it.
            let parts = (schedule.access(), Entry::Barrier);
            let (resources, target) = (schedule.resources(layout), self.target(descriptor, layout));
            Loaded::new(schedule.name(), parts, resources, program, &target, shared)
        })
    }

    pub(super) fn target<'a>(&self, descriptor: &Descriptor, layout: &'a Layout) -> Target<'a> {
        let Descriptor { collective, data_type, op, .. } = *descriptor;
        Target { rank: self.rank(), collective, layout, data_type, op, operator: None }
    }
}
