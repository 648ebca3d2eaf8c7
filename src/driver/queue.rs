// SPDX-License-Identifier: MPL-2.0
//! How far ahead of a device its streams may be.
//!
//! A driver's queue is finite. Once about a thousand commands of a process have not been done, on all of a card's streams
//! together, the call that enqueues the next does not return until some have been; and while it waits inside the driver,
//! other threads' calls wait for it. Ranks that are threads would then wait for ever: one has filled the queue with calls
//! that wait for a peer's, and the peer cannot enqueue it. So operations are counted, and whoever is too far ahead waits
//! for its own stream, outside of the driver, where that keeps nobody else. A driver may count what is in a graph as well;
//! so a launch counts as what was captured.
//!
//! Every stream may have a few operations outstanding whatever the others have, and what is beyond that is common. So
//! whoever is behind can always enqueue: of the earliest call that is not over, some rank's part is missing, and what
//! that rank's streams have been given before is done without it. The same holds on every kind of device, so that a
//! program that waits on one waits on all.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::device::Core;
use super::mark::Pending;
use super::stream::WeakStream;

/// Operations of a device that may be outstanding: each is a few commands, waits for others, itself, and the mark behind it.
const MOST: usize = 192;

/// Operations that each stream may have outstanding, if there are not too many streams for that.
const OWN: usize = 8;

/// As how many operations a longer graph counts: so that while it is done, something can be enqueued behind it.
const LONGEST: usize = MOST / 2;

/// What is outstanding on a device.
#[derive(Default)]
pub(super) struct Queue {
    /// Operations. Relaxed: a count that is a few too low or too high does no harm, and nothing else is read by it.
    outstanding: AtomicUsize,
    streams: Mutex<Vec<WeakStream>>,
    /// How many there are of these. Relaxed, as above.
    count: AtomicUsize,
}

/// Operations that count as outstanding.
pub(super) struct Outstanding {
    device: Arc<Core>,
    weight: usize,
}

impl Queue {
    pub fn add(&self, stream: WeakStream) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.retain(WeakStream::is_there);
        streams.push(stream);
        self.count.store(streams.len(), Ordering::Relaxed);
    }

    /// Whether a stream with these outstanding may have so many more: always, if it has none.
    pub fn has_room(&self, own: &VecDeque<Pending>, weight: usize) -> bool {
        let streams = self.count.load(Ordering::Relaxed).max(1);
        let each = OWN.min(MOST / 2 / streams).max(1);
        // Each counts as one at the least, so there is no need to look at more.
        let is_short = || own.iter().map(|pending| pending.outstanding.weight).sum::<usize>() < each;
        (own.len() < each && is_short()) || self.outstanding.load(Ordering::Relaxed) + weight + streams * each <= MOST
    }

    /// Lets go of what any stream has done.
    pub fn let_go(&self) {
        // Not while the lock is held: what an operation kept may be a stream.
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner).clone();
        streams.iter().filter_map(WeakStream::upgrade).for_each(|stream| stream.let_go());
    }
}

/// As how many operations a launch of so many captured ones counts.
pub(super) fn weight_of(captured: usize) -> usize {
    captured.clamp(1, LONGEST)
}

impl Outstanding {
    pub fn new(device: &Arc<Core>, weight: usize) -> Self {
        device.queue.outstanding.fetch_add(weight, Ordering::Relaxed);
        Outstanding { device: device.clone(), weight }
    }
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        self.device.queue.outstanding.fetch_sub(self.weight, Ordering::Relaxed);
    }
}
