// SPDX-License-Identifier: MPL-2.0
//! Who looks after calls that nobody waits for: a thread that carries failures from the host to the device and back.
//!
//! It looks for ranks that have died, too. A failure on the host, which may be another rank's, becomes this rank's
//! abort word, so that kernels that run end. A failure of a kernel is put into words, which tells the other ranks,
//! though nobody has synchronised yet.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::fault;
use super::join::Members;
use crate::driver::FaultWords;
use crate::error::{Error, Result};

/// How often it looks.
const PERIOD: Duration = Duration::from_millis(5);

/// In how many of these looks it asks the operating system for deaths once.
const DEATHS: u64 = 10;

/// The thread; it ends when this is dropped.
pub(super) struct Watchdog {
    /// Nothing is sent: the thread ends when it is gone.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    pub fn start(members: Arc<Members>, faults: FaultWords) -> Result<Watchdog> {
        let (stop, stopped) = channel::<()>();
        let watch = move || {
            let mut deaths = fault::Deaths::default();
            for turn in 0_u64.. {
                if stopped.recv_timeout(PERIOD) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                if turn % DEATHS == 0 {
                    deaths.look(&members);
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
        Ok(Watchdog { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It does not panic; if it did, there would be nothing left to do.
            let _ = thread.join();
        }
    }
}
