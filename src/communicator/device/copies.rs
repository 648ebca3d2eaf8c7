// SPDX-License-Identifier: MPL-2.0
//! The copy-engine path: enqueues a program's operations (`operations`), which the device then does without the host.
//!
//! A copy is one of the driver's for each destination, a fold one launch. All are on one stream, one after the other.
//! Behind a wait that has failed the driver's copies and the folds are still done: a failed call writes where it would
//! have written, and says so.
#![allow(unsafe_code)]

use super::super::loaded::Loaded;
use super::DeviceCommunicator;
use super::call::{Call, Carried};
use super::launch::Launch;
use super::operations::{Flags, Operation, operations};
use super::programs::Shared;
use crate::driver::{self, DeviceBuffer, Stream, Use};
use crate::error::Result;
use crate::kernel::{self, Fold, FoldPartials, Kernel, MARKS, Mark, Shape};
use crate::schedule::{Buffer, Place};

/// One call on its way to a stream. Inputs, outputs and shared memory are by rank.
pub(super) struct Walk<'a> {
    pub gpus: &'a DeviceCommunicator,
    pub stream: &'a Stream,
    pub call: &'a Call,
    pub loaded: &'a Loaded,
    pub inputs: &'a [DeviceBuffer<u8>],
    pub outputs: &'a [DeviceBuffer<u8>],
    pub memory: &'a Shared,
}

impl Walk<'_> {
    /// Enqueues all steps, a copy at the end if there is to be one, and the launch that ends the call.
    pub fn go(&self, carried: &Carried<'_>, copy: Option<[&DeviceBuffer<u8>; 2]>) -> Result<()> {
        let history = &self.gpus.history;
        let launch = Launch::new(Kernel::Flags, carried, &self.call.from, &self.call.to);
        let told = self.gpus.arguments(&launch, 0);
        let mut rest = operations(self.loaded, |operation| match operation {
            Operation::Flags(flags) => self.launch_flags(told, flags, false),
            Operation::Copy { from, to, segment, len } => {
                let from = self.at(from, segment, len)?;
                to.iter().try_for_each(|to| self.copy_at_once(&from, &self.at(to, segment, len)?))
            }
            Operation::Fold { from, to, segment, len } => self.fold(from, to, segment, len),
        })?;
        if let Some([from, to]) = copy {
            if !rest.is_empty() {
                self.launch_flags(told, &std::mem::take(&mut rest), false)?;
            }
            self.copy_at_once(from, to)?;
        }
        self.launch_flags(kernel::Collective { number: history.count(), ..told }, &rest, true)
    }

    /// What every operation of the call uses: so whatever uses the call's buffers later, on any stream, comes after the
    /// last one, and so does the next call. What peers use at the same time is shared.
    fn uses<'b>(&self, shared: impl IntoIterator<Item = &'b DeviceBuffer<u8>>) -> Vec<Use> {
        let own = [Use::reads(&self.call.from), Use::writes(&self.call.to), Use::writes(&self.gpus.members.state)];
        own.into_iter().chain(shared.into_iter().map(Use::shares)).collect()
    }

    fn launch_flags(&self, call: kernel::Collective, flags: &Flags, closes: bool) -> Result<()> {
        let members = &self.gpus.members;
        let mut marks = [Mark { rank: 0, flag: 0, before_end: 0 }; MARKS];
        marks.iter_mut().zip(flags.raised.iter().chain(&flags.awaited)).for_each(|(mark, own)| *mark = *own);
        let (raised, awaited) = (flags.raised.len() as u32, flags.awaited.len() as u32);
        let arguments = kernel::Flags { call, raised, awaited, closes: u32::from(closes), unused: 0, marks };
        let mut uses = self.uses(&members.arenas);
        uses.extend(self.gpus.common_uses());
        let Shape { blocks, threads } = members.room.shape(Kernel::Flags, 0);
        // SAFETY: The argument is that of `kernels/flags.cu`: the call's is the one that its entry has, and the marks
        // are as many as it says, of ranks and flags that exist (`check`, `Loaded`). It touches the state, journal, words
        // and, through the first region of the table, the flags of all ranks' arenas: `uses` names all of them. Flags
        // are atomic words with one writer each, which is what `shares` asks for.
        unsafe {
            self.stream.launch(
                &members.kernels[&Kernel::Flags],
                driver::Shape::new(blocks, threads).together(),
                bytemuck::bytes_of(&arguments),
                &uses,
            )
        }
    }

    /// Copies what both buffers have, which is as much.
    pub fn copy_at_once(&self, from: &DeviceBuffer<u8>, to: &DeviceBuffer<u8>) -> Result<()> {
        if from.is_empty() {
            return Ok(());
        }
        if let Some(hop) = self.memory.hop.as_ref().filter(|_| from.is_hosted() && to.is_hosted()) {
            let hop = hop.part(..from.len())?;
            self.copy_at_once(from, &hop)?;
            return self.copy_at_once(&hop, to);
        }
        let uses = self.uses([from, to]);
        // SAFETY: Both are named. The hop is touched by this rank's calls alone, one after the other. Of other memory,
        // nobody writes the source or touches the destination meanwhile, and they do not overlap: for built-ins that is
        // proved by the tests' sweep of `verify`, for users' schedules by their `Verified`; the flags that the proof
        // relies on are those of `launch_flags`.
        unsafe { self.stream.copy_using(from, to, &uses) }
    }

    fn fold(&self, from: &[Place], to: &[Place], segment: usize, len: usize) -> Result<()> {
        let (loaded, members) = (self.loaded, &self.gpus.members);
        let Some(op) = loaded.op else { return Ok(()) };
        let find = |places: &[Place]| -> Result<Vec<DeviceBuffer<u8>>> {
            places.iter().map(|place| self.at(place, segment, len)).collect()
        };
        let (sources, destinations) = (find(from)?, find(to)?);
        let addresses = |buffers: &[DeviceBuffer<u8>]| buffers.iter().map(DeviceBuffer::address).collect::<Vec<_>>();
        let partials = |places: &[Place]| {
            let is_partial = |place: &Place| matches!(place.buffer, Buffer::Partial(_));
            places.iter().enumerate().fold(0_u32, |bits, (index, place)| bits | u32::from(is_partial(place)) << index)
        };
        let (from_addresses, to_addresses) = (addresses(&sources), addresses(&destinations));
        let fold = Fold::new(op, loaded.data_type, len, &from_addresses, &to_addresses, members.world);
        let (partial_from, partial_to) = (partials(from), partials(to));
        let with_partials = FoldPartials { fold, partial_from, partial_to };
        let (kernel, argument) = match partial_from | partial_to {
            0 => (Kernel::Fold(loaded.data_type), bytemuck::bytes_of(&fold)),
            _ => (Kernel::FoldPartials(loaded.data_type), bytemuck::bytes_of(&with_partials)),
        };
        let Shape { blocks, threads } = members.room.shape(kernel, len * loaded.element);
        let uses = self.uses(sources.iter().chain(&destinations));
        // SAFETY: The argument is the kernel's: as many sources and destinations as it says, at least one of each and
        // not more than it takes (`check`, `Loaded`), all named and as long as `len` asks for (`at`). `Partial` places
        // hold partials because only folds write them. Who else uses the memory meanwhile: as in `copy_at_once`.
        unsafe { self.stream.launch(&members.kernels[&kernel], driver::Shape::new(blocks, threads), argument, &uses) }
    }

    /// The memory of a place in turn `segment`.
    fn at(&self, place: &Place, segment: usize, len: usize) -> Result<DeviceBuffer<u8>> {
        let loaded = self.loaded;
        let turn = |index: u32, bytes: usize| ((index as usize + segment) % loaded.resources.depth) * bytes;
        let first = place.offset + place.stride * segment;
        let shared = &*self.memory.all;
        let (buffers, begin, size) = match place.buffer {
            Buffer::Input => (self.inputs, 0, loaded.element),
            Buffer::Output => (self.outputs, 0, loaded.element),
            Buffer::Scratch => (shared, 0, loaded.element),
            Buffer::Slot(index) => (shared, loaded.slots_at + turn(index, loaded.slot_bytes), loaded.element),
            Buffer::Partial(index) => {
                (shared, loaded.partials_at + turn(index, loaded.partial_bytes), loaded.accumulator)
            }
        };
        let begin = begin + first * size;
        buffers[place.rank].part(begin..begin + len * size)
    }
}
