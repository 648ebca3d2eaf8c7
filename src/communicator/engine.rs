// SPDX-License-Identifier: MPL-2.0
//! Who moves a rank's calls on, and when.
//!
//! A blocking call is moved on by its caller alone while nothing else is in flight, under the engine's lock, which then
//! nobody else wants. With started calls in flight, whoever holds the lock moves all of them on and lets go between
//! pieces: the callers, handles being waited for, and the rank's progress thread, which is born with the first started
//! call and asleep while nothing is in flight.

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::calls::{Call, Calls, Poll};
use super::completion::{Completion, Outcome, Parked};
use super::failure::{self, Reporter};
use crate::error::{Error, Result};
use crate::transport::Transport;
use crate::transport::waiting::{self, LONGEST_SLEEP, Next, Patience, Stages};

/// The engine of one rank's communicator.
pub(crate) struct Engine {
    pub transport: Arc<dyn Transport>,
    calls: Mutex<Calls>,
    /// Threads that want the lock: whoever holds it with work to do lets them in.
    wanting: AtomicUsize,
    /// Where the progress thread waits while nothing is in flight.
    work: Condvar,
    progress: Mutex<Option<std::thread::JoinHandle<()>>>,
    has_progress: AtomicBool,
    /// Set under the lock, so that the progress thread sees it before it waits for work again.
    closing: AtomicBool,
}

impl Engine {
    pub fn new(transport: Arc<dyn Transport>, reporter: Arc<Reporter>, timeout: Duration) -> Self {
        let calls = Calls::new(transport.clone(), reporter, timeout);
        Engine {
            transport,
            calls: Mutex::new(calls),
            wanting: AtomicUsize::new(0),
            work: Condvar::new(),
            progress: Mutex::default(),
            has_progress: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        }
    }

    /// The calls, for a short while.
    pub fn lock(&self) -> MutexGuard<'_, Calls> {
        match self.calls.try_lock() {
            Ok(calls) => calls,
            Err(_) => {
                // Relaxed: a hint; the lock itself orders everything.
                self.wanting.fetch_add(1, Ordering::Relaxed);
                let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
                self.wanting.fetch_sub(1, Ordering::Relaxed);
                calls
            }
        }
    }

    fn stages(&self) -> Stages {
        if self.transport.is_roomy() { Stages::ROOMY } else { Stages::CROWDED }
    }

    /// A call that returns when it is done.
    pub fn block(&self, call: Call<'_>) -> Result<()> {
        let mut calls = self.lock();
        let channel = loop {
            match calls.begin(&call, None)? {
                Some(channel) => break channel,
                None => calls = self.wait_for_channel(calls),
            }
        };
        let number = calls.upcoming_call() - 1;
        let mut patience = Patience::new(self.stages());
        if calls.in_flight() == 1 {
            // Nobody else has anything to do: keep the lock.
            loop {
                match calls.poll(channel) {
                    Poll::Done(result) => return result,
                    Poll::Moved => patience.reset(),
                    Poll::Blocked(awaited) => calls.pause(&mut patience, channel, awaited),
                }
            }
        }
        loop {
            let moved = calls.poll_all();
            if let Some(result) = calls.finished(channel, number) {
                return result;
            }
            calls = self.let_go(calls, moved, &mut patience);
        }
    }

    /// Starts a call and returns at once; its outcome appears in `parked.completion`.
    pub fn start(self: &Arc<Self>, call: Call<'_>, buffers: Box<dyn Any + Send>) -> Result<(Arc<Completion>, u64)> {
        self.ensure_progress_thread()?;
        let completion = Arc::new(Completion::default());
        let mut parked = Some(Parked { completion: completion.clone(), buffers });
        let mut calls = self.lock();
        while calls.begin(&call, Some(&mut parked))?.is_none() {
            calls = self.wait_for_channel(calls);
        }
        let number = calls.upcoming_call() - 1;
        drop(calls);
        // The progress thread waits for work, or sleeps for the sake of earlier calls.
        self.work.notify_one();
        waiting::announce();
        self.transport.page(self.transport.rank()).ring(&self.transport.bed());
        Ok((completion, number))
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

    fn until_over(&self, completion: &Completion) {
        drop(self.until(self.lock(), |_| completion.is_over()));
    }

    /// The ninth call waits until the first of the eight before it is done.
    fn wait_for_channel<'a>(&'a self, calls: MutexGuard<'a, Calls>) -> MutexGuard<'a, Calls> {
        let channel = calls.next_channel();
        self.until(calls, |calls| !calls.is_busy(channel))
    }

    /// Moves all calls on until something holds.
    fn until<'a>(&'a self, mut calls: MutexGuard<'a, Calls>, holds: impl Fn(&Calls) -> bool) -> MutexGuard<'a, Calls> {
        let mut patience = Patience::new(self.stages());
        while !holds(&calls) {
            let moved = calls.poll_all();
            if !holds(&calls) {
                calls = self.let_go(calls, moved, &mut patience);
            }
        }
        calls
    }

    /// Between two rounds over all calls: lets others have the lock, and waits if nothing moved.
    fn let_go<'a>(
        &'a self,
        mut calls: MutexGuard<'a, Calls>,
        moved: bool,
        patience: &mut Patience,
    ) -> MutexGuard<'a, Calls> {
        if moved {
            patience.reset();
            if self.wanting.load(Ordering::Relaxed) > 0 {
                drop(calls);
                std::thread::yield_now();
                return self.lock();
            }
            return calls;
        }
        match patience.next() {
            Next::Spin if self.wanting.load(Ordering::Relaxed) == 0 => calls,
            Next::Spin | Next::Yield => {
                drop(calls);
                std::thread::yield_now();
                self.lock()
            }
            Next::Sleep => {
                calls.look_after_all();
                let awaited = calls.awaited();
                drop(calls);
                if let Some(awaited) = awaited.filter(|awaited| !awaited.is_empty()) {
                    let own = self.transport.page(self.transport.rank());
                    let ready = || {
                        self.transport.root().poisoned_by().is_some()
                            || awaited
                                .iter()
                                .any(|(channel, epoch, what)| what.is_there(&*self.transport, *channel, *epoch))
                    };
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
            .map_err(|error| Error::system("starting the progress thread", error))?;
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        self.has_progress.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The progress thread: asleep while nothing is in flight, quick to yield while something is.
    fn progress(&self) {
        let mut patience = Patience::new(Stages::PROGRESS);
        let mut calls = self.lock();
        loop {
            if calls.in_flight() == 0 {
                if self.closing.load(Ordering::Relaxed) {
                    return;
                }
                patience.reset();
                calls = self.work.wait(calls).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let moved = calls.poll_all();
            calls = self.let_go(calls, moved, &mut patience);
        }
    }

    /// Ends: completes what is in flight (or fails it, if this thread is being unwound), stops the progress thread.
    pub fn close(&self, panicking: bool) {
        let mut calls = self.lock();
        if panicking && calls.in_flight() > 0 {
            let rank = self.transport.rank();
            calls.fail(failure::panicked(rank));
        }
        let calls = self.until(calls, |calls| calls.in_flight() == 0);
        self.closing.store(true, Ordering::Relaxed);
        drop(calls);
        self.work.notify_all();
        if let Some(thread) = self.progress.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // It holds nothing but the engine, and cannot have panicked; if it has, there is nothing to be done here.
            let _ = thread.join();
        }
    }
}
