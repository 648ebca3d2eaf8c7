// SPDX-License-Identifier: MPL-2.0
//! Who moves a rank's calls on, and when.
//!
//! A blocking call is moved on by its caller alone while nothing else is in flight, under the engine's lock, until a
//! handle of a call that is over by then wants it. With started calls in flight, whoever holds the lock moves all of
//! them on and lets go between pieces: the callers, handles being waited for, and the rank's progress thread, which is
//! born with the first started call and asleep while nothing is in flight.
//!
//! Calls are in *lanes*, each with a numbering of its own: lane 0 is the communicator's collectives, and there is one for
//! the messages from each rank to each other rank with which messages are exchanged (`messages`).

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::calls::at_once::Begun;
use super::calls::{Call, Calls, Poll};
use super::completion::{Completion, Outcome, Parked};
use super::execute::Awaited;
use super::failure::{self, Reporter};
use crate::error::{Error, Result};
use crate::transport::Transport;
use crate::transport::pair::Pair;
use crate::transport::waiting::{self, LONGEST_SLEEP, Next, Patience, Stages};

/// The engine of one rank's communicator.
pub(crate) struct Engine {
    pub transport: Arc<dyn Transport>,
    lanes: Mutex<Lanes>,
    stages: Stages,
    reporter: Arc<Reporter>,
    /// Threads that want the lock: whoever holds it with work to do lets them in.
    wanting: AtomicUsize,
    /// Those of them that wait for a started call. The progress thread is not among them, since a blocking call that has
    /// the lock to itself leaves it nothing to do.
    awaiting: AtomicUsize,
    /// Where the progress thread waits while nothing is in flight.
    work: Condvar,
    progress: Mutex<Option<std::thread::JoinHandle<()>>>,
    has_progress: AtomicBool,
    /// Set under the lock, so that the progress thread sees it before it waits for work again.
    closing: AtomicBool,
}

/// The lane of the communicator's collectives.
pub(crate) const COLLECTIVES: usize = 0;

/// All that a rank has in flight.
pub(crate) struct Lanes {
    all: Vec<Calls>,
    /// The lanes of messages, by sender and receiver.
    pairs: HashMap<(usize, usize), usize>,
}

/// Something that a call in flight waits for.
struct Wanted {
    transport: Arc<dyn Transport>,
    channel: usize,
    epoch: u64,
    awaited: Awaited,
}

impl Lanes {
    /// The communicator's collectives.
    pub fn collectives(&mut self) -> &mut Calls {
        &mut self.all[COLLECTIVES]
    }

    pub fn set_timeout(&mut self, timeout: Duration) {
        self.all.iter_mut().for_each(|calls| calls.set_timeout(timeout));
    }

    fn in_flight(&self) -> usize {
        self.all.iter().map(Calls::in_flight).sum()
    }

    /// Moves every call on by a piece. True if any moved.
    fn poll_all(&mut self) -> bool {
        self.all.iter_mut().fold(false, |moved, calls| calls.poll_all() | moved)
    }

    /// What the calls in flight wait for; `None` if one of them need not wait.
    fn wanted(&mut self) -> Option<Vec<Wanted>> {
        let mut all = Vec::new();
        for calls in &mut self.all {
            let transport = calls.transport().clone();
            let wanted = |(channel, epoch, awaited)| Wanted { transport: transport.clone(), channel, epoch, awaited };
            all.extend(calls.awaited()?.into_iter().map(wanted));
        }
        Some(all)
    }
}

impl Engine {
    pub fn new(transport: Arc<dyn Transport>, reporter: Arc<Reporter>, timeout: Duration) -> Self {
        let collectives = Calls::new(transport.clone(), reporter.clone(), timeout);
        Engine {
            stages: if transport.is_roomy() { Stages::ROOMY } else { Stages::CROWDED },
            transport,
            lanes: Mutex::new(Lanes { all: vec![collectives], pairs: HashMap::new() }),
            reporter,
            wanting: AtomicUsize::new(0),
            awaiting: AtomicUsize::new(0),
            work: Condvar::new(),
            progress: Mutex::default(),
            has_progress: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        }
    }

    /// All calls, for a short while.
    pub fn lock(&self) -> MutexGuard<'_, Lanes> {
        match self.lanes.try_lock() {
            Ok(lanes) => lanes,
            Err(_) => {
                // Relaxed: a hint; the lock itself orders everything.
                self.wanting.fetch_add(1, Ordering::Relaxed);
                let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
                self.wanting.fetch_sub(1, Ordering::Relaxed);
                lanes
            }
        }
    }

    /// The lane of messages from one rank to another, of which this rank is one.
    pub fn pair(&self, from: usize, to: usize, timeout: Duration) -> Result<usize> {
        let mut lanes = self.lock();
        if let Some(lane) = lanes.pairs.get(&(from, to)) {
            return Ok(*lane);
        }
        let transport = Pair::new(self.transport.clone(), from, to).map_err(|error| {
            self.refused(format_args!("preparing messages from rank {from} to rank {to}"), &error, "free memory")
        })?;
        let transport = Arc::new(transport);
        lanes.all.push(Calls::new(transport, self.reporter.clone(), timeout));
        let lane = lanes.all.len() - 1;
        lanes.pairs.insert((from, to), lane);
        Ok(lane)
    }

    /// A call that returns when it is done.
    pub fn block(&self, call: Call<'_>) -> Result<()> {
        let (lane, stages) = (call.lane, self.stages);
        let mut lanes = self.lock();
        let channel = loop {
            let begun = match lanes.in_flight() {
                0 => lanes.all[lane].at_once(&call, stages.looks)?,
                _ => lanes.all[lane].begin(&call, None)?.map(Begun::Kept),
            };
            match begun {
                Some(Begun::Over) => return Ok(()),
                Some(Begun::Kept(channel)) => break channel,
                None => lanes = self.wait_for_channel(lanes, lane),
            }
        };
        let number = lanes.all[lane].upcoming_call() - 1;
        let mut patience = Patience::new(stages);
        if lanes.in_flight() == 1 {
            // Nobody else has anything to do: keep the lock, unless somebody has to see that a call is over.
            let calls = &mut lanes.all[lane];
            // Relaxed: a hint, as `wanting` is.
            while self.awaiting.load(Ordering::Relaxed) == 0 {
                match calls.poll(channel) {
                    Poll::Done(result) => return result,
                    Poll::Moved => patience.reset(),
                    Poll::Blocked(awaited) => calls.pause(&mut patience, channel, awaited),
                }
            }
        }
        loop {
            let moved = lanes.poll_all();
            if let Some(result) = lanes.all[lane].finished(channel, number) {
                return result;
            }
            lanes = self.let_go(lanes, moved, &mut patience);
        }
    }

    /// Starts a call and returns at once; its outcome appears in the completion.
    pub fn start(self: &Arc<Self>, call: Call<'_>, buffers: Box<dyn Any + Send>) -> Result<(Arc<Completion>, u64)> {
        self.ensure_progress_thread()?;
        let lane = call.lane;
        let completion = Arc::new(Completion::default());
        let mut parked = Some(Parked { completion: completion.clone(), buffers });
        let mut lanes = self.lock();
        while lanes.all[lane].begin(&call, Some(&mut parked))?.is_none() {
            lanes = self.wait_for_channel(lanes, lane);
        }
        let number = lanes.all[lane].upcoming_call() - 1;
        drop(lanes);
        // The progress thread waits for work, or sleeps for the sake of earlier calls.
        self.work.notify_one();
        waiting::announce();
        self.transport.page(self.transport.rank()).ring(&self.transport.bed());
        Ok((completion, number))
    }

    /// Calls that proceed together, as many of each lane at a time as can, and return when all are done. The order within
    /// a lane is kept; nothing else is waited for in order.
    pub fn together(&self, calls: Vec<Call<'_>>) -> Result<()> {
        let mut waiting: HashMap<usize, VecDeque<Call<'_>>> = HashMap::new();
        let mut completions = Vec::with_capacity(calls.len());
        for call in calls {
            waiting.entry(call.lane).or_default().push_back(call);
        }
        let mut failure = Ok(());
        let mut patience = Patience::new(self.stages);
        let mut lanes = self.lock();
        loop {
            for (lane, queue) in &mut waiting {
                while let Some(call) = queue.front().filter(|_| failure.is_ok()) {
                    let completion = Arc::new(Completion::default());
                    let mut parked = Some(Parked { completion: completion.clone(), buffers: Box::new(()) });
                    match lanes.all[*lane].begin(call, Some(&mut parked)) {
                        Ok(Some(_)) => completions.push(completion),
                        Ok(None) => break,
                        Err(error) => failure = Err(error),
                    }
                    if failure.is_ok() {
                        queue.pop_front();
                    }
                }
            }
            let moved = lanes.poll_all();
            // Whatever has begun ends before this returns, since it uses the caller's buffers.
            let begun = failure.is_err() || waiting.values().all(VecDeque::is_empty);
            if begun && completions.iter().all(|completion| completion.is_over()) {
                break;
            }
            lanes = self.let_go(lanes, moved, &mut patience);
        }
        drop(lanes);
        for completion in completions {
            let outcome = completion.take().map_or(Ok(()), |outcome| outcome.map(drop));
            failure = failure.and(outcome);
        }
        failure
    }

    /// Moves calls on until this one is over, and takes its outcome.
    pub fn wait(&self, completion: &Completion) -> Outcome {
        self.until_over(completion);
        completion.take().unwrap_or_else(|| Err(Error::invalid("the outcome of this call was taken before")))
    }

    /// The same, without taking the outcome if somebody did already.
    pub fn settle(&self, completion: &Completion) -> Result<()> {
        self.until_over(completion);
        completion.take().map_or(Ok(()), |outcome| outcome.map(drop))
    }

    /// Whether a call is over. If it is not, moves all calls on by a piece first, unless others are at it.
    pub fn look(&self, completion: &Completion) -> bool {
        if completion.is_over() {
            return true;
        }
        if let Ok(mut lanes) = self.lanes.try_lock() {
            lanes.poll_all();
        }
        completion.is_over()
    }

    fn until_over(&self, completion: &Completion) {
        // Whoever has the lock may be waiting for what this thread will do next.
        if completion.is_over() {
            return;
        }
        // Relaxed: a hint; the lock itself orders everything.
        self.awaiting.fetch_add(1, Ordering::Relaxed);
        let lanes = self.lock();
        self.awaiting.fetch_sub(1, Ordering::Relaxed);
        drop(self.until(lanes, |_| completion.is_over()));
    }

    /// The ninth call waits until the first of the eight before it is done.
    fn wait_for_channel<'a>(&'a self, lanes: MutexGuard<'a, Lanes>, lane: usize) -> MutexGuard<'a, Lanes> {
        let channel = lanes.all[lane].next_channel();
        self.until(lanes, |lanes| !lanes.all[lane].is_busy(channel))
    }

    /// Moves all calls on until something holds.
    fn until<'a>(&'a self, mut lanes: MutexGuard<'a, Lanes>, holds: impl Fn(&Lanes) -> bool) -> MutexGuard<'a, Lanes> {
        let mut patience = Patience::new(self.stages);
        while !holds(&lanes) {
            let moved = lanes.poll_all();
            if !holds(&lanes) {
                lanes = self.let_go(lanes, moved, &mut patience);
            }
        }
        lanes
    }

    /// Between two rounds over all calls: lets others have the lock, and waits if nothing moved.
    fn let_go<'a>(
        &'a self,
        mut lanes: MutexGuard<'a, Lanes>,
        moved: bool,
        patience: &mut Patience,
    ) -> MutexGuard<'a, Lanes> {
        if moved {
            patience.reset();
            if self.wanting.load(Ordering::Relaxed) > 0 {
                drop(lanes);
                std::thread::yield_now();
                return self.lock();
            }
            return lanes;
        }
        match patience.next() {
            Next::Spin if self.wanting.load(Ordering::Relaxed) == 0 => lanes,
            Next::Spin | Next::Yield => {
                drop(lanes);
                std::thread::yield_now();
                self.lock()
            }
            Next::Sleep => {
                lanes.all.iter_mut().for_each(Calls::look_after_all);
                let wanted = lanes.wanted();
                drop(lanes);
                if let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) {
                    let is_there =
                        |wanted: &Wanted| wanted.awaited.is_there(&*wanted.transport, wanted.channel, wanted.epoch);
                    let ready = || self.transport.root().poisoned_by().is_some() || wanted.iter().any(is_there);
                    let own = self.transport.page(self.transport.rank());
                    own.sleep(&self.transport.bed(), LONGEST_SLEEP, ready);
                }
                self.lock()
            }
        }
    }

    fn ensure_progress_thread(self: &Arc<Self>) -> Result<()> {
        // Relaxed: only this communicator's caller starts calls, one at a time.
        if self.has_progress.load(Ordering::Relaxed) {
            return Ok(());
        }
        let engine = self.clone();
        let thread = std::thread::Builder::new()
            .name(format!("annulus-{}", self.transport.rank()))
            .spawn(move || engine.progress())
            .map_err(|error| self.refused("starting a thread for started calls", &error, "allow more (ulimit -u)"))?;
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        self.has_progress.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The system has refused what this rank needs to make a call for which others may be waiting: they get that too.
    #[cold]
    fn refused(&self, attempt: impl Display, error: &dyn Display, remedy: &str) -> Error {
        let rank = self.transport.rank();
        self.reporter.report(Error::System(format!("{attempt} on rank {rank}: {error}; {remedy}").into()))
    }

    /// The progress thread: asleep while nothing is in flight, quick to yield while something is.
    fn progress(&self) {
        let mut patience = Patience::new(Stages::PROGRESS);
        let mut lanes = self.lock();
        loop {
            if lanes.in_flight() == 0 {
                if self.closing.load(Ordering::Relaxed) {
                    return;
                }
                patience.reset();
                lanes = self.work.wait(lanes).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let moved = lanes.poll_all();
            lanes = self.let_go(lanes, moved, &mut patience);
        }
    }

    /// Ends: completes what is in flight (or fails it, if this thread is being unwound), stops the progress thread.
    pub fn close(&self, panicking: bool) {
        let mut lanes = self.lock();
        if panicking && lanes.in_flight() > 0 {
            let rank = self.transport.rank();
            lanes.collectives().fail(failure::panicked(rank));
        }
        let lanes = self.until(lanes, |lanes| lanes.in_flight() == 0);
        self.closing.store(true, Ordering::Relaxed);
        drop(lanes);
        self.work.notify_all();
        if let Some(thread) = self.progress.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // It holds nothing but the engine, and cannot have panicked; if it has, there is nothing to be done here.
            let _ = thread.join();
        }
    }
}
