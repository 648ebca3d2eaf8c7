// SPDX-License-Identifier: MPL-2.0
//! All memories of a proof: how a place is found in them, and what may be done there.
//!
//! Each call has buffers of its own. Scratch, slots and partials lie one after the other in one memory a rank and stay
//! as the call before left them: what is there is an expression over *that* call's contributions, foreign to this one.
//! The slots of [`Entry::Carries`] lie in the entry records, each a memory of its own, which only such schedules share.

use std::ops::Range;

use super::clocks::Clocks;
use super::declared::Declared;
use super::fault::{Fault, Race, Site};
use super::memory::{Conflict, Memory, Piece};
use super::value::{Expression, State, Value};
use crate::schedule::{Access, Buffer, Entry, Place};

/// What a step does with a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Read,
    Write,
}

impl Use {
    fn verb(self) -> &'static str {
        match self {
            Use::Read => "reads",
            Use::Write => "writes",
        }
    }
}

/// A place that was found, in all its length.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Whose memory, and which.
    rank: usize,
    buffer: Buffer,
    /// The first element, as the buffer counts.
    offset: usize,
    len: usize,
    /// The number of the memory, and the first address in it.
    memory: usize,
    address: usize,
}

impl Found {
    fn addresses(&self) -> Range<usize> {
        self.address..self.address + self.len
    }

    /// Elements of the buffer, for addresses.
    pub(super) fn elements(&self, addresses: &Range<usize>) -> Range<usize> {
        let element =
            |address: usize| address.clamp(self.address, self.address + self.len) - self.address + self.offset;
        element(addresses.start)..element(addresses.end)
    }

    /// Part of the place, in elements of the buffer.
    pub(super) fn part(&self, elements: &Range<usize>) -> Found {
        let address = self.address + (elements.start - self.offset);
        Found { offset: elements.start, len: elements.len(), address, ..self.clone() }
    }

    pub(super) fn overlaps(&self, other: &Found) -> bool {
        self.memory == other.memory
            && self.address < other.address + other.len
            && other.address < self.address + self.len
    }

    pub(super) fn is_exactly(&self, other: &Found) -> bool {
        self.memory == other.memory && self.address == other.address && self.len == other.len
    }

    pub(super) fn holds_accumulators(&self) -> bool {
        matches!(self.buffer, Buffer::Partial(_))
    }

    /// Whose memory, in words.
    pub(super) fn name(&self) -> String {
        let rank = self.rank;
        match self.buffer {
            Buffer::Input => format!("rank {rank}'s input"),
            Buffer::Output => format!("rank {rank}'s output"),
            Buffer::Scratch => format!("rank {rank}'s scratch"),
            Buffer::Slot(index) => format!("rank {rank}'s slot {index}"),
            Buffer::Partial(index) => format!("rank {rank}'s partial {index}"),
        }
    }

    fn race(&self, site: Site, used: Use, conflict: Conflict) -> Fault {
        Fault::Race(Box::new(Race {
            earlier: conflict.earlier,
            earlier_does: conflict.earlier_does,
            later: site,
            later_does: used.verb(),
            memory: self.name(),
            elements: self.elements(&conflict.addresses),
        }))
    }
}

/// What a run of a place holds: `range` counts from the place's beginning, `element` is the element of the message at
/// the run's beginning.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) range: Range<usize>,
    pub(super) expression: Expression,
    pub(super) state: State,
    pub(super) element: isize,
}

/// All memories: the users' buffers, call by call and rank by rank; then each rank's shared memory; then each rank's
/// entry records.
pub(super) struct Arena {
    memories: Vec<Memory>,
    world: usize,
    calls: usize,
    records: usize,
}

/// Where a rank's input and output begin in its user's memory, and that memory's length.
fn user_memory(declared: &Declared, rank: usize) -> (usize, usize, usize) {
    let input_len = declared.layout.input_len(declared.collective, rank);
    let output_len = declared.layout.output_len(declared.collective, rank);
    if !declared.layout.is_in_place() {
        return (0, input_len, input_len + output_len);
    }
    let alias = declared.layout.alias(declared.collective, rank);
    let (input, output) = (alias.max(0) as usize, (-alias).max(0) as usize);
    (input, output, (input + input_len).max(output + output_len))
}

impl Arena {
    pub(super) fn new(sequence: &[&Declared], world: usize) -> Self {
        let mut memories = Vec::new();
        for declared in sequence {
            memories.extend((0..world).map(|rank| Memory::new(user_memory(declared, rank).2)));
        }
        let shared = sequence.iter().map(|declared| {
            let needs = declared.resources;
            needs.scratch + needs.depth * (needs.slot + needs.partial)
        });
        let shared = shared.max().unwrap_or(0);
        memories.extend((0..world).map(|_| Memory::new(shared)));

        let carries = || sequence.iter().filter(|declared| declared.entry == Entry::Carries).map(|d| d.resources);
        let records = carries().map(|needs| needs.depth).max().unwrap_or(0);
        let record = carries().map(|needs| needs.slot).max().unwrap_or(0);
        memories.extend((0..world * records).map(|_| Memory::new(record)));
        Arena { memories, world, calls: sequence.len(), records }
    }

    /// All of a rank's input or output in a call, for its user.
    pub(super) fn user(&self, declared: &Declared, call: usize, rank: usize, buffer: Buffer) -> Found {
        let (input, output, _) = user_memory(declared, rank);
        let (address, len) = match buffer {
            Buffer::Output => (output, declared.layout.output_len(declared.collective, rank)),
            _ => (input, declared.layout.input_len(declared.collective, rank)),
        };
        Found { rank, buffer, offset: 0, len, memory: call * self.world + rank, address }
    }

    /// The place that a step names in a turn, if the step may use it so.
    pub(super) fn find(
        &self,
        declared: &Declared,
        site: Site,
        turn: usize,
        place: Place,
        len: usize,
        used: Use,
    ) -> Result<Found, Fault> {
        let Place { rank, buffer, .. } = place;
        let rule = |rule: String| Err(Fault::Rule { site, rule });
        if rank >= self.world {
            return rule(format!("names rank {rank}; the ranks are 0 to {}", self.world - 1));
        }
        let needs = declared.resources;
        let depth = needs.depth.max(1);
        let rotated = |index: u32| (index as usize + turn) % depth;
        let shared = self.calls * self.world + rank;
        let (memory, begin, limit) = match buffer {
            Buffer::Input | Buffer::Output => {
                let whole = self.user(declared, site.call, rank, buffer);
                (whole.memory, whole.address, whole.len)
            }
            Buffer::Scratch => (shared, 0, needs.scratch),
            Buffer::Slot(index) if declared.entry == Entry::Carries => {
                let record = (index as usize + site.call) % depth;
                ((self.calls + 1) * self.world + rank * self.records + record, 0, needs.slot)
            }
            Buffer::Slot(index) => (shared, needs.scratch + rotated(index) * needs.slot, needs.slot),
            Buffer::Partial(index) => {
                let partials = needs.scratch + depth * needs.slot;
                (shared, partials + rotated(index) * needs.partial, needs.partial)
            }
        };
        let offset = place.stride.saturating_mul(turn).saturating_add(place.offset);
        let found = Found { rank, buffer, offset, len, memory, address: begin.saturating_add(offset) };
        let theirs = matches!(buffer, Buffer::Input | Buffer::Output) && rank != site.rank;
        match declared.access {
            Access::Staged if theirs => {
                return rule(format!("{} {}, which is out of reach under staged access", used.verb(), found.name()));
            }
            Access::Read if theirs && used == Use::Write => {
                return rule(format!("writes {}, which read access does not allow", found.name()));
            }
            _ => {}
        }
        if buffer == Buffer::Input && used == Use::Write {
            return rule(format!("writes {}; results go to the output", found.name()));
        }
        let end = offset.saturating_add(len);
        if end > limit {
            return Err(Fault::Bounds { site, memory: found.name(), elements: offset..end, len: limit });
        }
        Ok(found)
    }

    /// What a place holds, whether it has a value or not.
    pub(super) fn inspect(&mut self, clocks: &Clocks, site: Site, place: &Found) -> Result<Vec<Piece>, Fault> {
        let mut pieces = Vec::new();
        self.memories[place.memory]
            .read(place.addresses(), clocks.event(site), clocks.times(site.rank), &mut pieces)
            .map_err(|conflict| place.race(site, Use::Read, conflict))?;
        Ok(pieces)
    }

    /// What a place holds: everywhere a value, and of the kind that its buffer is for.
    pub(super) fn read(&mut self, clocks: &Clocks, site: Site, place: &Found) -> Result<Vec<Run>, Fault> {
        let run = |piece: Piece| {
            let elements = || place.elements(&(piece.begin..piece.end));
            match piece.value {
                None => Err(Fault::Undefined { site, memory: place.name(), elements: elements() }),
                Some(value) if (value.state == State::Partial) != place.holds_accumulators() => {
                    let rule = "reads elements as accumulators or accumulators as elements: ";
                    Err(Fault::Rule { site, rule: format!("{rule}{:?} of {}", elements(), place.name()) })
                }
                Some(value) => Ok(Run {
                    range: piece.begin - place.address..piece.end - place.address,
                    expression: value.expression,
                    state: value.state,
                    element: value.element(piece.begin),
                }),
            }
        };
        self.inspect(clocks, site, place)?.into_iter().map(run).collect()
    }

    /// Writes runs, which fill the place.
    pub(super) fn write(&mut self, clocks: &Clocks, site: Site, place: &Found, runs: &[Run]) -> Result<(), Fault> {
        let values = runs.iter().map(|run| {
            let begin = place.address + run.range.start;
            let shift = run.element - begin as isize;
            let value = Value { expression: run.expression, state: run.state, shift };
            (begin..place.address + run.range.end, Some(value))
        });
        self.memories[place.memory]
            .write(values, clocks.event(site), clocks.times(site.rank))
            .map_err(|conflict| place.race(site, Use::Write, conflict))
    }

    /// Writes what no call may rely on.
    pub(super) fn scribble(&mut self, clocks: &Clocks, site: Site, place: &Found) -> Result<(), Fault> {
        self.memories[place.memory]
            .write([(place.addresses(), None)], clocks.event(site), clocks.times(site.rank))
            .map_err(|conflict| place.race(site, Use::Write, conflict))
    }
}
