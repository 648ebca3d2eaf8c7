// SPDX-License-Identifier: MPL-2.0
//! How a failure becomes everybody's: the first one poisons the communicator, and all ranks return it.
//!
//! The rank that notices writes what it knows into its own page, and then tries to set the poison to its own name.
//! Whoever wins, every rank then reads the winner's page, so all return the same failure.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Cause, Error};
use crate::sync::Ordering::Relaxed;
use crate::transport::page::{Failure, Page};
use crate::transport::{Transport, waiting};

const MISMATCH: u32 = 1;
const RANK_LOST: u32 = 2;
const TIMEOUT: u32 = 3;
const ABORTED: u32 = 4;
const SYSTEM: u32 = 5;

/// Reports failures of one rank; shared with its abort handles.
pub(crate) struct Reporter {
    transport: Arc<dyn Transport>,
    /// Whether this rank's page holds a failure already: it is written once.
    reported: Mutex<bool>,
}

impl Reporter {
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Reporter { transport, reported: Mutex::new(false) }
    }

    /// Poisons the communicator with `error`, unless it is poisoned already, and wakes everyone. Returns the failure
    /// that all ranks return.
    pub fn report(&self, error: Error) -> Error {
        let own = self.transport.rank();
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if !*reported && self.root().poisoned_by().is_none() {
            write(&self.transport.page(own).failure, &error);
            *reported = true;
        }
        // Also where somebody was first: the fence in it is what lets the windows be read.
        match *reported {
            true => self.root().set_poison(own),
            false => self.root().set_poison(self.root().poisoned_by().unwrap_or(own)),
        }
        drop(reported);
        waiting::announce();
        let bed = self.transport.bed();
        for rank in 0..self.transport.world() {
            self.transport.page(rank).ring(&bed);
        }
        self.failure().unwrap_or(error)
    }

    /// The failure of this communicator, if there was one.
    pub fn failure(&self) -> Option<Error> {
        let reporter = self.root().poisoned_by()?;
        let world = self.transport.world();
        Some(match reporter < world {
            true => read(&self.transport.page(reporter).failure),
            false => Error::Aborted("the communicator failed, and its shared memory is damaged".into()),
        })
    }

    fn root(&self) -> &Page {
        self.transport.page(0)
    }
}

/// What all ranks get where one is unwound by a panic while it has calls in flight.
pub(crate) fn panicked(rank: usize) -> Error {
    Error::Aborted(format!("rank {rank} panicked with calls in flight").into())
}

/// What a panic said.
pub(crate) fn message(panic: &(dyn std::any::Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "with no message".to_owned(),
    }
}

/// Relaxed throughout: the poison publishes what is written here.
fn write(failure: &Failure, error: &Error) {
    let kind = match error {
        Error::Mismatch(_) => MISMATCH,
        Error::RankLost { rank, cause, .. } => {
            failure.rank.store(*rank as u32, Relaxed);
            failure.cause.store(*cause as u32, Relaxed);
            RANK_LOST
        }
        Error::Timeout { missing, .. } => {
            for rank in missing {
                if let Some(word) = failure.missing.get(rank / 64) {
                    word.fetch_or(1 << (rank % 64), Relaxed);
                }
            }
            TIMEOUT
        }
        Error::Aborted(_) => ABORTED,
        _ => SYSTEM,
    };
    let sentence = match error {
        Error::RankLost { context, .. } | Error::Timeout { context, .. } => context.to_string(),
        other => other.to_string(),
    };
    failure.write_sentence(&sentence);
    failure.kind.store(kind, Relaxed);
}

fn read(failure: &Failure) -> Error {
    let sentence: Arc<str> = failure.read_sentence().into();
    match failure.kind.load(Relaxed) {
        MISMATCH => Error::Mismatch(sentence),
        RANK_LOST => Error::RankLost {
            rank: failure.rank.load(Relaxed) as usize,
            cause: if failure.cause.load(Relaxed) == Cause::Left as u32 { Cause::Left } else { Cause::Died },
            context: sentence,
        },
        TIMEOUT => Error::Timeout {
            missing: (0..256).filter(|rank| failure.missing[rank / 64].load(Relaxed) >> (rank % 64) & 1 == 1).collect(),
            context: sentence,
        },
        SYSTEM => Error::System(sentence),
        _ => Error::Aborted(sentence),
    }
}

/// Ends the calls of a communicator from any thread, on all ranks.
#[derive(Clone)]
pub struct AbortHandle {
    reporter: Arc<Reporter>,
}

impl AbortHandle {
    pub(crate) fn new(reporter: Arc<Reporter>) -> Self {
        AbortHandle { reporter }
    }

    /// Aborts: every call in flight and every later call, on every rank, returns [`Error::Aborted`] with this reason.
    /// Wakes ranks that sleep. If the communicator has failed before, that first failure stays.
    pub fn abort(&self, reason: &str) {
        let rank = self.reporter.transport.rank();
        self.reporter.report(Error::Aborted(format!("rank {rank} aborted: {reason}").into()));
    }
}

impl std::fmt::Debug for AbortHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AbortHandle").field("rank", &self.reporter.transport.rank()).finish()
    }
}
