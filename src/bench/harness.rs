// SPDX-License-Identifier: MPL-2.0
//! Ranks that stay, for one's own benchmarks.
//!
//! The ranks are threads that a [`Harness`] starts once and ends when it is dropped. Between measurements they wait for
//! a job on a channel; a job is a closure that all run the same number of times.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, unbounded};

use super::pin;
use crate::communicator::{Communicator, RankFailure, run};
use crate::error::{Error, Result};

/// Ranks as threads of this process, each pinned to a core and with a state of its own, ready to be timed.
///
/// With criterion, whose `iter_custom` wants the time of a number of iterations:
///
/// ```
/// use annulus::{ReduceOp, bench::Harness};
/// # use std::time::Duration;
/// # struct Bencher;
/// # impl Bencher { fn iter_custom(&mut self, mut f: impl FnMut(u64) -> Duration) { f(3); } }
/// # let mut bencher = Bencher;
///
/// let mut ranks = Harness::new(2, |comm| Ok(vec![comm.rank() as f32; 1 << 10]))?; // each rank's state: its buffer
/// bencher.iter_custom(|iterations| {
///     let each = |comm: &annulus::Communicator, buffer: &mut Vec<f32>| comm.all_reduce_in_place(buffer, ReduceOp::Max);
///     ranks.time(iterations, each).expect("ranks that agree")
/// });
/// # Ok::<(), annulus::Error>(())
/// ```
///
/// Throughput is criterion's own: `group.throughput(Throughput::Bytes(..))`, with the bytes of the whole buffer as
/// nccl-tests counts them.
pub struct Harness<S> {
    /// One pair of channels a rank: jobs to it, which ends when the first is dropped, and times from it, which the
    /// second tells the end of when the rank has ended, however it did.
    ranks: Vec<(Sender<Job<S>>, Receiver<Duration>)>,
    world: Option<JoinHandle<Result<(), RankFailure>>>,
}

/// What is timed: one iteration.
type Each<S> = dyn Fn(&Communicator, &mut S) -> Result<()> + Send + Sync;

struct Job<S> {
    iterations: u64,
    each: Arc<Each<S>>,
}

impl<S: 'static> Harness<S> {
    /// Starts `ranks` ranks, each of which makes its state and keeps it.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for zero ranks, `System` if threads cannot be started or pinned. What `state` fails with is
    /// returned by [`Harness::time`].
    pub fn new(ranks: usize, state: impl Fn(&Communicator) -> Result<S> + Send + Sync + 'static) -> Result<Self> {
        if ranks == 0 {
            return Err(Error::invalid("a harness of 0 ranks has nothing to time: give at least one"));
        }
        let mut ends = Vec::with_capacity(ranks);
        let mut theirs = Vec::with_capacity(ranks);
        for _ in 0..ranks {
            let ((job, jobs), (time, times)) = (unbounded::<Job<S>>(), unbounded());
            ends.push((job, times));
            theirs.push(Mutex::new(Some((jobs, time))));
        }
        let rank_main = move |comm: Communicator| {
            // Taken, so that they are dropped when this rank ends.
            let own = theirs[comm.rank()].lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some((jobs, times)) = own else { return Ok(()) };
            pin(comm.rank())?;
            let mut state = state(&comm)?;
            for Job { iterations, each } in jobs {
                // A harness that is gone wants no times either.
                let _ = times.send(time(&comm, &mut state, iterations, &*each)?);
            }
            Ok(())
        };
        let world = std::thread::Builder::new().name("harness".into()).spawn(move || run(ranks, rank_main).map(drop));
        let world = world.map_err(|error| Error::system("starting the ranks of a harness", error))?;
        Ok(Harness { ranks: ends, world: Some(world) })
    }

    /// All ranks meet, and each runs `each` that many times; the slowest rank's time.
    ///
    /// # Errors
    ///
    /// What `each`, or the making of the state, first failed with on any rank; `Aborted` for a panic. After that the
    /// harness has ended, and so it says.
    pub fn time(
        &mut self,
        iterations: u64,
        each: impl Fn(&Communicator, &mut S) -> Result<()> + Send + Sync + 'static,
    ) -> Result<Duration> {
        let each: Arc<Each<S>> = Arc::new(each);
        for (job, _) in &self.ranks {
            // A rank that is gone is noticed below.
            let _ = job.send(Job { iterations, each: each.clone() });
        }
        let slowest = self
            .ranks
            .iter()
            .map(|(_, times)| times.recv().ok())
            .try_fold(Duration::ZERO, |slowest, time| Some(slowest.max(time?)));
        slowest.filter(|_| self.world.is_some()).ok_or_else(|| self.failure())
    }

    /// Why the ranks have ended before they were told to.
    fn failure(&mut self) -> Error {
        self.ranks.clear();
        match self.world.take().map(JoinHandle::join) {
            Some(Ok(Err(failure))) => failure.into(),
            _ => Error::Aborted("the ranks of this harness have ended".into()),
        }
    }
}

fn time<S>(comm: &Communicator, state: &mut S, iterations: u64, each: &Each<S>) -> Result<Duration> {
    // Twice: the second finds everybody awake.
    comm.barrier()?;
    comm.barrier()?;
    let start = Instant::now();
    for _ in 0..iterations {
        each(comm, state)?;
    }
    Ok(start.elapsed())
}

impl<S> Drop for Harness<S> {
    fn drop(&mut self) {
        self.ranks.clear();
        if let Some(world) = self.world.take() {
            let _ = world.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::ReduceOp;

    #[test]
    fn ranks_keep_their_state_between_measurements() {
        let mut ranks = Harness::new(3, |comm| Ok([comm.rank() as u64])).unwrap();
        for expected in [3, 9] {
            let took = ranks.time(1, |comm, sum| comm.all_reduce_in_place(sum, ReduceOp::Sum)).unwrap();
            assert!(took > Duration::ZERO);
            let check = move |_: &Communicator, sum: &mut [u64; 1]| match *sum == [expected] {
                true => Ok(()),
                false => Err(Error::invalid(format!("{sum:?} is not {expected}"))),
            };
            ranks.time(1, check).unwrap();
        }
    }

    #[test]
    fn the_slowest_rank_counts() {
        let mut ranks = Harness::new(2, |_| Ok(())).unwrap();
        let one_sleeps = |comm: &Communicator, _: &mut ()| {
            std::thread::sleep(Duration::from_millis(comm.rank() as u64));
            Ok(())
        };
        assert!(ranks.time(5, one_sleeps).unwrap() >= Duration::from_millis(5));
    }

    #[test]
    fn failures_are_errors() {
        assert!(matches!(Harness::new(0, |_| Ok(())), Err(Error::InvalidArgument(_))));
        let mut ranks = Harness::new(2, |_| Ok(())).unwrap();
        let uneven = |comm: &Communicator, _: &mut ()| comm.all_gather(&[0_u8; 2][..1 + comm.rank()], &mut [0; 4]);
        assert!(matches!(ranks.time(1, uneven), Err(Error::InvalidArgument(_))));
        assert!(matches!(ranks.time(1, |comm, _| comm.barrier()), Err(Error::Aborted(_))));
        let mut ranks = Harness::new(2, |_| Ok(())).unwrap();
        let one_alone = |comm: &Communicator, _: &mut ()| match comm.rank() {
            0 => Err(Error::unsupported("rank 0")),
            _ => Ok(()),
        };
        assert_eq!(ranks.time(1, one_alone).unwrap_err(), Error::unsupported("rank 0"));
        let mut ranks = Harness::<()>::new(2, |_| Err(Error::unsupported("no state"))).unwrap();
        assert_eq!(ranks.time(1, |_, _| Ok(())).unwrap_err(), Error::unsupported("no state"));
        let mut ranks = Harness::new(2, |_| Ok(())).unwrap();
        assert!(matches!(ranks.time(1, |_, _| panic!("planted")), Err(Error::Aborted(_))));
    }
}
