// SPDX-License-Identifier: MPL-2.0
//! One launch of a kernel of collectives: its arguments, its shape, and what it uses.
#![allow(unsafe_code)]

use std::sync::PoisonError;

use bytemuck::Zeroable;

use super::DeviceCommunicator;
use super::call::Carried;
use crate::driver::{self, DeviceBuffer, Stream, Use};
use crate::error::Result;
use crate::kernel::{self, Kernel, Shape};

/// What a launch is of a call.
pub(super) struct Launch<'a> {
    kernel: Kernel,
    call: &'a Carried<'a>,
    from: &'a DeviceBuffer<u8>,
    to: &'a DeviceBuffer<u8>,
    /// As the kernel counts them.
    pub elements: usize,
    /// Bytes that this rank works through.
    pub work: usize,
    pub root: usize,
    /// Bytes from one part to the next, of kernels that move parts.
    pub stride: usize,
}

impl<'a> Launch<'a> {
    /// Of no elements, so far.
    pub fn new(kernel: Kernel, call: &'a Carried<'a>, from: &'a DeviceBuffer<u8>, to: &'a DeviceBuffer<u8>) -> Self {
        Launch { kernel, call, from, to, elements: 0, work: 0, root: 0, stride: 0 }
    }
}

impl DeviceCommunicator {
    /// What every kernel of the communicator's is told, with the number by which the launch is remembered.
    pub(super) fn common(&self, number: u64) -> kernel::Collective {
        let (members, layout) = (&self.members, &self.members.layout);
        kernel::Collective {
            regions: members.table.address(),
            state: members.state.address(),
            report: self.faults.words().address(),
            abort: members.abort.address(),
            patience: members.patience(),
            packets: layout.packets,
            lines: layout.lines,
            staging: layout.staging,
            half: layout.half,
            rank: members.rank as u32,
            world: members.world as u32,
            journal: self.history.journal().address(),
            number,
            ..Zeroable::zeroed()
        }
    }

    /// What the kernel of a launch is told.
    pub(super) fn arguments(&self, launch: &Launch<'_>, number: u64) -> kernel::Collective {
        let Launch { call, from, to, .. } = *launch;
        let descriptor = call.descriptor;
        let (operation, factor) = descriptor.op.map_or((0, 0), |op| kernel::operation(op, descriptor.data_type));
        let place = |buffer: &DeviceBuffer<u8>| self.members.place_of(buffer.address(), buffer.len());
        kernel::Collective {
            hash: call.hash,
            from: from.address(),
            to: to.address(),
            from_place: place(from).word(),
            to_place: place(to).word(),
            elements: launch.elements as u64,
            stride: launch.stride as u64,
            factor,
            operation,
            root: launch.root as u32,
            call: call.words,
            ..self.common(number)
        }
    }

    /// What is this rank's own of what [`common`](Self::common) tells, but for the state.
    pub(super) fn common_uses(&self) -> [Use; 4] {
        let members = &self.members;
        let [abort, faults] = [&members.abort, self.faults.words()].map(Use::words);
        let [table, journal] = [&members.table, self.history.journal()].map(Use::shares);
        [table, journal, abort, faults]
    }

    /// What every launch uses beside its call's buffers. The state is written by each, so launches on different streams
    /// are in order.
    pub(super) fn uses(&self) -> Vec<Use> {
        let members = &self.members;
        let mut uses = vec![Use::writes(&members.state)];
        uses.extend(self.common_uses());
        let regions = members.regions.lock().unwrap_or_else(PoisonError::into_inner);
        uses.extend(regions.iter().flatten().map(Use::shares));
        uses
    }

    /// Enqueues a launch.
    pub(super) fn launch(&self, launch: &Launch<'_>, stream: &Stream) -> Result<()> {
        let Launch { kernel, from, to, .. } = *launch;
        let (members, arguments) = (&self.members, self.arguments(launch, self.history.count()));
        #[cfg(annulus_corrupt)]
        let arguments = super::corrupt::corrupted(arguments);
        let mut uses = vec![Use::reads(from), Use::writes(to)];
        uses.extend(self.uses());
        let Shape { blocks, threads } = members.room.shape(kernel, launch.work);
        let shape = driver::Shape::new(blocks, threads).together();
        self.remember(stream);
        // SAFETY: The argument is that of every collective (`kernels/pad.h`), and its addresses are of this rank's
        // state, table, journal and words, as long as kernels take them to be, of the call's buffers, whose lengths
        // `collectives` has checked against the number of elements that all agree on by the hash, and, through the
        // table, of all ranks' arenas and registered buffers: `uses` names all of them. A place is of a region that all
        // ranks know, since registering is collective, and of as many bytes in it as the buffer has. Blocks of all
        // ranks are resident together (`room`), and have a shape that follows from what all ranks know. What several
        // ranks access at a time, they do by the protocol of `kernels/meet.h`: so `shares`, for what is not this call's
        // buffer.
        unsafe { stream.launch(&members.kernels[&kernel], shape, bytemuck::bytes_of(&arguments), &uses) }
    }
}
