// SPDX-License-Identifier: MPL-2.0
//! How a failure becomes everybody's: the first one poisons the communicator, and all ranks return it.
//!
//! The rank that notices writes what it knows into its own page, and then tries to set the poison to its own name.
//! Whoever wins, every rank then reads the winner's page, so all return the same failure.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Cause, Error};
use crate::sync::Ordering::Relaxed;
use crate::transport::page::{Failure, Page};
use crate::transport::{Transport, waiting};

const MISMATCH: u32 = 1;
const RANK_LOST: u32 = 2;
const TIMEOUT: u32 = 3;
const ABORTED: u32 = 4;
const SYSTEM: u32 = 5;

/// Reports failures of one rank; shared with its abort handles, which may outlive its communicator.
pub(crate) struct Reporter {
    transport: Arc<dyn Transport>,
    stage: Mutex<Stage>,
}

/// How far a rank has come with its communicator.
enum Stage {
    /// Its page holds no failure.
    Unreported,
    /// Its page holds a failure: that is written once.
    Reported,
    /// It has left, with the failure that there was. What its ranks shared may be somebody else's memory by now.
    Closed(Option<Error>),
}

impl Reporter {
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Reporter { transport, stage: Mutex::new(Stage::Unreported) }
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Poisons the communicator with `error`, unless it is poisoned already, and wakes everyone. Returns the failure
    /// that all ranks return. Once the communicator is closed, it does nothing but return one.
    pub fn report(&self, error: Error) -> Error {
        let own = self.transport.rank();
        // Held until the last word of the transport has been touched, since `close` is waited for before that goes.
        let mut stage = self.stage();
        if let Stage::Closed(failure) = &*stage {
            return failure.clone().unwrap_or(error);
        }
        if matches!(*stage, Stage::Unreported) && self.root().poisoned_by().is_none() {
            write(&self.transport.page(own).failure, &error);
            *stage = Stage::Reported;
        }
        // Also where somebody was first: the fence in it is what lets the windows be read.
        match *stage {
            Stage::Reported => self.root().set_poison(own),
            _ => self.root().set_poison(self.root().poisoned_by().unwrap_or(own)),
        }
        waiting::announce();
        let bed = self.transport.bed();
        for rank in 0..self.transport.world() {
            self.transport.page(rank).ring(&bed);
        }
        self.written().unwrap_or(error)
    }

    /// The failure of this communicator, if there was one.
    pub fn failure(&self) -> Option<Error> {
        match &*self.stage() {
            Stage::Closed(failure) => failure.clone(),
            _ => self.written(),
        }
    }

    /// Before this rank leaves: from now on the transport is not touched.
    pub fn close(&self) {
        let mut stage = self.stage();
        *stage = Stage::Closed(self.written());
    }

    /// The failure that the ranks' pages tell of.
    fn written(&self) -> Option<Error> {
        let reporter = self.root().poisoned_by()?;
        let world = self.transport.world();
        Some(match reporter < world {
            true => read(&self.transport.page(reporter).failure),
            false => Error::Aborted("the communicator failed, and its shared memory is damaged".into()),
        })
    }

    fn root(&self) -> &Page {
        self.transport.root()
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
    /// Wakes ranks that sleep. If the communicator has failed before, that first failure stays. Once this rank's
    /// communicator has been dropped, it does nothing: the rank has left.
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
