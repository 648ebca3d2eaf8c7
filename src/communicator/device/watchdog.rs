// SPDX-License-Identifier: MPL-2.0
//! Who looks after calls that nobody waits for: a thread that carries failures from the host to the device and back.
//!
//! It looks for ranks that are gone, too. A failure on the host, which may be another rank's, becomes this rank's abort
//! word, so that kernels that run end. A failure of a kernel is put into words, which tells the other ranks, though
//! nobody has synchronised yet.
//!
//! A communicator may be dropped while its calls are on streams, or in graphs that can still be launched. The thread
//! then goes on, and holds the host's communicator, by which others see whether a rank is there, until nothing uses the
//! rank's state any more: each launch does, until it has been done, and each graph. So a rank that has left makes no
//! call, and whoever waits for one knows at once (`gone`).

use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::super::{Communicator, failure};
use super::gone::Gone;
use super::join::Members;
use crate::driver::FaultWords;
use crate::error::{Error, Result};

/// How often it looks.
const PERIOD: Duration = Duration::from_millis(5);

/// In how many of these looks it asks for ranks that are gone once.
const GONE: u64 = 10;

/// The thread.
pub(super) struct Watchdog {
    members: Arc<Members>,
    /// What is sent ends the thread; when this is gone, it ends once this rank's calls have been done.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    pub fn start(members: Arc<Members>, faults: FaultWords, control: Arc<Mutex<Communicator>>) -> Result<Watchdog> {
        let (stop, stopped) = channel::<()>();
        let watched = members.clone();
        let watch = move || {
            let (members, _control) = (watched, control);
            let mut gone = Gone::default();
            for turn in 0_u64.. {
                match stopped.recv_timeout(PERIOD) {
                    Ok(()) => return,
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) if members.is_idle() => return,
                    Err(RecvTimeoutError::Disconnected) => std::thread::sleep(PERIOD),
                }
                if turn % GONE == 0 {
                    gone.look(&members);
                }
                if members.failure(&faults).is_err() {
                    // Relaxed: the word is all there is to it.
                    members.abort.get()[0].store(1, Ordering::Relaxed);
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("annulus-watchdog".into())
            .spawn(watch)
            .map_err(|error| Error::system("starting the thread that watches over device calls", error))?;
        Ok(Watchdog { members, stop: Some(stop), thread: Some(thread) })
    }
}

impl Watchdog {
    /// Ends it now: all ranks' calls have been done.
    pub fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            // Where it has ended, there is nothing to be told.
            let _ = stop.send(());
        }
        self.join();
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // It does not panic; if it did, there would be nothing left to do.
            let _ = thread.join();
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.stop = None;
        if !self.members.is_idle() {
            if std::thread::panicking() {
                self.members.reporter.report(failure::panicked(self.members.rank));
            }
            return;
        }
        self.join();
    }
}
