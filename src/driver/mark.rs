// SPDX-License-Identifier: MPL-2.0
//! Marks: how the library knows that a stream has passed an operation.
//!
//! An event is recorded after each operation. It answers all three questions that ownership asks: whether the memory of
//! an operation may go, what a second stream has to wait for, and what is left of a stream that was dropped.
#![allow(unsafe_code)]

use std::any::Any;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use super::backend::{EventId, Failure};
use super::device::Core;
use super::queue::Outstanding;
use crate::error::Error;

/// The place behind one operation on its stream. Its event goes back to the device's spare ones with the last holder.
pub(super) struct Mark {
    core: Arc<Core>,
    event: EventId,
    /// Whether the event was once seen to have passed. Who saw it has what the stream did before it; `Release` and
    /// `Acquire` hand that on to who only sees the flag, and frees the memory or enqueues what uses it next.
    passed: AtomicBool,
}

impl Mark {
    /// A mark whose event is to be recorded by the caller.
    pub fn new(core: &Arc<Core>) -> Result<Arc<Mark>, Failure> {
        let spare = core.spare_events.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let event = spare.map_or_else(|| core.backend.create_event(false), Ok)?;
        Ok(Arc::new(Mark { core: core.clone(), event, passed: AtomicBool::new(false) }))
    }

    pub fn event(&self) -> EventId {
        self.event
    }

    /// Whether the operation has been done. Where the driver fails, it counts as not done: nothing is freed too early.
    pub fn has_passed(&self) -> bool {
        if !self.passed.load(Ordering::Acquire) {
            // SAFETY: the event lives as long as the mark.
            let passed = unsafe { self.core.backend.has_passed(self.event) }.unwrap_or(false);
            if !passed {
                return false;
            }
            self.passed.store(true, Ordering::Release);
        }
        true
    }

    /// Waits until the operation has been done.
    pub fn wait(&self) -> Result<(), Failure> {
        // SAFETY: the event lives as long as the mark.
        unsafe { self.core.backend.synchronize_event(self.event) }
    }

    pub fn failed(&self, failure: &Failure) -> Error {
        self.core.failed("waiting for what was enqueued", failure, "see the first fault of its stream")
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        // Waits that were enqueued for the event stand for what it was then; it may be recorded again.
        self.core.spare_events.lock().unwrap_or_else(PoisonError::into_inner).push(self.event);
    }
}

/// Something that an enqueued operation needs: memory, a graph, a function.
pub(super) type Kept = Arc<dyn Any + Send + Sync>;

/// An operation that may not have been done yet, and what it needs until then.
pub(super) struct Pending {
    pub mark: Arc<Mark>,
    /// Only held.
    pub _kept: Vec<Kept>,
    pub outstanding: Outstanding,
}

/// Takes out what has been done, from the front on. To be dropped when no lock is held: what an operation kept may be
/// the last handle of anything.
pub(super) fn done(pending: &mut VecDeque<Pending>) -> Vec<Pending> {
    let count = pending.iter().take_while(|operation| operation.mark.has_passed()).count();
    pending.drain(..count).collect()
}
