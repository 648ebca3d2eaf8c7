// SPDX-License-Identifier: MPL-2.0
//! The kernels of `kernels/probe.cu` and `kernels/fold.cu`: their code, their arguments, and launches that are safe.
//!
//! Each method checks that the memory it is given is as long as its kernel takes it to be; memory outlives kernels (see
//! `card`). Argument structs mirror those of the sources word for word.
#![allow(unsafe_code)]

use std::time::Duration;

use super::card::{Card, Function, Memory, Shape, Stream};
use crate::driver::cuda::{Fault, ptx};
use crate::element::{DataType, ReduceOp};
use crate::error::{Error, Result};
use crate::kernel::{Fold, SOURCES};

/// The embedded code of `unit` for the newest target that the card runs.
pub(super) fn code(card: &Card, unit: &str) -> Result<&'static str> {
    let capability = card.capability()?;
    let chosen = ptx::chosen(capability).unwrap_or_default().into_iter().find(|code| code.name == unit);
    chosen.map(|code| code.text).ok_or_else(|| {
        let oldest = ptx::oldest();
        Error::unsupported(format!(
            "the card has compute capability {}.{}; the kernels need {}.{} or later",
            capability / 10,
            capability % 10,
            oldest / 10,
            oldest % 10
        ))
    })
}

/// Why a wait in a kernel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Reached,
    Aborted,
    Late,
}

impl Ended {
    pub fn from_word(word: u64) -> Option<Self> {
        [Ended::Reached, Ended::Aborted, Ended::Late].get(usize::try_from(word).ok()?).copied()
    }
}

/// All kernels, loaded for the card.
pub(super) struct Kernels<'a> {
    pub nothing: Function<'a>,
    pub meet: Function<'a>,
    advance: Function<'a>,
    ping: Function<'a>,
    poll: Function<'a>,
    wait: Function<'a>,
    ticks: Function<'a>,
    pub fold_f32: Function<'a>,
    pub fold_bf16: Function<'a>,
}

#[repr(C)]
struct Nothing {
    unused: u32,
}

#[repr(C)]
struct Advance {
    epoch: u64,
    kept: u64,
    length: u32,
}

#[repr(C)]
struct Meet {
    arrivals: u64,
    ended: u64,
    abort: u64,
    patience: u64,
    expected: u32,
}

#[repr(C)]
struct Side {
    mine: u64,
    theirs: u64,
}

#[repr(C)]
struct Ping {
    sides: [Side; 2],
    out: u64,
    abort: u64,
    patience: u64,
    first: u32,
    rounds: u32,
    scope: u32,
}

#[repr(C)]
struct Poll {
    counter: u64,
    abort: u64,
    out: u64,
    looks: u32,
    gate: u32,
}

#[repr(C)]
struct Wait {
    counter: u64,
    abort: u64,
    begun: u64,
    out: u64,
    patience: u64,
    value: u32,
}

#[repr(C)]
struct Ticks {
    out: u64,
    looks: u32,
}

/// How far a flag of [`Kernels::ping`] is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    System = 0,
    Device = 1,
}

/// Which sides of a [`Kernels::ping`] a launch plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sides {
    Serves,
    Returns,
    Both,
}

/// What the blocks of [`Kernels::meet`] share.
pub(super) struct Meeting<'a> {
    pub arrivals: &'a dyn Memory,
    /// Three words, which count how many blocks' waits ended as [`Ended`] says.
    pub ended: &'a dyn Memory,
    pub abort: &'a dyn Memory,
    pub expected: u32,
    pub patience: Duration,
}

/// What [`Kernels::ping`] needs beside its counters.
pub(super) struct Rally<'a> {
    pub sides: Sides,
    pub rounds: u32,
    pub scope: Scope,
    pub patience: Duration,
    pub abort: &'a dyn Memory,
    /// Two long words a side: why it ended, nanoseconds.
    pub out: &'a dyn Memory,
}

/// The memory's address, if it is as long as the kernel takes it to be.
fn checked(memory: &dyn Memory, bytes: usize) -> Result<u64> {
    match memory.bytes() >= bytes {
        true => Ok(memory.address()),
        false => Err(Error::invalid(format!("a kernel needs {bytes} bytes, and was given {}", memory.bytes()))),
    }
}

impl<'a> Kernels<'a> {
    /// The code for the newest target that the card runs.
    pub fn load(card: &'a Card) -> Result<Self> {
        let (probe, fold) = (card.load(code(card, "probe")?)?, card.load(code(card, "fold")?)?);
        Ok(Kernels {
            nothing: probe.function("probe_nothing")?,
            meet: probe.function("probe_meet")?,
            advance: probe.function("probe_advance")?,
            ping: probe.function("probe_ping")?,
            poll: probe.function("probe_poll")?,
            wait: probe.function("probe_wait")?,
            ticks: probe.function("probe_ticks")?,
            fold_f32: fold.function("fold_f32")?,
            fold_bf16: fold.function("fold_bf16")?,
        })
    }

    /// Does nothing.
    pub fn nothing(&self, stream: &Stream, shape: Shape) -> Result<(), Fault> {
        Kernels::launch_nothing(&self.nothing, stream, shape)
    }

    /// Launches a `probe_nothing` that was loaded apart.
    pub fn launch_nothing(function: &Function, stream: &Stream, shape: Shape) -> Result<(), Fault> {
        // SAFETY: the kernel takes a `Nothing`, without addresses.
        unsafe { function.launch(stream, shape, Nothing { unused: 0 }) }
    }

    /// Raises the first word of `epoch` by one and keeps it in `kept`.
    pub fn advance(&self, stream: &Stream, epoch: &dyn Memory, kept: &dyn Memory) -> Result<()> {
        let length = u32::try_from(kept.bytes() / 4).unwrap_or(u32::MAX);
        let arguments = Advance { epoch: checked(epoch, 4)?, kept: checked(kept, 4)?, length };
        // SAFETY: the kernel takes an `Advance`, and writes `length` words of `kept` at the most.
        Ok(unsafe { self.advance.launch(stream, Shape::new(1, 32), arguments) }?)
    }

    /// Every block adds itself to the first word of `arrivals` and waits until there are as many as are expected.
    pub fn meet(&self, stream: &Stream, shape: Shape, meeting: &Meeting) -> Result<()> {
        let arguments = Meet {
            arrivals: checked(meeting.arrivals, 4)?,
            ended: checked(meeting.ended, 12)?,
            abort: checked(meeting.abort, 4)?,
            patience: meeting.patience.as_nanos() as u64,
            expected: meeting.expected,
        };
        // SAFETY: the kernel takes a `Meet`.
        Ok(unsafe { self.meet.launch(stream, shape, arguments) }?)
    }

    /// Two sides answer each other's counter. `counters` are the serving side's and the returning side's.
    pub fn ping(&self, stream: &Stream, counters: [&dyn Memory; 2], rally: &Rally) -> Result<()> {
        let [serves, returns] = [checked(counters[0], 4)?, checked(counters[1], 4)?];
        let (first, blocks) = match rally.sides {
            Sides::Serves => (0, 1),
            Sides::Returns => (1, 1),
            Sides::Both => (0, 2),
        };
        let arguments = Ping {
            sides: [Side { mine: serves, theirs: returns }, Side { mine: returns, theirs: serves }],
            out: checked(rally.out, 32)?,
            abort: checked(rally.abort, 4)?,
            patience: rally.patience.as_nanos() as u64,
            first,
            rounds: rally.rounds,
            scope: rally.scope as u32,
        };
        // SAFETY: the kernel takes a `Ping`.
        Ok(unsafe { self.ping.launch(stream, Shape::new(blocks, 32), arguments) }?)
    }

    /// Looks `looks` times at `counter`, and every `gate`-th time at `abort`; three long words of `out` say how long
    /// that took.
    pub fn poll(
        &self,
        stream: &Stream,
        counter: &dyn Memory,
        abort: &dyn Memory,
        out: &dyn Memory,
        looks: u32,
        gate: u32,
    ) -> Result<()> {
        let arguments =
            Poll { counter: checked(counter, 4)?, abort: checked(abort, 4)?, out: checked(out, 24)?, looks, gate };
        // SAFETY: the kernel takes a `Poll`.
        Ok(unsafe { self.poll.launch(stream, Shape::new(1, 32), arguments) }?)
    }

    /// Waits until `counter` is at least 1; sets the first word of `begun` first, and in the end two long words of
    /// `out` to why it ended and how long it took.
    pub fn wait(
        &self,
        stream: &Stream,
        counter: &dyn Memory,
        abort: &dyn Memory,
        begun: &dyn Memory,
        out: &dyn Memory,
        patience: Duration,
    ) -> Result<()> {
        let arguments = Wait {
            counter: checked(counter, 4)?,
            abort: checked(abort, 4)?,
            begun: checked(begun, 4)?,
            out: checked(out, 16)?,
            patience: patience.as_nanos() as u64,
            value: 1,
        };
        // SAFETY: the kernel takes a `Wait`.
        Ok(unsafe { self.wait.launch(stream, Shape::new(1, 32), arguments) }?)
    }

    /// Reads the clock `looks` times; four long words of `out` say what it was seen to do.
    pub fn ticks(&self, stream: &Stream, out: &dyn Memory, looks: u32) -> Result<()> {
        let arguments = Ticks { out: checked(out, 32)?, looks };
        // SAFETY: the kernel takes a `Ticks`.
        Ok(unsafe { self.ticks.launch(stream, Shape::new(1, 32), arguments) }?)
    }

    /// Adds `elements` elements of `bytes` bytes each of all of `from` into `to`, by `fold_f32` or `fold_bf16`.
    pub fn fold(
        &self,
        stream: &Stream,
        shape: Shape,
        bf16: bool,
        from: &[&dyn Memory],
        to: &dyn Memory,
        elements: usize,
    ) -> Result<()> {
        let (function, data_type) =
            if bf16 { (&self.fold_bf16, DataType::Bf16) } else { (&self.fold_f32, DataType::F32) };
        if from.is_empty() || from.len() > SOURCES {
            return Err(Error::invalid(format!("the fold takes 1 to {SOURCES} sources, not {}", from.len())));
        }
        let bytes = elements * data_type.size();
        let addresses = from.iter().map(|memory| checked(*memory, bytes)).collect::<Result<Vec<_>>>()?;
        let arguments = Fold::new(ReduceOp::Sum, data_type, elements, &addresses, &[checked(to, bytes)?], from.len());
        // SAFETY: the kernel takes a `Fold`.
        Ok(unsafe { function.launch(stream, shape, arguments) }?)
    }
}
