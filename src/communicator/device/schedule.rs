// SPDX-License-Identifier: MPL-2.0
//! Calls that go by a schedule: which program runs, and where the memory is that it names.
//!
//! Both follow from the call and from what all ranks have done together before. A program that reaches into peers'
//! inputs and outputs needs them where this rank can tell: at the same place of memory that all ranks have allocated or
//! registered together. Whether they are there, each rank sees of its own buffers and says in its descriptor, so that
//! ranks that differ in it learn of it when they enter. Where they are not, a built-in schedule has a form that passes
//! everything through shared memory, and another's program gets copies of inputs and outputs there.

use std::sync::{Arc, PoisonError};

use super::super::descriptor::{Descriptor, hash};
use super::super::loaded::Loaded;
use super::DeviceCommunicator;
use super::call::{Algorithm, Call, Carried};
use super::called;
use super::copies::Walk;
use super::history::Enqueued;
use super::join::Members;
use super::launch::Launch;
use crate::driver::{DeviceBuffer, Stream};
use crate::error::{Error, Result};
use crate::kernel::{Kernel, Place};
use crate::schedule::{Access, Collective, Entry, Layout, NAMES, Verified};

/// What begins the names of schedules, where a kernel may have the same name.
pub(super) const PREFIX: &str = "schedule:";

/// In the last word of a call: that it goes by a schedule, and that peers' buffers are used where they lie.
const SCHEDULED: u64 = 1 << 63;
const WITHIN_REACH: u64 = 1 << 62;

/// How calls are done, as it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    Kernel(Algorithm),
    /// By its place in the catalogue, plus 1.
    Schedule(u32),
}

impl Path {
    pub fn named(name: &str) -> Result<Path> {
        let kernel = Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name).map(Path::Kernel);
        let schedule = name.strip_prefix(PREFIX).and_then(|name| NAMES.into_iter().position(|known| known == name));
        kernel.or_else(|| schedule.map(|place| Path::Schedule(place as u32 + 1))).ok_or_else(|| {
            let kernels = Algorithm::ALL.map(Algorithm::name).join(", ");
            let schedules = NAMES.map(|name| format!("{PREFIX}{name}")).join(", ");
            Error::invalid(format!("there is no algorithm {name} on devices; there are {kernels}, {schedules}"))
        })
    }
}

/// What is said of a call's last word, behind the call itself.
pub(super) fn said(last: u64) -> String {
    if last & SCHEDULED == 0 {
        let kernel = (last as usize).checked_sub(1).and_then(|place| Algorithm::ALL.get(place));
        return kernel.map_or_else(String::new, |algorithm| format!(" by algorithm {}", algorithm.name()));
    }
    match last & WITHIN_REACH {
        0 => " as a schedule, with no buffer that peers see".into(),
        _ => format!(" as a schedule, with buffers that peers see at place {:015x}", last & (WITHIN_REACH - 1)),
    }
}

/// Where a rank finds the inputs and outputs that a program names.
enum Buffers {
    /// It names this rank's alone.
    Own,
    /// In memory of a region; of a call in place, where the larger of the two begins.
    Within { from: Place, to: Place },
    /// In shared memory, from these bytes on, as above.
    Copied { from: usize, to: usize },
}

/// A program, ready to run.
struct Prepared<'a> {
    loaded: Arc<Loaded>,
    layout: &'a Layout,
    buffers: Buffers,
}

impl DeviceCommunicator {
    /// Enqueues a call by the built-in schedule of that number. Of a broadcast, what the root gives is where the others
    /// get it: a root that gives something else copies it there first.
    pub(super) fn enqueue_by_schedule(&self, call: &Call, number: u32, stream: &Stream) -> Result<()> {
        let descriptor = Descriptor { algorithm: number, ..call.descriptor };
        let layout = self.layout(&descriptor);
        let is_broadcast = descriptor.collective == Collective::Broadcast;
        let (mut from, to) = (call.from.clone(), call.to.clone());
        if is_broadcast {
            from = to.clone();
        }
        // Only its root has both buffers: the others cannot tell where the root's is, unless it is one in place.
        let is_known = layout.is_in_place() || !descriptor.collective.has_root();
        let is_known = is_known && descriptor.count > 0;
        let places = if is_known { self.places(&from, &to, layout.is_in_place()) } else { None };
        let access = if places.is_some() { Access::Direct } else { Access::Staged };
        let loaded = self.load_built_in(&descriptor, &layout, access)?;
        let buffers = match (loaded.access, places) {
            (Access::Staged, _) | (_, None) => Buffers::Own,
            (_, Some((from, to))) => Buffers::Within { from, to },
        };
        let prepared = Prepared { loaded, layout: &layout, buffers };
        let whole = Call { descriptor, from, to };
        if is_broadcast && call.from.address() != whole.to.address() {
            stream.copy(&call.from, &whole.to)?;
        }
        self.enqueue_prepared(&whole, &prepared, stream)
    }

    /// Enqueues a call of one's own schedule.
    pub(super) fn enqueue_verified(&self, call: &Call, verified: &Verified, stream: &Stream) -> Result<()> {
        if verified.entry() != Entry::Barrier {
            return self.asker("execute").refuse(format_args!(
                "the schedule {} carries its own entry, which only built-in schedules may; use Entry::Barrier",
                verified.name()
            ));
        }
        let layout = verified.layout();
        let loaded = self.load((call.descriptor, verified.access()), || {
            let shared = self.schedules.bytes();
            let parts = (verified.access(), Entry::Barrier);
            let (program, target) = (verified.program(self.rank()).clone(), self.target(&call.descriptor, layout));
            Loaded::new(verified.name(), parts, verified.resources(), program, &target, shared)
        })?;
        let buffers = match (verified.access(), self.places(&call.from, &call.to, layout.is_in_place())) {
            (Access::Staged, _) => Buffers::Own,
            (_, Some((from, to))) => Buffers::Within { from, to },
            (_, None) => {
                const LINE: usize = 128;
                let longest = |len: &dyn Fn(usize) -> usize| {
                    let elements = (0..layout.world()).map(len).max().unwrap_or(0);
                    elements.saturating_mul(loaded.element).next_multiple_of(LINE)
                };
                let input = longest(&|rank| layout.input_len(verified.collective(), rank));
                let output = longest(&|rank| layout.output_len(verified.collective(), rank));
                let from = loaded.region.next_multiple_of(LINE);
                let (to, more) =
                    if layout.is_in_place() { (from, input.max(output)) } else { (from + input, input + output) };
                let (needed, shared) = (from + more, self.schedules.bytes());
                if needed > shared {
                    return self.asker("execute").refuse(format_args!(
                        "the schedule {} needs {needed} bytes of shared memory a rank with copies of inputs and \
                         outputs, and there are {shared}; ask for more with set_schedule_memory, or give it buffers \
                         that were allocated or registered on all ranks",
                        verified.name()
                    ));
                }
                Buffers::Copied { from, to }
            }
        };
        self.enqueue_prepared(call, &Prepared { loaded, layout, buffers }, stream)
    }

    /// Where peers find this rank's buffers, if they see both; of a call in place, the larger one.
    fn places(&self, from: &DeviceBuffer<u8>, to: &DeviceBuffer<u8>, in_place: bool) -> Option<(Place, Place)> {
        // A buffer of nothing is where its first element would be.
        let place = |buffer: &DeviceBuffer<u8>| {
            let place = self.members.place_of(buffer.address(), buffer.len().max(1));
            Some(place).filter(|place| *place != Place::STAGED)
        };
        match in_place {
            true => place(if from.len() > to.len() { from } else { to }).map(|whole| (whole, whole)),
            false => Some((place(from)?, place(to)?)),
        }
    }

    /// Enqueues a call whose program and memory are known: the entry and the steps.
    fn enqueue_prepared(&self, call: &Call, prepared: &Prepared<'_>, stream: &Stream) -> Result<()> {
        let Prepared { loaded, buffers, .. } = prepared;
        let memory = self.schedules.memory();
        let all = |inputs| self.all(call, prepared, inputs, &memory.all);
        let (inputs, outputs) = (all(true)?, all(false)?);
        let words = called::words(&call.descriptor, how(buffers));
        let carried = Carried { descriptor: &call.descriptor, hash: hash(words), words };
        let first = self.history.next();
        let mut entry = Launch::new(Kernel::Barrier, &carried, &call.from, &call.to);
        let rank = self.rank();
        let copies = matches!(buffers, Buffers::Copied { .. });
        let walk = Walk { gpus: self, stream, call, loaded, inputs: &inputs, outputs: &outputs, memory: &memory };
        if copies {
            // Behind the first entry nobody uses the shared memory, behind the second one all inputs are there.
            self.launch(&entry, stream)?;
            walk.copy_at_once(&call.from, &inputs[rank])?;
        }
        entry.elements = loaded.resources.advance as usize;
        self.launch(&entry, stream)?;
        walk.go(&carried, copies.then_some([&outputs[rank], &call.to]))?;
        let Descriptor { collective, data_type, op, .. } = call.descriptor;
        let (bytes, algorithm) = (call.bytes(self.members.world), loaded.name.clone());
        let launches = first..self.history.next();
        self.history.push(Enqueued { collective, data_type, op, bytes, algorithm, path: "schedule", launches });
        Ok(())
    }

    /// The inputs of all ranks, or their outputs, as far as the program may name them.
    fn all(
        &self,
        call: &Call,
        prepared: &Prepared<'_>,
        inputs: bool,
        memory: &[DeviceBuffer<u8>],
    ) -> Result<Vec<DeviceBuffer<u8>>> {
        let Prepared { loaded, layout, buffers } = prepared;
        let one = |rank: usize| {
            let alias = if layout.is_in_place() { layout.alias(loaded.collective, rank) } else { 0 };
            let (elements, skipped) = match inputs {
                true => (layout.input_len(loaded.collective, rank), alias),
                false => (layout.output_len(loaded.collective, rank), -alias),
            };
            let (bytes, skipped) = (elements * loaded.element, usize::try_from(skipped).unwrap_or(0) * loaded.element);
            let own = if inputs { &call.from } else { &call.to };
            match buffers {
                Buffers::Copied { from, to } => {
                    let begin = if inputs { from } else { to } + skipped;
                    memory[rank].part(begin..begin + bytes)
                }
                // More may have been given for one than there is.
                _ if rank == self.rank() => own.part(..bytes),
                Buffers::Own => own.part(..0),
                Buffers::Within { from, to } => {
                    self.members.part_of(if inputs { *from } else { *to }, rank, skipped, bytes)
                }
            }
        };
        (0..layout.world()).map(one).collect()
    }
}

/// The last word of a call that goes by a schedule.
fn how(buffers: &Buffers) -> u64 {
    match buffers {
        Buffers::Within { from, to } => SCHEDULED | WITHIN_REACH | hash([from.word(), to.word()]) >> 2,
        Buffers::Own | Buffers::Copied { .. } => SCHEDULED,
    }
}

impl Members {
    /// The bytes that begin so many behind a place in a rank's memory.
    fn part_of(&self, place: Place, rank: usize, skipped: usize, bytes: usize) -> Result<DeviceBuffer<u8>> {
        let regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = place.offset() as usize + skipped;
        let region = regions
            .get(usize::from(place.region()))
            .and_then(|region| region.get(rank))
            .ok_or_else(|| Error::invalid(format!("rank {}: the buffer was deregistered meanwhile", self.rank)))?;
        match bytes {
            0 => region.part(..0),
            _ => region.part(begin..begin + bytes),
        }
    }
}
