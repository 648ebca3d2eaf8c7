// SPDX-License-Identifier: MPL-2.0
//! Whether anything runs: which streams may still have something to do.
//!
//! A stream of our own is asked. One that captures must not be, since that would spoil its graph; of what it was given
//! before, an event is asked that was recorded then. A user's own stream may be captured by its user, and be gone as soon
//! as it was given back; so behind whatever is enqueued on it here an event is recorded, and that is asked.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::backend::{EventId, StreamId};
use super::context::Entered;
use super::fault::Fault;
use super::memory::raw;
use super::stream::{self, raw_event};

#[derive(Default)]
pub(super) struct Streams {
    known: Mutex<Known>,
    /// Whether any stream was ever borrowed. Relaxed: who enqueues on one has it from who borrowed it.
    borrows: AtomicBool,
}

#[derive(Default)]
struct Known {
    /// The backend's own that have a handle. Those that capture, with the event that was recorded before.
    own: HashMap<StreamId, Option<EventId>>,
    /// The user's own.
    borrowed: HashMap<StreamId, Borrowed>,
    /// The backend's own without a handle, which may still have something to do.
    gone: Vec<StreamId>,
}

struct Borrowed {
    handles: usize,
    /// Behind all that was enqueued here.
    event: EventId,
    /// Whether what is enqueued here is captured.
    captures: bool,
}

impl Streams {
    /// A stream of the backend's own is used from now on.
    pub fn begin(&self, stream: StreamId) {
        self.known().own.insert(stream, None);
    }

    /// A stream of the backend's own has no handle any more: it is destroyed when it has done all that was enqueued.
    pub fn retire(&self, stream: StreamId) {
        let mut known = self.known();
        known.own.remove(&stream);
        known.gone.push(stream);
    }

    /// A user's stream has one handle more.
    pub fn borrow(&self, driver: &Entered, stream: StreamId) -> Result<(), Fault> {
        let mut known = self.known();
        if let Some(borrowed) = known.borrowed.get_mut(&stream) {
            borrowed.handles += 1;
            return Ok(());
        }
        let event = stream::create_event(driver, false)?;
        known.borrowed.insert(stream, Borrowed { handles: 1, event, captures: false });
        self.borrows.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// A user's stream has one handle less.
    pub fn give_back(&self, stream: StreamId) {
        if let Some(borrowed) = self.known().borrowed.get_mut(&stream) {
            borrowed.handles = borrowed.handles.saturating_sub(1);
        }
    }

    /// What is to be recorded behind whatever is enqueued on the stream.
    pub fn event_behind(&self, stream: StreamId) -> Option<EventId> {
        if !self.borrows.load(Ordering::Relaxed) {
            return None;
        }
        let known = self.known();
        // A number may have been a user's before.
        let borrowed = known.borrowed.get(&stream).filter(|_| !known.own.contains_key(&stream))?;
        (!borrowed.captures).then_some(borrowed.event)
    }

    /// A stream is about to capture.
    pub fn begin_capture(&self, driver: &Entered, stream: StreamId) -> Result<(), Fault> {
        let mut known = self.known();
        let Known { own, borrowed, .. } = &mut *known;
        match (own.get_mut(&stream), borrowed.get_mut(&stream)) {
            (Some(own), _) => {
                let event = stream::create_event(driver, false)?;
                // SAFETY: both live, and the stream captures nothing yet.
                if let Err(fault) = unsafe { driver.record_event(raw_event(event), raw(stream)) } {
                    destroy(driver, event);
                    return Err(fault);
                }
                *own = Some(event);
            }
            (None, Some(borrowed)) => borrowed.captures = true,
            (None, None) => {}
        }
        Ok(())
    }

    /// A stream captures no more.
    pub fn end_capture(&self, driver: &Entered, stream: StreamId) {
        let mut known = self.known();
        if let Some(own) = known.own.get_mut(&stream) {
            own.take().into_iter().for_each(|event| destroy(driver, event));
        } else if let Some(borrowed) = known.borrowed.get_mut(&stream) {
            borrowed.captures = false;
        }
    }

    /// Destroys what has no handle and nothing to do, whatever others do. To be called while nobody enqueues.
    pub fn sweep(&self, driver: &Entered) {
        let mut known = self.known();
        known.gone.retain(|stream| {
            let idle = is_idle(driver, *stream);
            if idle {
                // SAFETY: nobody has a handle of it.
                let _ = unsafe { driver.destroy_stream(raw(*stream)) };
            }
            !idle
        });
        known.borrowed.retain(|_, borrowed| {
            let is_over = borrowed.handles == 0 && has_passed(driver, borrowed.event);
            if is_over {
                destroy(driver, borrowed.event);
            }
            !is_over
        });
    }

    /// Whether no stream has anything to do. To be called while nobody enqueues.
    pub fn are_idle(&self, driver: &Entered) -> bool {
        let Known { own, borrowed, gone } = &*self.known();
        gone.is_empty()
            && own.iter().all(|(stream, before)| match before {
                None => is_idle(driver, *stream),
                Some(event) => has_passed(driver, *event),
            })
            && borrowed.values().all(|borrowed| has_passed(driver, borrowed.event))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of a stream of the backend's own that captures nothing; captures begin and end while nobody asks.
fn is_idle(driver: &Entered, stream: StreamId) -> bool {
    // SAFETY: the stream is of this context, lives, and captures nothing.
    unsafe { driver.query_stream(raw(stream)) }.is_ok()
}

fn has_passed(driver: &Entered, event: EventId) -> bool {
    // SAFETY: the event is one of those above, which live.
    unsafe { driver.query_event(raw_event(event)) }.is_ok()
}

/// What is refused is lost; there is nobody to tell.
fn destroy(driver: &Entered, event: EventId) {
    // SAFETY: the event is one of those above, and has been taken out.
    let _ = unsafe { driver.destroy_event(raw_event(event)) };
}
