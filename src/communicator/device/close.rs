// SPDX-License-Identifier: MPL-2.0
//! The orderly end: of a communicator, and of a buffer's registration.
//!
//! Peers' memory is given up when no kernel can use it any more: when all ranks have agreed that their calls have been
//! done. A call that has been done may still be noted by its stream, which then holds what the call used; so streams
//! that had calls are told to let go. What is of other processes is unmapped before all go on, since its owner may free
//! it then, and what a driver does with freed memory that others map is undefined.

use std::sync::PoisonError;

use super::super::Communicator;
use super::exchange::agree;
use super::join::Members;
use super::{DeviceCommunicator, locked};
use crate::driver::{Device, DeviceBuffer, Platform, Stream, WeakStream};
use crate::element::Element;
use crate::error::{Error, Result};

impl DeviceCommunicator {
    /// Ends the communicator: waits until all ranks' calls have been done, and gives up what peers have allocated.
    /// Collective, on the host. Afterwards no rank maps another's memory, but for graphs that captured calls: they keep
    /// what they use, so drop them before. Buffers of [`allocate`](Self::allocate) stay their owner's.
    ///
    /// To unmap another process's memory, a driver waits for all that runs on the device: also for calls on other
    /// communicators, whose other ranks must come to them without waiting for this rank to close.
    ///
    /// # Errors
    ///
    /// On all ranks the first failure of a call, or of a rank that did not come to close; the communicator has ended
    /// then too, as if it had been dropped.
    pub fn close(self) -> Result<()> {
        agree(&self.control(), "finishing calls before closing", self.drain())?;
        let DeviceCommunicator { members, faults, explaining, history, schedules, control, watchdog, .. } = self;
        watchdog.stop();
        drop((explaining, faults, history));
        let regions = std::mem::take(&mut *members.regions.lock().unwrap_or_else(PoisonError::into_inner));
        let schedules = schedules.into_memory();
        let shared = regions.iter().chain([&schedules]);
        let own: Vec<DeviceBuffer<u8>> = shared.filter_map(|buffers| buffers.get(members.rank)).cloned().collect();
        let (device, lends) = (members.device.clone(), members.lends());
        members.let_go();
        drop((regions, schedules, members));
        unmap(&locked(&control), &device, own, lends)
    }

    /// Undoes [`register`](Self::register), also of what [`allocate`](Self::allocate) registered: peers give the buffer
    /// up, and calls stage it from now on. Collective, on the host; each rank passes the buffer that it passed to that
    /// same `register`. Waits until all ranks' calls have been done, and as [`close`](Self::close) does.
    ///
    /// Graphs that captured calls on the buffer must not be launched any more: such a call fails, on all ranks, and
    /// with it the communicator. They keep the memory, too, so drop them.
    ///
    /// # Errors
    ///
    /// On all ranks: `InvalidArgument` where a rank's buffer is not registered, is a part of one that is, or was not
    /// registered together with the others'; and the failures of every collective.
    pub fn deregister<T: Element>(&self, buffer: &DeviceBuffer<T>) -> Result<()> {
        const WHAT: &str = "deregistering device memory";
        let (members, control) = (&self.members, &*self.control());
        let found = members.failure(&self.faults).and_then(|()| {
            members.region_of(buffer.address(), buffer.as_bytes().len()).ok_or_else(|| {
                Error::invalid(format!(
                    "rank {} cannot deregister {buffer:?}: it is not registered; pass the very buffer that was",
                    members.rank
                ))
            })
        });
        let region = agree(control, WHAT, found)?;
        let mut regions = vec![0; members.world];
        control.all_gather(&[region as u64], &mut regions)?;
        if let Some(rank) = regions.iter().position(|other| *other != regions[0]) {
            return Err(Error::invalid(format!(
                "ranks 0 and {rank} deregister buffers that were not registered together; each must pass its own of \
                 one `register`"
            )));
        }
        agree(control, WHAT, self.drain())?;
        let gone = members.remove_region(region);
        members.let_go();
        members.device.close_imports();
        agree(control, WHAT, gone).inspect_err(|_| {
            if members.lends() {
                outlive([buffer.as_bytes()]);
            }
        })
    }

    /// Waits until all of this rank's calls have been done.
    pub(super) fn drain(&self) -> Result<()> {
        self.members.failure(&self.faults)?;
        // Each launch updates the state. On the host, since a stream that waited could keep a peer's.
        self.members.state.wait()?;
        self.members.failure(&self.faults)
    }

    /// Notes that a call is put on a stream.
    pub(super) fn remember(&self, stream: &Stream) {
        stream.watch(&self.faults);
        let mut streams = self.members.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if !streams.iter().any(|known| known.is(stream)) {
            streams.retain(|known| known.upgrade().is_some());
            streams.push(stream.downgrade());
        }
    }
}

impl Members {
    /// Whether other processes map memory of this rank's card. What a vendor's driver does where such memory is freed, it
    /// does not say.
    pub fn lends(&self) -> bool {
        let is_card = self.device.capabilities().platform != Platform::Simulated;
        is_card && !self.hosted && self.transport.kind() != "threads"
    }

    /// Has streams let go of what has been done.
    pub fn let_go(&self) {
        let known = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let streams: Vec<Stream> = known.iter().filter_map(WeakStream::upgrade).collect();
        drop(known);
        streams.iter().for_each(Stream::let_go);
        // Here a stream may be dropped for good.
        drop(streams);
        self.device.let_go();
    }

    /// Whether all of this rank's calls have been done, and no graph has one.
    pub fn is_idle(&self) -> bool {
        self.let_go();
        self.state.is_held_alone()
    }
}

/// Unmaps what this rank has given up of other processes' memory, and gives up its own when nobody else maps it any more.
pub(super) fn unmap(control: &Communicator, device: &Device, own: Vec<DeviceBuffer<u8>>, lends: bool) -> Result<()> {
    device.close_imports();
    let all_have = control.barrier();
    if all_have.is_err() && lends {
        outlive(own);
    }
    all_have
}

/// Keeps memory that other processes may still map, as long as this process lives.
pub(super) fn outlive(own: impl IntoIterator<Item = DeviceBuffer<u8>>) {
    own.into_iter().for_each(std::mem::forget);
}
