// SPDX-License-Identifier: MPL-2.0
//! The executor: walks a loaded program, a bounded piece at a time.
//!
//! A piece is at most [`PIECE`] elements of one copy or fold, a signal, or a wait that has come true. Between pieces the
//! caller may let go of its lock, and a piece is what an access window spans, so neither a starting call nor a failing
//! peer waits long. A user's operator may take as long as it likes: it works on copies, while no window is open.
#![allow(unsafe_code)] // turns places into addresses and hands them to the fold

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::addresses::Addresses;
use super::failure;
use super::loaded::Loaded;
use super::operator::Combine;
use super::owed::Owed;
use crate::error::Error;
use crate::reduce::{self, DefaultEnvironment, Destination, Fold, Kind, Source, Stores};
use crate::schedule::{Access, Buffer, Place, Step};
use crate::transport::Transport;
use crate::transport::page::{Channel, Page};
use crate::transport::peers::Peers;

/// The most bytes of one buffer that a piece covers.
const PIECE: usize = 256 << 10;

/// The most bytes of one buffer that a user's operator is given: two copies of so many stay in the first-level cache.
const BLOCK: usize = 8 << 10;

/// The most bytes that a fold has brought from peers' private memory at a time: they stay in the second-level cache.
const BROUGHT: usize = 128 << 10;

/// Bytes that are moved before peers that sleep are woken.
const LITTLE: usize = 4 << 10;

/// Where a program stands.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cursor {
    step: usize,
    segment: usize,
    inner: usize,
    /// Elements of the current step that are done.
    done: usize,
}

/// What became of an attempt to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Went {
    /// A piece is done, and there is more.
    On,
    /// A wait has not come true: this rank's flag has not reached this value.
    Blocked(Awaited),
    /// The program is done.
    Through,
    /// Somebody poisoned the communicator.
    Poisoned,
    /// The user's operator panicked: the lists have its message.
    Panicked,
    /// The system refused something: the lists have its error.
    Refused,
}

/// What a call is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// Some rank's entry; the first one that is missing.
    Entry(usize),
    /// The summary of some leader's group; the first one that is missing.
    Summary(usize),
    /// A rank's flag.
    Flag {
        /// The flag's writer.
        rank: usize,
        /// Which flag.
        flag: usize,
        /// The value it must reach.
        value: u64,
    },
    /// The end of a rank whose memory is gone already.
    End(usize),
}

impl Awaited {
    /// Whether what was awaited has come.
    pub fn is_there(&self, transport: &dyn Transport, channel: usize, epoch: u64) -> bool {
        match *self {
            Awaited::Entry(rank) => transport.channel(rank, channel).record(epoch).has_entered(epoch),
            Awaited::Summary(leader) => transport.channel(leader, channel).summary(epoch).is_published(epoch),
            Awaited::Flag { rank, flag, value } => transport.channel(rank, channel).has_reached(flag, value),
            Awaited::End(_) => false,
        }
    }
}

/// Lists that a step fills, kept between steps so that a call allocates nothing.
#[derive(Default)]
pub(crate) struct Lists {
    from: Vec<Source>,
    to: Vec<Destination>,
    copies: Vec<*mut u8>,
    /// What a user's operator folds into, and what it folds in; in words, so that elements of any type are aligned.
    private: [Vec<u64>; 2],
    /// What has been copied from peers' private memory to be folded.
    brought: Vec<u64>,
    /// What a user's operator said when it panicked.
    pub panic: Option<String>,
    /// What the system refused.
    pub refused: Option<Error>,
}

// SAFETY: addresses are values; who dereferences them, and when, is the executor's affair. The lists are empty between steps.
unsafe impl Send for Lists {}

/// One call's surroundings.
pub(crate) struct Execution<'a> {
    pub transport: &'a Peers,
    pub loaded: &'a Loaded,
    pub addresses: &'a Addresses,
    pub lists: &'a mut Lists,
    pub fold: Option<Fold>,
    /// What folds instead, in a call with an operation of one's own.
    pub operator: Option<&'a Combine>,
    pub channel: usize,
    pub base: u64,
    pub stores: Stores,
    /// Whom to wake for what this rank has signalled.
    pub owed: &'a mut Owed,
}

impl Execution<'_> {
    fn own_channel(&self) -> &Channel {
        self.transport.channel(self.transport.rank(), self.channel)
    }

    /// Does the next piece.
    pub fn go_on(&mut self, cursor: &mut Cursor) -> Went {
        loop {
            let Some(step) = self.loaded.steps.get(cursor.step) else { return Went::Through };
            let (step, segment) = match step {
                Step::Repeat { segments, body } => match body.get(cursor.inner) {
                    Some(inner) if cursor.segment < *segments => (inner, cursor.segment),
                    None if cursor.segment + 1 < *segments => {
                        (cursor.segment, cursor.inner) = (cursor.segment + 1, 0);
                        continue;
                    }
                    _ => {
                        *cursor = Cursor { step: cursor.step + 1, ..Cursor::default() };
                        continue;
                    }
                },
                step => (step, 0),
            };
            let went = self.piece(step, segment, &mut cursor.done);
            if went != Went::On {
                return went;
            }
            if cursor.done == 0 {
                match self.loaded.steps[cursor.step] {
                    Step::Repeat { .. } => cursor.inner += 1,
                    _ => cursor.step += 1,
                }
            }
            if matches!(step, Step::Copy { .. } | Step::Fold { .. }) {
                return Went::On;
            }
        }
    }

    /// The copies into this rank's own payload that precede an entry which the program carries. They touch no peer.
    pub fn before_entry(&mut self) {
        let loaded = self.loaded;
        for step in &loaded.before {
            if let Step::Copy { from, to, len } = step {
                self.copy(from, to, 0, 0, *len);
            }
        }
    }

    /// One piece of a step. `done` is 0 again once the step is complete.
    fn piece(&mut self, step: &Step, segment: usize, done: &mut usize) -> Went {
        match step {
            Step::Copy { from, to, len } => {
                let elements = (*len - *done).min(PIECE / self.loaded.element);
                self.pay_before(elements);
                let foreign = self.is_foreign(from) || to.iter().any(|place| self.is_foreign(place));
                let went = match self.is_away(from) {
                    true => self.bring_copy(from, to, segment, *done, elements),
                    false => self.inside_window(foreign, |this| this.copy(from, to, segment, *done, elements)),
                };
                if went != Went::On {
                    return went;
                }
                *done = if *done + elements == *len { 0 } else { *done + elements };
                Went::On
            }
            Step::Fold { from, to, len } => {
                let away = from.iter().filter(|place| self.is_away(place)).count();
                let most = match (&self.operator, away) {
                    (Some(_), _) => BLOCK,
                    (None, 0) => PIECE,
                    (None, away) => (BROUGHT / away).max(BLOCK),
                };
                let elements = (*len - *done).min(most / self.loaded.accumulator);
                self.pay_before(elements);
                let went = match self.operator {
                    Some(operator) => self.fold_privately(operator, from, to, segment, *done, elements),
                    None => {
                        let foreign = from.iter().chain(to).any(|place| self.is_foreign(place));
                        let went = if away > 0 { self.bring(from, segment, *done, elements) } else { Went::On };
                        match went {
                            Went::On => {
                                self.inside_window(foreign, |this| this.fold(from, to, segment, *done, elements))
                            }
                            went => went,
                        }
                    }
                };
                if went != Went::On {
                    return went;
                }
                *done = if *done + elements == *len { 0 } else { *done + elements };
                Went::On
            }
            Step::Signal { flag, to, value, stride } => {
                self.own_channel().signal(*flag as usize, self.value(*value, *stride, segment));
                if !to.is_empty() {
                    *self.owed = Owed::Everybody;
                }
                Went::On
            }
            Step::Wait { rank, flag, value, stride } => {
                let (flag, value) = (*flag as usize, self.value(*value, *stride, segment));
                // At the base nothing is awaited; the flag itself may be lower, where earlier calls did not use it.
                if value == self.base || self.transport.channel(*rank, self.channel).has_reached(flag, value) {
                    Went::On
                } else {
                    Went::Blocked(Awaited::Flag { rank: *rank, flag, value })
                }
            }
            // Refused when the program was loaded.
            Step::Repeat { .. } => Went::Through,
        }
    }

    /// The value of a flag: relative to the call's base; values below 1 have always been reached.
    fn value(&self, value: i64, stride: i64, segment: usize) -> u64 {
        let relative = value.saturating_add(stride.saturating_mul(segment as i64));
        self.base + relative.max(0) as u64
    }

    /// Whether a place is a peer's own buffer, which may be touched only inside a window. Regions and payloads are never
    /// given back while a peer is there, so they need none.
    fn is_foreign(&self, place: &Place) -> bool {
        self.loaded.access != Access::Staged
            && matches!(place.buffer, Buffer::Input | Buffer::Output)
            && place.rank != self.transport.rank()
            && !self.is_away(place)
    }

    /// Whether a place is in a peer's private memory, from where it is copied by the system. Only read access comes there:
    /// direct access has all buffers here, and staged access none of peers.
    fn is_away(&self, place: &Place) -> bool {
        self.loaded.access == Access::Read && self.addresses.is_away(place)
    }

    /// Wakes peers before much data is moved.
    fn pay_before(&mut self, elements: usize) {
        if elements * self.loaded.accumulator > LITTLE {
            self.owed.pay(self.transport);
        }
    }

    fn inside_window(&mut self, foreign: bool, work: impl FnOnce(&mut Self)) -> Went {
        if !foreign {
            work(self);
            return Went::On;
        }
        let transport = self.transport;
        let own: &Page = transport.page(transport.rank());
        if !own.open_window(transport.root()) {
            return Went::Poisoned;
        }
        let _open = OpenWindow(own);
        work(self);
        // Among processes a peer that fails does not wait for its inputs' readers.
        self.on_if_sound()
    }

    /// On, unless what was just read of a peer may be anything, since the communicator has failed meanwhile.
    fn on_if_sound(&self) -> Went {
        match self.transport.root().was_sound() {
            true => Went::On,
            false => Went::Poisoned,
        }
    }

    /// Copies bytes of a peer's private memory to `to`, which nobody else touches.
    ///
    /// No window: a peer that fails returns to its user at once, and what is read then may be anything. Its poison was
    /// set, and fenced, before; so a look at the poison that comes after the read tells whether what was read is good.
    fn read(&mut self, place: &Place, segment: usize, done: usize, to: &mut [u8]) -> Went {
        let transport = self.transport;
        let from = self.address(place, segment, done).addr();
        match transport.read(place.rank, from, to) {
            Ok(true) => {}
            Ok(false) => return Went::Blocked(Awaited::End(place.rank)),
            Err(_) if transport.root().poisoned_by().is_some() => return Went::Poisoned,
            Err(error) => {
                self.lists.refused = Some(error);
                return Went::Refused;
            }
        }
        self.on_if_sound()
    }

    /// Copies from a peer's private memory.
    fn bring_copy(&mut self, from: &Place, to: &[Place], segment: usize, done: usize, elements: usize) -> Went {
        let Some((first, rest)) = to.split_first().filter(|_| elements > 0) else { return Went::On };
        let (address, bytes) = (self.address(first, segment, done), elements * self.loaded.element);
        // SAFETY: as in `copy`. What is written lies in this rank's buffer, or in shared memory, since `Loaded::check`
        // allows nothing else under read access; and it is initialised, as buffers and regions always are.
        let to = unsafe { std::slice::from_raw_parts_mut(address, bytes) };
        let went = self.read(from, segment, done, to);
        if went == Went::On && !rest.is_empty() {
            self.copy(first, rest, segment, done, elements);
        }
        went
    }

    /// Copies what a fold reads of peers' private memory to where `brought` finds it.
    fn bring(&mut self, from: &[Place], segment: usize, done: usize, elements: usize) -> Went {
        let words = (elements * self.loaded.element).div_ceil(8);
        let mut brought = std::mem::take(&mut self.lists.brought);
        let mut went = Went::On;
        let away = from.iter().filter(|place| self.is_away(place)).count();
        brought.resize(brought.len().max(away * words), 0);
        let addresses = self.addresses;
        let places = from.iter().filter(|place| addresses.is_away(place) && elements > 0);
        for (place, to) in places.zip(brought.chunks_exact_mut(words.max(1))) {
            let bytes = &mut bytemuck::cast_slice_mut::<u64, u8>(to)[..elements * self.loaded.element];
            went = self.read(place, segment, done, bytes);
            if went != Went::On {
                break;
            }
        }
        self.lists.brought = brought;
        went
    }

    /// The address of a place in turn `segment`, `done` elements on.
    fn address(&self, place: &Place, segment: usize, done: usize) -> *mut u8 {
        let loaded = self.loaded;
        let turn = |index: u32, bytes: usize| ((index as usize + segment) % loaded.resources.depth) * bytes;
        let at = place.offset + place.stride * segment + done;
        let (base, bytes) = match place.buffer {
            Buffer::Input => (self.addresses.inputs[place.rank], at * loaded.element),
            Buffer::Output => (self.addresses.outputs[place.rank], at * loaded.element),
            Buffer::Scratch => (self.addresses.regions[place.rank], at * loaded.element),
            // The record of this call's epoch is the slot; the rotation has been taken care of by choosing it.
            Buffer::Slot(_) if loaded.carries => (self.addresses.regions[place.rank], at * loaded.element),
            Buffer::Slot(index) => (
                self.addresses.regions[place.rank],
                loaded.slots_at + turn(index, loaded.slot_bytes) + at * loaded.element,
            ),
            Buffer::Partial(index) => (
                self.addresses.regions[place.rank],
                loaded.partials_at + turn(index, loaded.partial_bytes) + at * loaded.accumulator,
            ),
        };
        base.wrapping_add(bytes)
    }

    /// Whether what is stored there goes past the caches: only where nobody reads it again before the call's end.
    fn goes_past(&self, place: &Place) -> bool {
        self.stores == Stores::Streaming && place.buffer == Buffer::Output
    }

    fn copy(&mut self, from: &Place, to: &[Place], segment: usize, done: usize, elements: usize) {
        if elements == 0 {
            return;
        }
        let source = self.address(from, segment, done);
        let bytes = elements * self.loaded.element;
        let mut copies = std::mem::take(&mut self.lists.copies);
        // What peers read comes first; the source is in the cache then.
        let both = [Stores::Cached, Stores::Streaming];
        for &stores in &both[..1 + usize::from(self.stores == Stores::Streaming)] {
            let there = to.iter().filter(|place| self.goes_past(place) == (stores == Stores::Streaming));
            copies.extend(there.map(|place| self.address(place, segment, done)));
            // SAFETY: `Loaded::check` proved that every place lies within its buffer, and the call's entry that each
            // address begins a buffer of that length. Nobody else writes the source or touches the destinations now: for
            // built-ins that is proved by the tests' sweep of `verify`, for users' schedules by their `Verified`; buffers
            // of peers stay valid while this rank's window is open, regions and payloads as long as the transport.
            unsafe { reduce::copy(source, &copies, bytes, stores) };
            copies.clear();
        }
        self.lists.copies = copies;
    }

    fn fold(&mut self, from: &[Place], to: &[Place], segment: usize, done: usize, elements: usize) {
        let Some(fold) = self.fold.filter(|_| elements > 0) else { return };
        let kind = |place: &Place| match place.buffer {
            Buffer::Partial(_) => Kind::Accumulator,
            _ => Kind::Element,
        };
        let (mut sources, mut destinations) =
            (std::mem::take(&mut self.lists.from), std::mem::take(&mut self.lists.to));
        let address = |place| self.address(place, segment, done);
        // What `bring` has put there, one source after the other.
        let (mut next, words) = (self.lists.brought.as_ptr(), (elements * self.loaded.element).div_ceil(8));
        sources.extend(from.iter().map(|place| {
            let data = match self.is_away(place) {
                true => {
                    let here = next;
                    next = here.wrapping_add(words);
                    here.cast()
                }
                false => address(place).cast_const(),
            };
            Source { data, kind: kind(place) }
        }));
        // A result that peers read as well is stored for them first, and from there past the caches.
        let streams = self.stores == Stores::Streaming;
        let is_shared = |place: &&Place| streams && !self.goes_past(place) && kind(place) == Kind::Element;
        let shared = to.iter().find(is_shared);
        let all_past = streams && to.iter().all(|place| self.goes_past(place));
        let is_late = |place: &&Place| shared.is_some() && self.goes_past(place);
        let now = to.iter().filter(|place| !is_late(place));
        destinations.extend(now.map(|place| Destination { data: address(place), kind: kind(place) }));
        let stores = if all_past { self.stores } else { Stores::Cached };
        // SAFETY: as in `copy`; `Partial` places hold accumulators because only folds write them.
        unsafe { fold.run(&sources, &destinations, elements, stores) };
        for (late, shared) in to.iter().filter(is_late).zip(shared.into_iter().cycle()) {
            let bytes = elements * self.loaded.element;
            // SAFETY: as in `copy`; both were destinations of the fold.
            unsafe { reduce::copy(address(shared), &[address(late)], bytes, Stores::Streaming) };
        }
        sources.clear();
        destinations.clear();
        (self.lists.from, self.lists.to) = (sources, destinations);
    }

    /// Folds by a user's operator, whose accumulators are elements: all sources are copied and folded, one after the
    /// other, before any destination is written.
    fn fold_privately(
        &mut self,
        operator: &Combine,
        from: &[Place],
        to: &[Place],
        segment: usize,
        done: usize,
        elements: usize,
    ) -> Went {
        if elements == 0 {
            return Went::On;
        }
        let bytes = elements * self.loaded.element;
        let mut private = std::mem::take(&mut self.lists.private);
        let [folded, next] = private.each_mut().map(|words| {
            words.resize(words.len().max(bytes.div_ceil(8)), 0);
            &mut bytemuck::cast_slice_mut::<u64, u8>(words)[..bytes]
        });
        for (turn, place) in from.iter().enumerate() {
            let source = self.address(place, segment, done);
            let copy = if turn == 0 { &mut *folded } else { &mut *next };
            // SAFETY: as in `copy`; the private copy is this call's alone, and as long.
            let read = |_: &mut Self| unsafe { reduce::copy(source, &[copy.as_mut_ptr()], bytes, Stores::Cached) };
            let went = match self.is_away(place) {
                true => self.read(place, segment, done, copy),
                false => self.inside_window(self.is_foreign(place), read),
            };
            if went != Went::On {
                self.lists.private = private;
                return went;
            }
            if turn > 0 {
                // What the operator leaves behind it when it panics is seen by nobody: the call fails.
                let combine = || {
                    let _environment = DefaultEnvironment::enter();
                    operator(folded, next);
                };
                if let Err(panic) = catch_unwind(AssertUnwindSafe(combine)) {
                    self.lists.panic = Some(failure::message(&*panic));
                    // Dropping it might panic again.
                    std::mem::forget(panic);
                    return Went::Panicked;
                }
            }
        }
        let mut copies = std::mem::take(&mut self.lists.copies);
        copies.extend(to.iter().map(|place| self.address(place, segment, done)));
        let foreign = to.iter().any(|place| self.is_foreign(place));
        // SAFETY: as in `copy`; destinations do not overlap the private copy.
        let write = |_: &mut Self| unsafe { reduce::copy(folded.as_ptr(), &copies, bytes, Stores::Cached) };
        let wrote = self.inside_window(foreign, write);
        copies.clear();
        (self.lists.copies, self.lists.private) = (copies, private);
        wrote
    }
}

/// Closes the window when dropped, also by unwinding.
struct OpenWindow<'a>(&'a Page);

impl Drop for OpenWindow<'_> {
    fn drop(&mut self) {
        self.0.close_window();
    }
}
