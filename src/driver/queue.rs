// SPDX-License-Identifier: MPL-2.0
//! How far ahead of a device its streams may be.
//!
//! A driver's queue is finite. Once about a thousand commands of a process have not been done, on all of a card's streams
//! together, the call that enqueues the next does not return until some have been; and while it waits inside the driver,
//! other threads' calls wait for it. Ranks that are threads would then wait for ever: one has filled the queue with calls
//! that wait for a peer's, and the peer cannot enqueue it. So operations are counted, and whoever is too far ahead waits
//! for its own stream, outside of the driver, where that keeps nobody else.
//!
//! Every stream may have a few operations outstanding whatever the others have, and what is beyond that is common. So
//! whoever is behind can always enqueue: of the earliest call that is not over, some rank's part is missing, and what
//! that rank's streams have been given before is done without it. The same holds on every kind of device, so that a
//! program that waits on one waits on all.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::device::Core;
use super::stream::WeakStream;

/// Operations of a device that may be outstanding: each is a few commands, waits for others, itself, and the mark behind it.
const MOST: usize = 192;

/// Operations that each stream may have outstanding, if there are not too many streams for that.
const OWN: usize = 8;

/// What is outstanding on a device.
#[derive(Default)]
pub(super) struct Queue {
    /// Operations. Relaxed: a count that is a few too low or too high does no harm, and nothing else is read by it.
    outstanding: AtomicUsize,
    streams: Mutex<Vec<WeakStream>>,
    /// How many there are of these. Relaxed, as above.
    count: AtomicUsize,
}

/// An operation that counts as outstanding.
pub(super) struct Outstanding(Arc<Core>);

impl Queue {
    pub fn add(&self, stream: WeakStream) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.retain(WeakStream::is_there);
        streams.push(stream);
        self.count.store(streams.len(), Ordering::Relaxed);
    }

    /// Whether a stream with so many operations outstanding may have one more.
    pub fn has_room(&self, own: usize) -> bool {
        let streams = self.count.load(Ordering::Relaxed).max(1);
        let each = OWN.min(MOST / 2 / streams).max(1);
        own < each || self.outstanding.load(Ordering::Relaxed) + streams * each < MOST
    }

    /// Lets go of what any stream has done.
    pub fn let_go(&self) {
        // Not while the lock is held: what an operation kept may be a stream.
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner).clone();
        streams.iter().filter_map(WeakStream::upgrade).for_each(|stream| stream.let_go());
    }
}

impl Outstanding {
    pub fn new(core: &Arc<Core>) -> Self {
        core.queue.outstanding.fetch_add(1, Ordering::Relaxed);
        Outstanding(core.clone())
    }
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        self.0.queue.outstanding.fetch_sub(1, Ordering::Relaxed);
    }
}
