// SPDX-License-Identifier: MPL-2.0
//! What a benchmark measures: a collective, or messages, over a range of sizes.

use std::fmt;
use std::ops::ControlFlow;

use super::measure::{Caller, Rank};
use super::on_device::OnDevice;
use super::on_host::OnHost;
use super::payload::Payload;
use super::{Measurement, Subject};
use crate::communicator::{Communicator, DeviceCommunicator};
use crate::element::{DataType, Element, ReduceOp};
use crate::error::Result;
use crate::{bf16, f16};

/// From this size on, calls take turns on [`SETS`] sets of buffers, so that none finds its own in cache.
const ROTATED: usize = 64 << 10;
const SETS: usize = 4;

/// The memory of the buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// From [`Communicator::allocate`], on devices from [`DeviceCommunicator::allocate`]: peers address it.
    Allocated,
    /// From the global allocator, on devices from [`Device::allocate`](crate::driver::Device::allocate). Peers address
    /// it if they are threads of the same process; on devices, kernels stage it.
    Plain,
}

impl Memory {
    /// Both kinds.
    pub const ALL: [Memory; 2] = [Memory::Allocated, Memory::Plain];

    /// The name: `allocated` or `plain`.
    pub const fn name(self) -> &'static str {
        match self {
            Memory::Allocated => "allocated",
            Memory::Plain => "plain",
        }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Which forms of a collective are measured. A barrier, and messages, have the first alone, whatever is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modes {
    /// With an input and an output.
    OutOfPlace,
    /// With one buffer for both.
    InPlace,
    /// One after the other.
    Both,
}

/// What to measure. All ranks of a communicator are given the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sweep {
    /// What is called.
    pub subject: Subject,
    /// The memory of its buffers.
    pub memory: Memory,
    /// The element type.
    pub data_type: DataType,
    /// The operation, for collectives that fold.
    pub op: ReduceOp,
    /// The algorithm by name; `None`: automatic.
    pub algorithm: Option<String>,
    /// The first size in bytes, as nccl-tests defines it: the whole buffer of an all-reduce, reduce, broadcast or scan,
    /// what a rank sends, and all parts together of the others. A size is rounded down to whole elements a rank.
    pub begin: usize,
    /// The last size.
    pub end: usize,
    /// Each size is the one before times this, which is at least 2.
    pub factor: usize,
    /// Timed calls of each size; `None`: 2000 up to 64 KiB, 200 up to 4 MiB, 30 above; on devices 200, 50 and 10. A
    /// tenth as many and three, not timed, precede them.
    pub iterations: Option<usize>,
    /// In place, out of place or both.
    pub modes: Modes,
    /// Whether every call sends its own payload and every output is checked, between calls and untimed. Else the first
    /// call and the last alone, as others' benchmarks do, which leave buffers untouched between calls: what a rank has
    /// just written is in its own cache, and costs its peers a little more to read.
    pub checked: bool,
}

impl Sweep {
    /// Two ranks' everyday: f32, sum, plain memory, 8 bytes to 64 MiB by doubling, both modes, everything checked.
    pub fn new(subject: impl Into<Subject>) -> Self {
        Sweep {
            subject: subject.into(),
            memory: Memory::Plain,
            data_type: DataType::F32,
            op: ReduceOp::Sum,
            algorithm: None,
            begin: 8,
            end: 64 << 20,
            factor: 2,
            iterations: None,
            modes: Modes::Both,
            checked: true,
        }
    }

    /// Measures, together with all other ranks. On rank 0 `report` gets what was measured of one size, one measurement
    /// a mode, as soon as it is known; if it breaks, all ranks end there.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a sweep that cannot be, and the failures of every collective.
    pub fn run(&self, comm: &Communicator, report: impl FnMut(&[Measurement]) -> ControlFlow<()>) -> Result<()> {
        self.check(comm.world_size())?;
        self.run_any(comm, None, report)
    }

    /// The same on device memory: a call is enqueued on a stream of the rank's device, and its time ends when that has
    /// been synchronised. `comm` are the same ranks, on the host.
    ///
    /// # Errors
    ///
    /// As [`Sweep::run`].
    pub fn run_on(
        &self,
        gpus: &DeviceCommunicator,
        comm: &Communicator,
        report: impl FnMut(&[Measurement]) -> ControlFlow<()>,
    ) -> Result<()> {
        self.check_on_devices(comm.world_size())?;
        self.run_any(comm, Some(gpus), report)
    }

    fn run_any(
        &self,
        comm: &Communicator,
        gpus: Option<&DeviceCommunicator>,
        report: impl FnMut(&[Measurement]) -> ControlFlow<()>,
    ) -> Result<()> {
        match self.data_type {
            DataType::F64 => self.run_with::<f64>(comm, gpus, report),
            DataType::F32 => self.run_with::<f32>(comm, gpus, report),
            DataType::F16 => self.run_with::<f16>(comm, gpus, report),
            DataType::Bf16 => self.run_with::<bf16>(comm, gpus, report),
            DataType::I8 => self.run_with::<i8>(comm, gpus, report),
            DataType::U8 => self.run_with::<u8>(comm, gpus, report),
            DataType::I16 => self.run_with::<i16>(comm, gpus, report),
            DataType::U16 => self.run_with::<u16>(comm, gpus, report),
            DataType::I32 => self.run_with::<i32>(comm, gpus, report),
            DataType::U32 => self.run_with::<u32>(comm, gpus, report),
            DataType::I64 => self.run_with::<i64>(comm, gpus, report),
            DataType::U64 => self.run_with::<u64>(comm, gpus, report),
        }
    }

    fn run_with<T: Element>(
        &self,
        comm: &Communicator,
        gpus: Option<&DeviceCommunicator>,
        report: impl FnMut(&[Measurement]) -> ControlFlow<()>,
    ) -> Result<()> {
        let barrier = self.subject.is_barrier();
        let len = if barrier { 0 } else { self.end / size_of::<T>() };
        match gpus {
            None => self.run_by(comm, OnHost::<T>::new(comm, self, len)?, report),
            Some(gpus) => self.run_by(comm, OnDevice::<T>::new(gpus, self, len)?, report),
        }
    }

    fn run_by<T: Element>(
        &self,
        comm: &Communicator,
        caller: impl Caller<T>,
        mut report: impl FnMut(&[Measurement]) -> ControlFlow<()>,
    ) -> Result<()> {
        let payload = Payload::<T>::new(self.subject, self.op, comm.world_size())?;
        let mut rank = Rank { comm, sweep: self, payload, caller };
        let modes: &[bool] = match self.modes {
            Modes::OutOfPlace => &[false],
            Modes::InPlace => &[true],
            Modes::Both if !self.subject.has_in_place() => &[false],
            Modes::Both => &[false, true],
        };
        for size in self.sizes() {
            let measured: Result<Vec<_>> = modes.iter().map(|&in_place| rank.measure(size, in_place)).collect();
            let measured = measured?;
            let mut ended = [u8::from(comm.rank() == 0 && report(&measured).is_break())];
            comm.broadcast_in_place(&mut ended, 0)?;
            if ended != [0] {
                break;
            }
        }
        Ok(())
    }

    /// The sizes, in bytes. A barrier has one.
    fn sizes(&self) -> impl Iterator<Item = usize> + use<> {
        let Sweep { subject, begin, end, factor, .. } = *self;
        let barrier = subject.is_barrier();
        let next = move |size: &usize| size.checked_mul(factor).filter(|size| !barrier && *size <= end);
        std::iter::successors(Some(if barrier { 0 } else { begin }), next)
    }

    /// Elements a rank, by NCCL's definition, of a size in bytes: rounded down to whole ones.
    pub(super) fn count(&self, size: usize, ranks: usize) -> usize {
        size / self.data_type.size() / if self.subject.has_parts() { ranks.max(1) } else { 1 }
    }

    /// The algorithm that is asked for; `auto` where none is.
    pub(super) fn asked(&self) -> &str {
        self.algorithm.as_deref().unwrap_or("auto")
    }

    /// How many sets of buffers there are.
    pub(super) fn sets(&self) -> usize {
        rotation(self.end)
    }
}

/// How many sets of buffers calls of this size take turns on.
pub(super) fn rotation(bytes: usize) -> usize {
    if bytes >= ROTATED { SETS } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Collective;

    fn sizes(change: impl FnOnce(&mut Sweep)) -> Vec<usize> {
        let mut sweep = Sweep::new(Collective::AllReduce);
        change(&mut sweep);
        sweep.sizes().collect()
    }

    #[test]
    fn sizes_grow_by_the_factor_up_to_the_end() {
        assert_eq!(sizes(|sweep| sweep.end = 64), [8, 16, 32, 64]);
        assert_eq!(sizes(|sweep| (sweep.end, sweep.factor) = (100, 3)), [8, 24, 72]);
        assert_eq!(sizes(|sweep| (sweep.begin, sweep.end) = (usize::MAX / 2 + 1, usize::MAX)), [usize::MAX / 2 + 1]);
        assert_eq!(sizes(|sweep| sweep.subject = Collective::Barrier.into()), [0]);
    }
}
