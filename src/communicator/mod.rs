// SPDX-License-Identifier: MPL-2.0
//! Communicators: on host memory, where schedules are joined with a transport; and on device memory (`device`).
//!
//! | file | subject |
//! |---|---|
//! | `collectives/` | the calls, typed and checked |
//! | `operator` | operations of one's own, and the calls that fold with them |
//! | `refusals` | what a rank can see wrong alone |
//! | `messages` | from one rank to another, by themselves and in batches |
//! | `pending` `scope` `started` | started calls: handles that own their buffers, or borrow them within a scope |
//! | `memory` | buffers that calls can own |
//! | `further` | further communicators, of the same ranks or of some |
//! | `calls/` `completion` | calls in flight, from entry to end; where outcomes wait |
//! | `owed` | waking peers that sleep |
//! | `engine` | who moves them on: callers and the progress thread |
//! | `plan` `loaded` `addresses` `execute` | what a call means, made ready once; where its memory is; the executor |
//! | `explain` | what a call would run, and why |
//! | `device/` | calls on device memory, enqueued on streams |
//! | `descriptor` `failure` `history` | agreement, failure, and what is remembered of calls |

mod addresses;
mod calls;
mod collectives;
mod completion;
mod descriptor;
mod device;
mod engine;
mod execute;
mod explain;
mod failure;
mod further;
mod history;
mod loaded;
#[cfg(target_os = "linux")]
mod meet;
mod memory;
mod messages;
mod operator;
mod owed;
mod pending;
mod plan;
mod refusals;
mod run;
mod scope;
mod started;

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

pub use device::{BatchRecord, DeviceBatch, DeviceCommunicator, DeviceExplanation};
pub use explain::{Explanation, Question};
pub use failure::AbortHandle;
pub use memory::{Buffer, Shared};
pub use messages::Batch;
pub use operator::Operator;
pub use pending::Pending;
pub use run::{RankFailure, run};
pub use scope::{Scope, ScopedPending};

use crate::element::Element;
use crate::error::{Error, Result};
use crate::record::CallRecord;
use crate::transport::Transport;
use engine::Engine;
use failure::Reporter;

/// One rank's membership in a group of ranks that make collective calls together.
///
/// All ranks of a communicator make the same calls in the same order; calls are matched by their number. Every
/// collective synchronises its ranks: none returns before all have entered it. What a call moved belongs to the caller
/// again when it returns, whether it succeeded or not.
///
/// A communicator may be moved to another thread, and is used by one at a time.
///
/// # Failure
///
/// Apart from [`Error::InvalidArgument`], which concerns one rank's call alone and uses no call number, the first
/// failure ends the communicator: every call in flight and every later one returns it, on all ranks. What a buffer that
/// a call writes to holds after that is unspecified, and with it the input of a call in place.
///
/// It goes on where another communicator could not be made of it ([`Communicator::split`], [`Communicator::on`]), where
/// [`Communicator::execute`] is `Unsupported`, both of which all ranks are told, and where [`Communicator::allocate`]
/// fails, which is local.
pub struct Communicator {
    engine: Arc<Engine>,
    reporter: Arc<Reporter>,
    timeout: Cell<Duration>,
    rank: usize,
    world: usize,
    local_rank: usize,
    algorithm: Cell<u32>,
    one_thread_at_a_time: PhantomData<Cell<()>>,
}

impl Communicator {
    pub(crate) fn new(transport: Arc<dyn Transport>, local_rank: usize, timeout: Duration) -> Self {
        let reporter = Arc::new(Reporter::new(transport.clone()));
        let (rank, world) = (transport.rank(), transport.world());
        Communicator {
            engine: Arc::new(Engine::new(transport, reporter.clone(), timeout)),
            reporter,
            timeout: Cell::new(timeout),
            rank,
            world,
            local_rank,
            algorithm: Cell::new(0),
            one_thread_at_a_time: PhantomData,
        }
    }

    /// This rank, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The number of ranks.
    pub fn world_size(&self) -> usize {
        self.world
    }

    /// This rank among those of its host: which device it would take.
    pub fn local_rank(&self) -> usize {
        self.local_rank
    }

    /// How its ranks reach each other: `threads` or `processes`.
    pub fn transport_kind(&self) -> &'static str {
        self.transport().kind()
    }

    /// Shared memory that this rank's part of the communicator takes, in bytes, beside allocated buffers.
    pub fn footprint(&self) -> usize {
        self.transport().footprint()
    }

    /// `len` zeroed elements that peers can address. Local: other ranks need not allocate, nor the same length.
    ///
    /// # Errors
    ///
    /// `System` if memory is exhausted, `InvalidArgument` for more elements than memory holds.
    pub fn allocate<T: Element>(&self, len: usize) -> Result<Shared<T>> {
        let bytes = len
            .checked_mul(size_of::<T>())
            .filter(|bytes| *bytes <= isize::MAX as usize)
            .ok_or_else(|| Error::invalid(format!("{len} elements of {} are more than memory holds", T::DATA_TYPE)))?;
        Ok(Shared::new(self.transport().allocate(bytes)?))
    }

    /// How long a rank waits for others, counted from its own entry into a call. Set it alike on all ranks. The default
    /// is `ANNULUS_TIMEOUT` in seconds, else 300 s, as rank 0 has it.
    pub fn set_timeout(&self, timeout: Duration) {
        self.timeout.set(timeout);
        self.engine.lock().set_timeout(timeout);
    }

    /// The algorithm of the following calls, by name; `None`: automatic. Set it alike on all ranks, or the next call is
    /// a `Mismatch`. Algorithms that are never chosen automatically (`ring`) fold in an order of their own.
    ///
    /// Those of a collective are [`schedule::names(collective)`](crate::schedule::names). A call for which the algorithm
    /// does not exist is `InvalidArgument`, except that a barrier then runs as usual, and so do messages and whatever
    /// ranks exchange to make communicators or to learn counts.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if there is no algorithm of that name.
    pub fn set_algorithm(&self, name: Option<&str>) -> Result<()> {
        let names = crate::schedule::NAMES;
        let place = match name {
            None => 0,
            Some(name) => {
                1 + names.iter().position(|known| *known == name).ok_or_else(|| {
                    Error::invalid(format!("there is no algorithm {name}; there are {}", names.join(", ")))
                })?
            }
        };
        self.algorithm.set(place as u32);
        Ok(())
    }

    /// Every rank's words, by rank: what ranks tell each other for the sake of a call. The algorithm that was set is for
    /// the user's calls, and need not exist for this one.
    fn exchange(&self, own: &[u64], all: &mut [u64]) -> Result<()> {
        let mut call = self.all_gather_call(own, all)?;
        call.descriptor.algorithm = 0;
        self.engine.block(call)
    }

    /// What the last call that ended was, what ran, and how long this rank waited and moved data.
    pub fn last_call(&self) -> Option<CallRecord> {
        let mut lanes = self.engine.lock();
        let state = lanes.collectives();
        state.history.last(state.clock())
    }

    /// The record of a call by its number, if it is among the last 256.
    pub fn record(&self, call: u64) -> Option<CallRecord> {
        let mut lanes = self.engine.lock();
        let state = lanes.collectives();
        state.history.find(call, state.clock())
    }

    /// The last calls, at most 256, the oldest first.
    pub fn calls(&self) -> Vec<CallRecord> {
        let mut lanes = self.engine.lock();
        let state = lanes.collectives();
        state.history.all(state.clock())
    }

    /// A handle that ends all calls of this communicator, from any thread.
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle::new(self.reporter.clone())
    }

    /// Aborts: see [`AbortHandle::abort`].
    pub fn abort(&self, reason: &str) {
        self.abort_handle().abort(reason);
    }

    fn transport(&self) -> &Arc<dyn Transport> {
        &self.engine.transport
    }
}

impl Drop for Communicator {
    /// Leaves: completes what is in flight, then tells the others. Ranks that still wait for this one get `RankLost`.
    fn drop(&mut self) {
        let panicking = std::thread::panicking();
        self.engine.close(panicking);
        // Abort handles may be used at any time, and peers may use the memory anew once this rank has left.
        self.reporter.close();
        self.transport().leave(panicking);
    }
}

impl std::fmt::Debug for Communicator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (rank, world_size) = (self.rank(), self.world_size());
        f.debug_struct("Communicator").field("rank", &rank).field("world_size", &world_size).finish_non_exhaustive()
    }
}
