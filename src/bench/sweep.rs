// SPDX-License-Identifier: MPL-2.0
//! What a benchmark measures: a collective over a range of sizes.

use std::fmt;
use std::ops::ControlFlow;

use super::Measurement;
use super::buffers::Set;
use super::measure::Rank;
use super::payload::Payload;
use crate::communicator::Communicator;
use crate::element::{DataType, Element, ReduceOp};
use crate::error::{Error, Result};
use crate::schedule::{self, Collective, Layout, select};
use crate::transport::page::INLINE;
use crate::{bf16, f16};

/// From this size on, calls take turns on [`SETS`] sets of buffers, so that none finds its own in cache.
const ROTATED: usize = 64 << 10;
const SETS: usize = 4;

/// The memory of the buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// From [`Communicator::allocate`]: peers address it.
    Allocated,
    /// From the global allocator. Peers address it if they are threads of the same process.
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

/// Which forms of a collective are measured. A barrier has the first alone, whatever is asked for.
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
    /// The collective.
    pub collective: Collective,
    /// The memory of its buffers.
    pub memory: Memory,
    /// The element type.
    pub data_type: DataType,
    /// The operation, for collectives that fold.
    pub op: ReduceOp,
    /// The algorithm by name; `None`: automatic.
    pub algorithm: Option<String>,
    /// The first size in bytes, as nccl-tests defines it: the whole buffer of an all-reduce, reduce, broadcast or scan,
    /// all parts together of the others. A size is rounded down to whole elements a rank.
    pub begin: usize,
    /// The last size.
    pub end: usize,
    /// Each size is the one before times this, which is at least 2.
    pub factor: usize,
    /// Timed calls of each size; `None`: 2000 up to 64 KiB, 200 up to 4 MiB, 30 above. A tenth as many and three, not
    /// timed, precede them.
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
    pub fn new(collective: Collective) -> Self {
        Sweep {
            collective,
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

    /// What is wrong with it for this many ranks, if anything is. [`Sweep::run`] asks this first; whoever starts ranks
    /// for a sweep may ask before.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`, one sentence.
    pub fn check(&self, ranks: usize) -> Result<()> {
        let Sweep { collective, begin, end, factor, .. } = *self;
        let names = schedule::names(collective);
        if let Some(name) = self.algorithm.as_deref().filter(|name| !names.contains(name)) {
            let those = if names.is_empty() { "auto alone".into() } else { format!("auto, {}", names.join(", ")) };
            return Err(Error::invalid(format!("there is no algorithm {name} for {collective}; there is {those}")));
        }
        if collective.folds() {
            self.op.check(self.data_type)?;
        }
        if collective.is_scan() && self.op == ReduceOp::Avg {
            return Err(Error::invalid(format!("{collective} has no average: ask for another operation")));
        }
        if begin == 0 || begin > end {
            return Err(Error::invalid(format!(
                "sizes begin at {begin} bytes and end at {end}: begin at 1 or more, and not beyond the end"
            )));
        }
        if factor < 2 {
            return Err(Error::invalid(format!("a factor of {factor} reaches no other size: give 2 or more")));
        }
        if self.iterations == Some(0) {
            return Err(Error::invalid("0 iterations have no median: give 1 or more"));
        }
        if collective == Collective::Barrier && self.modes == Modes::InPlace {
            return Err(Error::invalid("a barrier has no buffer and so no form in place: ask for none"));
        }
        let layout = Layout::uniform(ranks, self.count(end, ranks));
        let carried = layout.input_len(collective, 0) * self.data_type.size();
        let limit = select::carried(collective, ranks, INLINE);
        if self.algorithm.as_deref() == Some("one_shot") && carried > limit {
            return Err(Error::invalid(format!(
                "the algorithm one_shot carries at most {limit} bytes a rank, and at the end, {end} bytes, there are \
                 {carried}: end earlier"
            )));
        }
        let needed = end.saturating_mul(2 * self.sets()).saturating_mul(ranks);
        match total_memory().filter(|_| collective != Collective::Barrier) {
            Some(total) if needed > total => Err(Error::invalid(format!(
                "sizes up to {end} bytes on {ranks} ranks need {} MiB of buffers, and this machine has {} MiB: end \
                 earlier",
                needed >> 20,
                total >> 20
            ))),
            _ => Ok(()),
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
        match self.data_type {
            DataType::F64 => self.run_with::<f64>(comm, report),
            DataType::F32 => self.run_with::<f32>(comm, report),
            DataType::F16 => self.run_with::<f16>(comm, report),
            DataType::Bf16 => self.run_with::<bf16>(comm, report),
            DataType::I8 => self.run_with::<i8>(comm, report),
            DataType::U8 => self.run_with::<u8>(comm, report),
            DataType::I16 => self.run_with::<i16>(comm, report),
            DataType::U16 => self.run_with::<u16>(comm, report),
            DataType::I32 => self.run_with::<i32>(comm, report),
            DataType::U32 => self.run_with::<u32>(comm, report),
            DataType::I64 => self.run_with::<i64>(comm, report),
            DataType::U64 => self.run_with::<u64>(comm, report),
        }
    }

    fn run_with<T: Element>(
        &self,
        comm: &Communicator,
        mut report: impl FnMut(&[Measurement]) -> ControlFlow<()>,
    ) -> Result<()> {
        let payload = Payload::<T>::new(self.collective, self.op, comm.world_size())?;
        let barrier = self.collective == Collective::Barrier;
        let len = if barrier { 0 } else { self.end / size_of::<T>() };
        let sets: Result<Vec<Set<T>>> = (0..self.sets()).map(|_| Set::new(comm, self.memory, len)).collect();
        let mut rank = Rank { comm, sweep: self, payload, sets: sets? };
        let modes: &[bool] = match self.modes {
            Modes::OutOfPlace => &[false],
            Modes::InPlace => &[true],
            Modes::Both if barrier => &[false],
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
        let Sweep { collective, begin, end, factor, .. } = *self;
        let barrier = collective == Collective::Barrier;
        let next = move |size: &usize| size.checked_mul(factor).filter(|size| !barrier && *size <= end);
        std::iter::successors(Some(if barrier { 0 } else { begin }), next)
    }

    /// Elements a rank, by NCCL's definition, of a size in bytes: rounded down to whole ones.
    pub(super) fn count(&self, size: usize, ranks: usize) -> usize {
        size / self.data_type.size() / if self.collective.has_parts() { ranks.max(1) } else { 1 }
    }

    /// How many sets of buffers there are.
    fn sets(&self) -> usize {
        rotation(self.end)
    }
}

/// How many sets of buffers calls of this size take turns on.
pub(super) fn rotation(bytes: usize) -> usize {
    if bytes >= ROTATED { SETS } else { 1 }
}

/// Bytes of memory that this machine has.
#[cfg(target_os = "linux")]
fn total_memory() -> Option<usize> {
    let info = rustix::system::sysinfo();
    usize::try_from(info.totalram).ok()?.checked_mul(info.mem_unit as usize)
}

/// Not known without a system call of its own.
#[cfg(not(target_os = "linux"))]
fn total_memory() -> Option<usize> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(sizes(|sweep| sweep.collective = Collective::Barrier), [0]);
    }

    #[test]
    fn what_cannot_be_measured_is_a_sentence() {
        type Change = fn(&mut Sweep);
        let wrong: [(Change, &str); 9] = [
            (|sweep| sweep.begin = 0, "begin at 0 bytes"),
            (|sweep| sweep.end = 4, "begin at 8 bytes and end at 4"),
            (|sweep| sweep.factor = 1, "factor of 1"),
            (|sweep| sweep.iterations = Some(0), "0 iterations"),
            (|sweep| sweep.algorithm = Some("bruck".into()), "auto, one_shot, direct, staged, ring"),
            (|sweep| sweep.algorithm = Some("one_shot".into()), "at most 8192 bytes a rank"),
            (|sweep| sweep.op = ReduceOp::BitXor, "bxor does not apply to f32"),
            (|sweep| sweep.end = 1 << 60, "this machine has"),
            (|sweep| (sweep.collective, sweep.modes) = (Collective::Barrier, Modes::InPlace), "no form in place"),
        ];
        for (change, named) in wrong {
            let mut sweep = Sweep::new(Collective::AllReduce);
            change(&mut sweep);
            let error = sweep.check(2).unwrap_err();
            assert!(matches!(error, Error::InvalidArgument(_)) && error.to_string().contains(named), "{error}");
        }
    }
}
