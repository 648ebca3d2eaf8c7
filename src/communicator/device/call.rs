// SPDX-License-Identifier: MPL-2.0
//! One call: by which kernel it is done, in how many launches (`plan`), and the launches themselves.
//!
//! Both follow from the call alone and what was agreed on, never from where a rank's buffers are: so what is longer
//! than a staging half is cut for those too that stage nothing. Pieces of a fold in rank order have the bits of the
//! whole.

use super::super::descriptor::{Descriptor, hash};
use super::DeviceCommunicator;
use super::called;
use super::history::Enqueued;
use super::launch::Launch;
use super::plan::Plan;
use super::schedule::Path;
use crate::driver::{DeviceBuffer, Stream};
use crate::element::DataType;
use crate::error::Result;
use crate::kernel::{Kernel, WORDS};
use crate::schedule::Collective;

/// How all-reduce is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    LowLatency,
    OneShot,
    TwoShot,
    Ring,
}

impl Algorithm {
    pub const ALL: [Algorithm; 4] = [Algorithm::LowLatency, Algorithm::OneShot, Algorithm::TwoShot, Algorithm::Ring];

    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::LowLatency => "low_latency",
            Algorithm::OneShot => "one_shot",
            Algorithm::TwoShot => "two_shot",
            Algorithm::Ring => "ring",
        }
    }

    pub const fn kernel(self, data_type: DataType) -> Kernel {
        match self {
            Algorithm::LowLatency => Kernel::LowLatency(data_type),
            Algorithm::OneShot => Kernel::OneShot(data_type),
            Algorithm::TwoShot => Kernel::TwoShot(data_type),
            Algorithm::Ring => Kernel::Ring(data_type),
        }
    }
}

/// A call, checked: what it is, and this rank's buffers. Where a rank gives or gets nothing, any buffer stands.
pub(super) struct Call {
    pub descriptor: Descriptor,
    pub from: DeviceBuffer<u8>,
    pub to: DeviceBuffer<u8>,
}

impl Call {
    /// Bytes by nccl-tests' definition: those of all parts, also on a rank that has one of them.
    pub fn bytes(&self, world: usize) -> usize {
        let Descriptor { collective, data_type, count, .. } = self.descriptor;
        match collective {
            Collective::Scatter | Collective::Gather => count * data_type.size() * world,
            _ => self.from.len().max(self.to.len()),
        }
    }
}

/// A call as its launches carry it.
pub(super) struct Carried<'a> {
    pub descriptor: &'a Descriptor,
    pub words: [u64; WORDS],
    pub hash: u64,
}

impl DeviceCommunicator {
    /// Enqueues a call.
    pub(super) fn enqueue(&self, call: &Call, stream: &Stream) -> Result<()> {
        self.members.failure(&self.faults)?;
        if let Some(Path::Schedule(number)) = self.path.get() {
            return self.enqueue_by_schedule(call, number, stream);
        }
        let Descriptor { collective, data_type, op, count, .. } = call.descriptor;
        let plan = self.plan(collective, data_type, count)?;
        let words = called::words(&call.descriptor, self.kernel_asked_for().map_or(0, |named| named as u64 + 1));
        let carried = Carried { descriptor: &call.descriptor, hash: hash(words), words };
        let first = self.history.next();
        match collective {
            Collective::AllReduce | Collective::Reduce => self.enqueue_reduce(&plan, call, &carried, stream),
            Collective::ReduceScatter => self.enqueue_reduce_scatter(&plan, call, &carried, stream),
            Collective::AllGather => self.enqueue_all_gather(&plan, call, &carried, stream),
            Collective::Broadcast => {
                let root = call.descriptor.root;
                self.enqueue_broadcast(&plan, &carried, root, &call.from, &call.to, stream)
            }
            Collective::Scatter | Collective::Gather | Collective::AllToAll => {
                self.enqueue_parts(&plan, call, &carried, stream)
            }
            _ => self.launch(&Launch::new(plan.kernel, &carried, &call.from, &call.to), stream),
        }?;
        let launches = first..self.history.next();
        self.history.push(Enqueued {
            collective,
            data_type,
            op,
            bytes: call.bytes(self.members.world),
            algorithm: plan.algorithm.into(),
            path: "kernel",
            launches,
        });
        Ok(())
    }

    /// The kernel that was asked for by name.
    pub(super) fn kernel_asked_for(&self) -> Option<Algorithm> {
        match self.path.get() {
            Some(Path::Kernel(algorithm)) => Some(algorithm),
            _ => None,
        }
    }

    /// All-reduce, and reduce, whose output the root alone has.
    fn enqueue_reduce(&self, plan: &Plan, call: &Call, carried: &Carried<'_>, stream: &Stream) -> Result<()> {
        for piece in pieces(call.from.len(), plan.most) {
            let to = if call.to.is_empty() { call.to.clone() } else { call.to.part(piece.clone())? };
            let from = call.from.part(piece.clone())?;
            let mut launch = Launch::new(plan.kernel, carried, &from, &to);
            launch.elements = piece.len() / call.descriptor.data_type.size();
            launch.work = plan.work_of(piece.len());
            launch.root = call.descriptor.root;
            self.launch(&launch, stream)?;
        }
        Ok(())
    }

    /// Scatter, gather and all-to-all: each launch moves a piece of every part.
    fn enqueue_parts(&self, plan: &Plan, call: &Call, carried: &Carried<'_>, stream: &Stream) -> Result<()> {
        let part = call.descriptor.count * call.descriptor.data_type.size();
        for piece in pieces(part, plan.most) {
            // A rank that gives or gets nothing has an empty buffer.
            let behind = |buffer: &DeviceBuffer<u8>| buffer.part(piece.start.min(buffer.len())..);
            let (from, to) = (behind(&call.from)?, behind(&call.to)?);
            let mut launch = Launch::new(plan.kernel, carried, &from, &to);
            (launch.elements, launch.work) = (piece.len(), plan.work_of(piece.len()));
            (launch.root, launch.stride) = (call.descriptor.root, part);
            self.launch(&launch, stream)?;
        }
        Ok(())
    }

    fn enqueue_reduce_scatter(&self, plan: &Plan, call: &Call, carried: &Carried<'_>, stream: &Stream) -> Result<()> {
        let (members, slice) = (&self.members, call.to.len());
        let launch = |from: &DeviceBuffer<u8>, to: &DeviceBuffer<u8>| {
            let mut launch = Launch::new(plan.kernel, carried, from, to);
            launch.elements = to.len() / call.descriptor.data_type.size();
            launch.work = plan.work_of(to.len());
            self.launch(&launch, stream)
        };
        if !plan.is_cut {
            return launch(&call.from, &call.to);
        }
        // The same part of each slice is packed, where all ranks see it.
        for piece in pieces(slice, plan.most) {
            let length = piece.len();
            let pack = members.packs[members.rank].part(..length * members.world)?;
            for rank in 0..members.world {
                let from = call.from.part(rank * slice + piece.start..rank * slice + piece.end)?;
                stream.copy(&from, &pack.part(rank * length..(rank + 1) * length)?)?;
            }
            launch(&pack, &call.to.part(piece)?)?;
        }
        Ok(())
    }

    fn enqueue_all_gather(&self, plan: &Plan, call: &Call, carried: &Carried<'_>, stream: &Stream) -> Result<()> {
        let (world, slice) = (self.members.world, call.from.len());
        if !plan.is_cut {
            let mut launch = Launch::new(plan.kernel, carried, &call.from, &call.to);
            (launch.elements, launch.work) = (slice, plan.work_of(slice));
            return self.launch(&launch, stream);
        }
        for root in 0..world {
            let to = call.to.part(root * slice..(root + 1) * slice)?;
            let from = if root == self.members.rank { &call.from } else { &to };
            self.enqueue_broadcast(plan, carried, root, from, &to, stream)?;
        }
        Ok(())
    }

    fn enqueue_broadcast(
        &self,
        plan: &Plan,
        carried: &Carried<'_>,
        root: usize,
        from: &DeviceBuffer<u8>,
        to: &DeviceBuffer<u8>,
        stream: &Stream,
    ) -> Result<()> {
        for piece in pieces(to.len(), plan.most) {
            let (from, to) = (from.part(piece.clone())?, to.part(piece.clone())?);
            let mut launch = Launch::new(plan.kernel, carried, &from, &to);
            (launch.elements, launch.work) = (piece.len(), plan.work_of(piece.len()));
            launch.root = root;
            self.launch(&launch, stream)?;
        }
        Ok(())
    }
}

/// Bytes, cut into pieces of at most `most`; one of none, if there are none: every call enters.
pub(super) fn pieces(bytes: usize, most: usize) -> impl ExactSizeIterator<Item = std::ops::Range<usize>> {
    let count = bytes.div_ceil(most.max(1)).max(1);
    (0..count).map(move |piece| piece * most..bytes.min((piece + 1) * most))
}
