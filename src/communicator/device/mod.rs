// SPDX-License-Identifier: MPL-2.0
//! The communicator on device memory: calls that are enqueued on a stream and return at once.
//!
//! | file | subject |
//! |---|---|
//! | `join` | `on`: what ranks share, and what each has |
//! | `room` | what ranks agree on before: how much room there is, and how much a launch moves |
//! | `reach` | whether ranks' devices address each other's memory |
//! | `exchange` | how ranks come by each other's device memory |
//! | `regions` | memory that peers see: where it is, and by which number |
//! | `close` | the orderly end of a communicator, and of a buffer's registration |
//! | `collectives` | the calls, typed and checked |
//! | `plan` | which kernel runs, in which shape and how often, and why |
//! | `call` | one call, cut into launches |
//! | `launch` | one launch: its arguments, and what it uses |
//! | `schedule` | calls that go by a schedule: which program runs, where its memory is |
//! | `programs` | programs that are kept, and the memory that they share |
//! | `operations` `copies` | the copy-engine path: what a stream does for a program; that, enqueued |
//! | `own` | schedules of one's own |
//! | `explain` | what a call would run, and why |
//! | `messages` `relay` | messages from one rank to another: by a kernel; one, by copies |
//! | `called` | what a rank calls: what is compared, and said in words |
//! | `history` | what is known of calls that have been done |
//! | `batches` | what is known of messages that have been done |
//! | `delivery` | a message that is on its way, or has failed, in words |
//! | `fault` | a kernel's report, in words: which rank is at fault |
//! | `gone` | ranks that have died or left, and are missed |
//! | `watchdog` | who looks after calls that nobody waits for |
//! | `corrupt` | the negative control: mistakes that tests must notice |
//!
//! Nothing in a call waits for the host. Which kernel runs, in which shape and in how many launches, follows from the
//! call and from what was agreed when the communicator was made, so all ranks do the same. Whether a buffer is seen by
//! peers or staged may differ between ranks: each kernel finds in its entry what each rank has. Epochs are kept on the
//! device, so a captured call can be replayed, in between others.
//!
//! Failures go the way of the host's: a second communicator of the same ranks carries them. The rank whose kernel ends
//! early says so there; every other rank's watchdog sees it, and ends what runs.

mod batches;
mod call;
mod called;
mod close;
mod collectives;
mod copies;
#[cfg(annulus_corrupt)]
mod corrupt;
mod delivery;
mod exchange;
mod explain;
mod fault;
mod gone;
mod history;
mod join;
mod launch;
mod messages;
mod operations;
mod own;
mod plan;
mod programs;
mod reach;
mod regions;
mod relay;
mod room;
mod schedule;
mod watchdog;

use std::cell::Cell;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use self::batches::BatchRecord;
use self::call::Algorithm;
pub use self::explain::DeviceExplanation;
use self::history::History;
use self::join::{Explaining, Members};
pub use self::messages::DeviceBatch;
use self::programs::Schedules;
use self::schedule::{PREFIX, Path};
use self::watchdog::Watchdog;
use super::{AbortHandle, Communicator};
use crate::driver::{Device, FaultWords};
use crate::error::Result;
use crate::schedule::{Collective, names};

/// One rank's membership in a group of ranks that make collective calls on device memory. Made by
/// [`Communicator::on`].
///
/// Calls are enqueued on a stream and return at once. All ranks make the same calls in the same order; calls of one
/// communicator follow one another, also on different streams. Buffers may be read and written by what is enqueued
/// behind the call, and a buffer that is dropped stays until the call has been done. Every collective synchronises its
/// ranks, on their devices. Calls can be captured in a [`Graph`](crate::driver::Graph), which all ranks launch. To make a
/// graph, a driver may wait for what runs on the device: where ranks share one, let all make theirs before any launches
/// one, with a [barrier](Communicator::barrier) on the host between.
///
/// Calls of two communicators must not run at the same time where they share a device: each could take the room that
/// the other's ranks need to come to their call. Put them on one stream, in the same order on all ranks.
///
/// Memory of [`allocate`](Self::allocate), and what was [registered](Self::register), is used where it lies. Any other
/// buffer is copied through memory of the communicator's own, within the kernel. Results are the same to the bit, and
/// they are those of a [`Communicator`], whatever the memory, the length and the devices. Where two of the ranks'
/// devices do not reach each other, memory of the communicator's own is the host's, and every buffer is copied through
/// it.
///
/// # Beside the host's
///
/// There are no scans, no counts for each rank and no operations of one's own; nothing is started, since every call is
/// enqueued. Ranks are at most 16. For some of the ranks, [`split`](Communicator::split) the host's and call `on` there.
///
/// # End
///
/// [`close`](Self::close) ends it in order: nothing that peers allocated stays mapped. A communicator that is dropped
/// leaves without waiting; what its calls and peers still use stays until they are done, and where other processes map a
/// vendor's memory, as long as this process lives. A failure of such a call is
/// returned as ever, but says less. Once they are done, and graphs of them dropped, a rank that waits for another call
/// of this one fails at once, with [`RankLost`](crate::Error::RankLost).
///
/// # Failure
///
/// What one rank can see wrong alone is `InvalidArgument` at once. All else is found while the call runs, and
/// returned where the host waits for its stream: by [`synchronize`](crate::driver::Stream::synchronize), by reads and
/// by events. The first failure ends the communicator: calls that run end, and every later one returns it, on all
/// ranks. What buffers hold after that is unspecified. Errors number calls from 0; a call that is too long for one
/// launch counts once for each.
pub struct DeviceCommunicator {
    members: Arc<Members>,
    faults: FaultWords,
    explaining: Explaining,
    /// How the following calls are done, where it was asked for.
    path: Cell<Option<Path>>,
    history: History,
    schedules: Schedules,
    /// Ends when the calls have been done.
    watchdog: Watchdog,
    /// The same ranks on the host: for what is agreed on, and the way of failures. This rank leaves with it. The
    /// watchdog holds it too, and locks it never.
    control: Arc<Mutex<Communicator>>,
}

fn locked(control: &Mutex<Communicator>) -> MutexGuard<'_, Communicator> {
    control.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DeviceCommunicator {
    /// The collectives that there are on devices.
    pub const COLLECTIVES: [Collective; 9] = [
        Collective::AllReduce,
        Collective::ReduceScatter,
        Collective::AllGather,
        Collective::Broadcast,
        Collective::Barrier,
        Collective::Reduce,
        Collective::Scatter,
        Collective::Gather,
        Collective::AllToAll,
    ];

    /// Bytes of the longest message of the algorithm `low_latency`.
    pub const LOW_LATENCY: usize = 4 << 10;

    /// Bytes of memory that schedules share on each rank at first; see
    /// [`set_schedule_memory`](Self::set_schedule_memory). Built-in ones make their segments as long as it allows: each
    /// segment costs a few launches a step, and is what one rank moves while another moves the one before.
    pub const SCHEDULE_MEMORY: usize = 8 << 20;

    /// The names of the algorithms of a collective, for [`set_algorithm`](Self::set_algorithm): kernels, and schedules.
    pub fn algorithms(collective: Collective) -> Vec<String> {
        let kernels = if collective == Collective::AllReduce { &Algorithm::ALL[..] } else { &[] };
        let schedules = if Self::COLLECTIVES.contains(&collective) { names(collective) } else { Vec::new() };
        let kernels = kernels.iter().map(|kernel| kernel.name().to_owned());
        kernels.chain(schedules.iter().map(|name| format!("{PREFIX}{name}"))).collect()
    }

    /// This rank, from 0.
    pub fn rank(&self) -> usize {
        self.members.rank
    }

    /// The number of ranks.
    pub fn world_size(&self) -> usize {
        self.members.world
    }

    /// This rank's device.
    pub fn device(&self) -> &Device {
        &self.members.device
    }

    /// How long a kernel waits for another rank, from the begin of its wait; of calls that are enqueued or captured
    /// from now on. Set it alike on all ranks. At first it is the host communicator's.
    pub fn set_timeout(&self, timeout: Duration) {
        self.members.set_patience(timeout);
    }

    /// The algorithm of the following calls, by name; `None`: automatic. Set it alike on all ranks, or the next call is
    /// a `Mismatch`.
    ///
    /// Kernels for all-reduce are `low_latency`, `one_shot`, `two_shot` and `ring`; other collectives have one each.
    /// `ring` is never chosen automatically, and folds in [`FoldOrder::Ring`](crate::FoldOrder::Ring).
    ///
    /// `schedule:` and the name of a built-in schedule, as `schedule:tree`, is that schedule, for every collective that
    /// has it, done by copies of the driver, folds, and kernels that signal and wait; it folds in the schedule's order.
    /// Its form for memory that peers see (`direct`, `ring` and others have one) is taken where this rank's buffers are
    /// in memory of [`allocate`](Self::allocate) or [`register`](Self::register). So either all ranks' buffers are, and
    /// at the same place of it, or none's; otherwise the call is a `Mismatch`. (For a broadcast, that is where ranks get
    /// it; in place, it is the whole buffer. A reduce, scatter or gather is passed through memory of the communicator's
    /// own, but in place: where the root alone has a buffer, the others cannot tell where.) [Messages](Self::send) are
    /// done in this way too, whichever schedule it is.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if there is no algorithm of that name.
    pub fn set_algorithm(&self, name: Option<&str>) -> Result<()> {
        self.path.set(name.map(Path::named).transpose()?);
        Ok(())
    }

    /// A handle that ends all calls of this communicator, from any thread.
    pub fn abort_handle(&self) -> AbortHandle {
        self.control().abort_handle()
    }

    /// Ends all calls of this communicator, on all ranks: those that run, and every later one, fail with
    /// [`Aborted`](crate::Error::Aborted) and this reason.
    pub fn abort(&self, reason: &str) {
        self.control().abort(reason);
    }

    fn control(&self) -> MutexGuard<'_, Communicator> {
        locked(&self.control)
    }
}

impl fmt::Debug for DeviceCommunicator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceCommunicator(rank {} of {} on {})", self.rank(), self.world_size(), self.device())
    }
}
