// SPDX-License-Identifier: MPL-2.0
//! One call: by which kernel it is done, in how many launches.
//!
//! Both follow from the call alone and what was agreed on, never from where a rank's buffers are: so what is longer
//! than a staging half is cut for those too that stage nothing. Pieces of a fold in rank order have the bits of the
//! whole.

use super::super::descriptor::{Descriptor, hash};
use super::DeviceCommunicator;
use super::board::WORDS;
use super::launch::Launch;
use crate::driver::{DeviceBuffer, Stream};
use crate::element::DataType;
use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::schedule::Collective;

/// Up to how many bytes each rank reads all of a message: beyond, that each folds a part for all takes less time,
/// though it has one more step. A two-shot all-reduce reads and writes about 2 bytes over links for each byte of the
/// message, a one-shot one n - 1.
const ONE_SHOT: usize = 256 << 10;

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

    const fn kernel(self, data_type: DataType) -> Kernel {
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

impl DeviceCommunicator {
    /// Enqueues a call.
    pub(super) fn enqueue(&self, call: &Call, stream: &Stream) -> Result<()> {
        self.members.failure(&self.faults)?;
        let words = self.words(call)?;
        let hash = hash(words);
        self.board.post(&self.members, hash, &words)?;
        match call.descriptor.collective {
            Collective::AllReduce => self.enqueue_all_reduce(call, hash, stream),
            Collective::ReduceScatter => self.enqueue_reduce_scatter(call, hash, stream),
            Collective::AllGather => self.enqueue_all_gather(call, hash, stream),
            Collective::Broadcast => {
                let root = call.descriptor.root;
                self.enqueue_broadcast(&call.descriptor, hash, root, &call.from, &call.to, stream)
            }
            _ => self.launch(&Launch::new(Kernel::Barrier, &call.descriptor, hash, &call.from, &call.to), stream),
        }
    }

    /// The descriptor of a call, in words.
    fn words(&self, call: &Call) -> Result<[u64; WORDS]> {
        let mut words = [0; WORDS];
        let (own, last) = words.split_at_mut(WORDS - 1);
        own.copy_from_slice(&call.descriptor.words());
        if call.descriptor.collective == Collective::AllReduce {
            last[0] = self.algorithm.get().map_or(0, |named| named as u64 + 1);
            let (bytes, most) = (call.to.len(), self.members.layout.lines as usize * 8);
            if self.algorithm.get() == Some(Algorithm::LowLatency) && bytes > most {
                return Err(Error::invalid(format!(
                    "all_reduce on rank {}: {bytes} bytes cannot go by low_latency, which takes {most} at the most",
                    self.members.rank
                )));
            }
        }
        Ok(words)
    }

    /// Bytes that one launch moves at the most.
    fn most(&self) -> usize {
        self.members.layout.half as usize
    }

    fn enqueue_all_reduce(&self, call: &Call, hash: u64, stream: &Stream) -> Result<()> {
        let Descriptor { data_type, .. } = call.descriptor;
        let bytes = call.to.len();
        let automatic = || match bytes {
            _ if bytes <= self.members.layout.lines as usize * 8 => Algorithm::LowLatency,
            _ if bytes <= ONE_SHOT => Algorithm::OneShot,
            _ => Algorithm::TwoShot,
        };
        let algorithm = self.algorithm.get().unwrap_or_else(automatic);
        // Of a ring the chunks decide on the bits, and its slots take messages of any length.
        let most = if algorithm == Algorithm::Ring { bytes } else { self.most() };
        for piece in pieces(bytes, most) {
            let (from, to) = (call.from.part(piece.clone())?, call.to.part(piece.clone())?);
            let mut launch = Launch::new(algorithm.kernel(data_type), &call.descriptor, hash, &from, &to);
            launch.elements = piece.len() / data_type.size();
            launch.work = match algorithm {
                Algorithm::LowLatency | Algorithm::OneShot => piece.len(),
                Algorithm::TwoShot | Algorithm::Ring => piece.len().div_ceil(self.members.world),
            };
            self.launch(&launch, stream)?;
        }
        Ok(())
    }

    fn enqueue_reduce_scatter(&self, call: &Call, hash: u64, stream: &Stream) -> Result<()> {
        let (members, slice) = (&self.members, call.to.len());
        let kernel = Kernel::ReduceScatter(call.descriptor.data_type);
        let launch = |from: &DeviceBuffer<u8>, to: &DeviceBuffer<u8>| {
            let mut launch = Launch::new(kernel, &call.descriptor, hash, from, to);
            launch.elements = to.len() / call.descriptor.data_type.size();
            launch.work = to.len();
            self.launch(&launch, stream)
        };
        if slice * members.world <= self.most() {
            return launch(&call.from, &call.to);
        }
        // The same part of each slice is packed, where all ranks see it.
        let most = self.most() / members.world / 16 * 16;
        for piece in pieces(slice, most) {
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

    fn enqueue_all_gather(&self, call: &Call, hash: u64, stream: &Stream) -> Result<()> {
        let (world, slice) = (self.members.world, call.from.len());
        if slice * world <= self.most() {
            let mut launch = Launch::new(Kernel::AllGather, &call.descriptor, hash, &call.from, &call.to);
            (launch.elements, launch.work) = (slice, slice);
            return self.launch(&launch, stream);
        }
        for root in 0..world {
            let to = call.to.part(root * slice..(root + 1) * slice)?;
            let from = if root == self.members.rank { &call.from } else { &to };
            self.enqueue_broadcast(&call.descriptor, hash, root, from, &to, stream)?;
        }
        Ok(())
    }

    fn enqueue_broadcast(
        &self,
        descriptor: &Descriptor,
        hash: u64,
        root: usize,
        from: &DeviceBuffer<u8>,
        to: &DeviceBuffer<u8>,
        stream: &Stream,
    ) -> Result<()> {
        for piece in pieces(to.len(), self.most()) {
            let (from, to) = (from.part(piece.clone())?, to.part(piece.clone())?);
            let mut launch = Launch::new(Kernel::Broadcast, descriptor, hash, &from, &to);
            (launch.elements, launch.work) = (piece.len(), piece.len().div_ceil(self.members.world));
            launch.root = root;
            self.launch(&launch, stream)?;
        }
        Ok(())
    }
}

/// Bytes, cut into pieces of at most `most`; one of none, if there are none: every call enters.
fn pieces(bytes: usize, most: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let count = bytes.div_ceil(most.max(1)).max(1);
    (0..count).map(move |piece| piece * most..bytes.min((piece + 1) * most))
}
