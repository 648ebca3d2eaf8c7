// SPDX-License-Identifier: MPL-2.0
//! Events: each recording of one is a place that its stream passes once.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use super::super::backend::Failure;

/// An event: where it was recorded last.
#[derive(Default)]
pub(super) struct Event(Mutex<Option<Arc<Record>>>);

impl Event {
    /// A new recording, to be passed by a stream.
    pub fn record(&self) -> Arc<Record> {
        let record = Arc::new(Record::default());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(record.clone());
        record
    }

    pub fn last(&self) -> Option<Arc<Record>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One recording of an event.
#[derive(Default)]
pub(super) struct Record {
    /// When it was passed, and what the stream had failed with by then.
    passed: Mutex<Option<(Instant, Option<Failure>)>>,
    waiting: Condvar,
}

impl Record {
    pub fn pass(&self, failure: Option<Failure>) {
        *self.passed.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), failure));
        self.waiting.notify_all();
    }

    pub fn time(&self) -> Option<Instant> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(time, _)| *time)
    }

    /// Waits until it has been passed; what its stream had failed with, if it had.
    pub fn wait(&self) -> Result<(), Failure> {
        let passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = self.waiting.wait_while(passed, |passed| passed.is_none()).unwrap_or_else(PoisonError::into_inner);
        passed.as_ref().and_then(|(_, failure)| failure.clone()).map_or(Ok(()), Err)
    }
}
