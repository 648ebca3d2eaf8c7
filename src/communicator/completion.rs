// SPDX-License-Identifier: MPL-2.0
//! Where a started call's outcome and its buffers wait for whoever asks: the handle, a scope's end, or nobody.

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Result;

/// A started call's buffers, owned by the engine until the call is done.
pub(crate) struct Parked {
    pub completion: Arc<Completion>,
    pub buffers: Box<dyn Any + Send>,
}

/// Where a started call's outcome and its buffers wait for its handle.
#[derive(Default)]
pub(crate) struct Completion {
    stage: Mutex<Stage>,
}

#[derive(Default)]
enum Stage {
    #[default]
    InFlight,
    Done(Outcome),
    Taken,
}

/// The buffers, or why they are not given back.
pub(crate) type Outcome = Result<Box<dyn Any + Send>>;

impl Completion {
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The outcome, once.
    pub fn take(&self) -> Option<Outcome> {
        let mut stage = self.stage();
        match &*stage {
            Stage::Done(_) => match std::mem::replace(&mut *stage, Stage::Taken) {
                Stage::Done(outcome) => Some(outcome),
                Stage::InFlight | Stage::Taken => None,
            },
            Stage::InFlight | Stage::Taken => None,
        }
    }

    /// The call is done.
    pub fn put(&self, outcome: Outcome) {
        *self.stage() = Stage::Done(outcome);
    }

    /// Whether the call is done.
    pub fn is_over(&self) -> bool {
        !matches!(*self.stage(), Stage::InFlight)
    }
}
