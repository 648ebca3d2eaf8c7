// SPDX-License-Identifier: MPL-2.0
//! Streams: operations in order, enqueued without waiting for them.
//!
//! `enqueue` is the one door to a stream. It lets go of what has been done, waits where the stream is too far ahead
//! (`queue`), has the device wait for earlier uses of the same memory on other streams, enqueues, marks the place, and
//! holds what the operation uses until the mark has passed. While a stream captures, all of that is the graph's to do,
//! each time it is launched.
#![allow(unsafe_code)]

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::allocation::{Locked, Usage};
use super::backend::{Backend, Failure, GraphId, StreamId};
use super::device::{Core, Device};
use super::event::Event;
use super::faults::{FaultWords, Watched};
use super::mark::{self, Kept, Mark, Pending};
use super::queue::Outstanding;
use crate::error::{Error, Result};

/// A queue of operations of one device, done in the order in which they were enqueued. Clones are the same stream.
///
/// All calls but [`synchronize`](Stream::synchronize) and those that read return at once, as long as fewer than about a
/// hundred operations of the device have not been done; further ahead, they wait for half of those of their stream. What an
/// operation uses is kept until it has been done, also when all handles are dropped before.
#[derive(Clone)]
pub struct Stream {
    pub(super) core: Arc<StreamCore>,
}

/// A stream, if it is still there.
#[derive(Clone)]
pub(crate) struct WeakStream(Weak<StreamCore>);

impl WeakStream {
    pub fn is(&self, stream: &Stream) -> bool {
        std::ptr::eq(self.0.as_ptr(), Arc::as_ptr(&stream.core))
    }

    pub fn is_there(&self) -> bool {
        self.0.strong_count() > 0
    }

    pub fn upgrade(&self) -> Option<Stream> {
        self.0.upgrade().map(|core| Stream { core })
    }
}

pub(super) struct StreamCore {
    pub device: Arc<Core>,
    id: StreamId,
    /// Its number in this process.
    number: u64,
    faults: FaultWords,
    watched: Arc<Watched>,
    state: Mutex<State>,
    /// Whoever ends the stream, if it is not this.
    owner: Option<Kept>,
}

#[derive(Default)]
struct State {
    pending: VecDeque<Pending>,
    capture: Option<Captured>,
}

/// What a captured graph needs, each time it is launched.
#[derive(Default)]
pub(super) struct Captured {
    /// How many there are.
    pub operations: usize,
    pub usages: Vec<Usage>,
    pub kept: Vec<Kept>,
}

impl Captured {
    /// Lets go of what is there twice. Calls of one graph mostly use the same memory, and each launch notes every use. Since
    /// all are of one operation to the notes, one of several that are equal says as much, wherever it is among the others.
    fn once_each(&mut self) {
        let mut seen = HashSet::new();
        self.usages.retain(|usage| seen.insert((Arc::as_ptr(&usage.allocation), usage.range.clone(), usage.access)));
        let mut seen = HashSet::new();
        self.kept.retain(|kept| seen.insert(Arc::as_ptr(kept).cast::<()>()));
    }
}

impl Stream {
    pub(super) fn new(device: &Arc<Core>, urgent: bool) -> Result<Stream> {
        let created = || {
            device.backend.create_stream(urgent).map_err(|failure| {
                device.failed(
                    "making a stream",
                    &failure,
                    "drop streams that are no longer used, or allow more threads",
                )
            })
        };
        Stream::of(device, created, None)
    }

    /// The stream of an id; of an owner's, who keeps it as long as this does.
    pub(super) fn of(device: &Arc<Core>, id: impl FnOnce() -> Result<StreamId>, owner: Option<Kept>) -> Result<Stream> {
        // Relaxed: numbers only have to differ.
        static STREAMS: AtomicU64 = AtomicU64::new(0);
        let number = STREAMS.fetch_add(1, Ordering::Relaxed);
        device.sweep();
        let name = format!("stream {number} of {device}");
        let faults = FaultWords::new(device, move |words| {
            Error::System(format!("a kernel on {name} reported a fault: its words are {words:x?}").into())
        })?;
        let id = id()?;
        if owner.is_some() {
            let borrowed = device.backend.borrow_stream(id);
            borrowed.map_err(|failure| device.failed("borrowing a stream", &failure, "drop some streams"))?;
        }
        let watched = Arc::new(Watched::new(faults.clone()));
        let core = StreamCore { device: device.clone(), id, number, faults, watched, state: Mutex::default(), owner };
        let stream = Stream { core: Arc::new(core) };
        device.queue.add(stream.downgrade());
        Ok(stream)
    }

    pub(crate) fn downgrade(&self) -> WeakStream {
        WeakStream(Arc::downgrade(&self.core))
    }

    /// The device whose stream it is.
    pub fn device(&self) -> Device {
        Device { core: self.core.device.clone() }
    }

    /// The words in which kernels on this stream report faults, where nothing else was agreed with them.
    pub fn fault_words(&self) -> &FaultWords {
        &self.core.faults
    }

    /// From now on `synchronize`, event waits and reads of this stream return the first fault of these words too.
    pub fn watch(&self, faults: &FaultWords) {
        self.core.watched.add_all(std::slice::from_ref(faults));
    }

    /// Waits until all that was enqueued has been done.
    ///
    /// # Errors
    ///
    /// The first fault of the stream, and again each time; `InvalidArgument` while it captures.
    pub fn synchronize(&self) -> Result<()> {
        self.refuse_in_capture("synchronize")?;
        // SAFETY: the stream lives as long as its core.
        let done = unsafe { self.core.device.backend.synchronize_stream(self.core.id) };
        self.let_go();
        if let Err(failure) = done {
            self.core.faults.report(self.failed("what was enqueued", &failure));
        }
        self.core.watched.look()
    }

    /// Makes the event stand for all that has been enqueued so far.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` where the event is of another device, or while the stream captures; `System` where the driver refuses.
    pub fn record(&self, event: &Event) -> Result<()> {
        if !Arc::ptr_eq(&event.core.device, &self.core.device) {
            return Err(Error::invalid(format!(
                "an event of {} cannot be recorded on {self}; make one of that device",
                event.core.device
            )));
        }
        self.command("record an event", |backend, stream| {
            // SAFETY: both live, and the stream captures nothing.
            unsafe { backend.record_event(event.core.id, stream) }?;
            event.core.recorded_on(&self.core.watched);
            Ok(())
        })
    }

    /// Makes what is enqueued later wait for the event as it was recorded last, on any stream of any device of the same
    /// platform. An event that was not recorded is not waited for.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` where the event is of another platform, or while the stream captures; `System` where the driver
    /// refuses.
    pub fn wait(&self, event: &Event) -> Result<()> {
        if !event.core.device.same_platform(&self.core.device) {
            return Err(Error::invalid(format!("{self} cannot wait for an event of {}", event.core.device)));
        }
        self.command("wait for an event", |backend, stream| {
            self.core.watched.add_all(&event.core.faults());
            // SAFETY: both live and are of one platform, and the stream captures nothing.
            unsafe { backend.wait_event(stream, event.core.id) }
        })
    }

    /// Enqueues what uses no memory and can be in no graph; it counts as an operation. While it is done the stream's lock
    /// is held, so that no capture begins.
    fn command(&self, what: &str, command: impl FnOnce(&dyn Backend, StreamId) -> Result<(), Failure>) -> Result<()> {
        let device = &self.core.device;
        let (_done, mut state) = self.with_room(1);
        self.refuse_capturing(&state, what)?;
        let mark = Mark::new(device);
        mark.and_then(|mark| {
            command(&*device.backend, self.core.id)?;
            self.mark(&mut state, &mark, Vec::new(), 1)
        })
        .map_err(|failure| self.failed(format_args!("an attempt to {what}"), &failure))
    }

    /// Enqueues an operation that uses memory as said and needs `kept` until it has been done.
    pub(super) fn enqueue(
        &self,
        what: impl fmt::Display,
        usages: Vec<Usage>,
        kept: Vec<Kept>,
        operation: impl FnOnce(&dyn Backend, StreamId) -> Result<(), Failure>,
    ) -> Result<()> {
        self.enqueue_after(what, usages, kept, None, 1, operation).map(drop)
    }

    /// The same, after `before`, of what counts as so many operations; the mark behind it, unless the stream captures.
    pub(super) fn enqueue_after(
        &self,
        what: impl fmt::Display,
        usages: Vec<Usage>,
        mut kept: Vec<Kept>,
        before: Option<Arc<Mark>>,
        weight: usize,
        operation: impl FnOnce(&dyn Backend, StreamId) -> Result<(), Failure>,
    ) -> Result<Option<Arc<Mark>>> {
        let (device, id) = (&self.core.device, self.core.id);
        let failed = |failure: Failure| self.failed(&what, &failure);
        // `done` is dropped after the lock is given up, whatever comes: what was kept may hold the last handle of anything.
        let (done, mut state) = self.with_room(weight);
        if let Some(capture) = &mut state.capture {
            capture.operations += weight;
            // What fails may have been captured in part.
            let operated = operation(&*device.backend, id);
            capture.usages.extend(usages);
            capture.kept.append(&mut kept);
            return operated.map(|()| None).map_err(failed);
        }
        self.refuse_captured(&what)?;
        let mark = Mark::new(device).map_err(failed)?;
        let mut notes = Locked::new(&usages);
        let (marks, faults) = notes.before(self.core.number);
        for earlier in marks.iter().chain(&before) {
            // SAFETY: the event lives as long as its mark and is of this platform, since the memory is; the stream
            // lives, and captures nothing while its lock is held.
            unsafe { device.backend.wait_event(id, earlier.event()) }.map_err(failed)?;
        }
        // What fails may have been enqueued in part, so its memory is held until the stream has passed it all the same.
        let operated = operation(&*device.backend, id);
        faults.iter().for_each(|faults| self.core.watched.add_all(&faults.all()));
        kept.extend(usages.iter().map(|usage| usage.allocation.clone() as Kept));
        if let Err(failure) = self.mark(&mut state, &mark, kept, weight) {
            return Err(failed(operated.err().unwrap_or(failure)));
        }
        notes.note(self.core.number, &self.core.watched, &mark);
        drop(state);
        drop(done);
        operated.map(|()| Some(mark)).map_err(failed)
    }

    /// Marks the place behind an operation that needs `kept` until then. The stream captures nothing.
    fn mark(&self, state: &mut State, mark: &Arc<Mark>, kept: Vec<Kept>, weight: usize) -> Result<(), Failure> {
        let device = &self.core.device;
        // SAFETY: the event is the mark's, and the stream captures nothing.
        if let Err(failure) = unsafe { device.backend.record_event(mark.event(), self.core.id) } {
            // Nobody will know when the operation has been done: what it uses stays for ever.
            std::mem::forget(kept);
            return Err(failure);
        }
        let outstanding = Outstanding::new(device, weight);
        state.pending.push_back(Pending { mark: mark.clone(), _kept: kept, outstanding });
        Ok(())
    }

    /// What has been done, to be dropped when no lock is held, and the stream's state, once it captures or may have so many
    /// more operations outstanding. Called with no lock held that a stream needs to come to its end.
    fn with_room(&self, weight: usize) -> (Vec<Pending>, MutexGuard<'_, State>) {
        let queue = &self.core.device.queue;
        let mut is_first = true;
        loop {
            let mut state = self.core.state.lock().unwrap_or_else(PoisonError::into_inner);
            let done = if state.capture.is_some() { Vec::new() } else { mark::done(&mut state.pending) };
            if state.capture.is_some() || queue.has_room(&state.pending, weight) {
                return (done, state);
            }
            // Half of it: then the device has something to do meanwhile, and not each operation is waited for.
            let middle = state.pending[state.pending.len() / 2].mark.clone();
            drop(state);
            drop(done);
            if std::mem::take(&mut is_first) {
                // Streams that are left alone have not noticed what they have done.
                queue.let_go();
                continue;
            }
            if middle.wait().is_err() || !middle.has_passed() {
                // What fails will fail where it is enqueued, with its sentence.
                return (Vec::new(), self.core.state.lock().unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    /// Lets go of what has been done.
    pub(crate) fn let_go(&self) {
        let done = mark::done(&mut self.core.state.lock().unwrap_or_else(PoisonError::into_inner).pending);
        drop(done);
    }

    pub(super) fn begin_capture(&self) -> Result<()> {
        let mut state = self.core.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.refuse_capturing(&state, "begin a capture")?;
        // SAFETY: the stream lives and captures nothing.
        unsafe { self.core.device.backend.begin_capture(self.core.id) }
            .map_err(|failure| self.failed("beginning a capture", &failure))?;
        state.capture = Some(Captured::default());
        Ok(())
    }

    /// Ends the capture that `begin_capture` began.
    pub(super) fn end_capture(&self) -> Result<(GraphId, Captured)> {
        let mut state = self.core.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut captured = state.capture.take().unwrap_or_default();
        captured.once_each();
        // SAFETY: the stream lives and captures, since captures begin and end in pairs.
        let graph = unsafe { self.core.device.backend.end_capture(self.core.id) }
            .map_err(|failure| self.failed("ending a capture", &failure))?;
        Ok((graph, captured))
    }

    pub(super) fn watched(&self) -> &Arc<Watched> {
        &self.core.watched
    }

    pub(super) fn refuse_in_capture(&self, what: &str) -> Result<()> {
        self.refuse_capturing(&self.core.state.lock().unwrap_or_else(PoisonError::into_inner), what)
    }

    fn refuse_capturing(&self, state: &State, what: &str) -> Result<()> {
        match state.capture {
            None => self.refuse_captured(what),
            Some(_) => Err(Error::invalid(format!(
                "{self} captures a graph, and cannot {what} meanwhile: a graph is of one stream, and nothing in it \
                 waits for the host; do that before or after the capture"
            ))),
        }
    }

    /// Refuses what its owner's own capture would take in: whether that has been done nobody here would know.
    fn refuse_captured(&self, what: impl fmt::Display) -> Result<()> {
        if self.core.owner.is_none() {
            return Ok(());
        }
        // SAFETY: the stream's owner keeps it as long as this does.
        match unsafe { self.core.device.backend.is_capturing(self.core.id) } {
            Ok(false) => Ok(()),
            Ok(true) => Err(Error::invalid(format!(
                "{what}: {self} is its owner's, who captures a graph on it; capture by `Stream::capture`, or end that \
                 capture before"
            ))),
            Err(failure) => Err(self.failed(what, &failure)),
        }
    }

    pub(super) fn failed(&self, what: impl fmt::Display, failure: &Failure) -> Error {
        self.core.device.failed(
            format_args!("{what} on stream {}", self.core.number),
            failure,
            "what the stream did may be incomplete; see its first fault",
        )
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {} of {}", self.core.number, self.core.device)
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({self})")
    }
}

impl Drop for StreamCore {
    fn drop(&mut self) {
        match self.owner {
            // SAFETY: This is the last holder, so nothing is enqueued any more; a capture holds a handle. What is
            // pending is still done.
            None => unsafe { self.device.backend.destroy_stream(self.id) },
            Some(_) => self.device.backend.return_stream(self.id),
        }
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.device.adopt(std::mem::take(&mut state.pending));
    }
}
