// SPDX-License-Identifier: MPL-2.0
//! Events: places in streams that others wait for, and the times at which they were passed.
#![allow(unsafe_code)]

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::backend::EventId;
use super::device::Core;
use super::faults::{FaultWords, Watched};
use crate::error::{Error, Result};

/// A place in a stream, set by [`Stream::record`](super::Stream::record); recorded again, it stands for the new place.
/// Until it is recorded it counts as passed. Clones are the same event.
#[derive(Clone)]
pub struct Event {
    pub(super) core: Arc<EventCore>,
}

pub(super) struct EventCore {
    pub device: Arc<Core>,
    pub id: EventId,
    /// What the stream watches on which it was recorded last.
    recorded: Mutex<Option<Arc<Watched>>>,
}

impl Event {
    pub(super) fn new(device: &Arc<Core>) -> Result<Event> {
        let id = device
            .backend
            .create_event(true)
            .map_err(|failure| device.failed("making an event", &failure, "drop events that are no longer used"))?;
        Ok(Event { core: Arc::new(EventCore { device: device.clone(), id, recorded: Mutex::default() }) })
    }

    /// Waits until the place has been passed.
    ///
    /// # Errors
    ///
    /// The first fault of the stream on which it was recorded.
    pub fn synchronize(&self) -> Result<()> {
        // SAFETY: the event lives as long as its core.
        let done = unsafe { self.core.device.backend.synchronize_event(self.core.id) };
        self.core.faults().iter().find_map(FaultWords::first).map_or(Ok(()), Err)?;
        done.map_err(|failure| self.failed("waiting for an event", &failure))
    }

    /// Whether the place has been passed.
    ///
    /// # Errors
    ///
    /// `System` where the driver does not say.
    pub fn has_passed(&self) -> Result<bool> {
        // SAFETY: the event lives as long as its core.
        unsafe { self.core.device.backend.has_passed(self.core.id) }
            .map_err(|failure| self.failed("asking for an event", &failure))
    }

    /// The time from another event of this device until this one; zero if it was this one that came first.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` where one of them has not been recorded and passed, or they are of different devices.
    pub fn since(&self, earlier: &Event) -> Result<Duration> {
        if !Arc::ptr_eq(&self.core.device, &earlier.core.device) {
            return Err(Error::invalid(format!(
                "there is no time between events of {} and of {}; record both on one device",
                earlier.core.device, self.core.device
            )));
        }
        for event in [earlier, self] {
            if !event.core.is_recorded() || !event.has_passed()? {
                return Err(Error::invalid(
                    "the time between events is known when both were recorded and have passed; synchronize first",
                ));
            }
        }
        // SAFETY: both live, keep the time and have passed. Where one is recorded again meanwhile, the backend refuses.
        let nanoseconds = unsafe { self.core.device.backend.nanoseconds(earlier.core.id, self.core.id) }
            .map_err(|failure| self.failed("asking for the time between events", &failure))?;
        Ok(Duration::from_nanos(nanoseconds.max(0.0) as u64))
    }

    fn failed(&self, attempt: &str, failure: &super::backend::Failure) -> Error {
        self.core.device.failed(attempt, failure, "its stream may have failed; see its first fault")
    }
}

impl EventCore {
    pub fn recorded_on(&self, watched: &Arc<Watched>) {
        *self.recorded.lock().unwrap_or_else(PoisonError::into_inner) = Some(watched.clone());
    }

    fn is_recorded(&self) -> bool {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// The fault words that the stream watches on which it was recorded last.
    pub fn faults(&self) -> Vec<FaultWords> {
        let recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner).clone();
        recorded.map_or_else(Vec::new, |watched| watched.all())
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Event({:?} of {})", self.core.id, self.core.device)
    }
}

impl Drop for EventCore {
    fn drop(&mut self) {
        // SAFETY: this is the last holder.
        unsafe { self.device.backend.destroy_event(self.id) };
    }
}
