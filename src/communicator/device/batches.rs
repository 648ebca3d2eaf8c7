// SPDX-License-Identifier: MPL-2.0
//! What is known of batches of messages that have been done: how much was moved, and how long this rank waited for peers.

use std::ops::Range;
use std::time::Duration;

use super::DeviceCommunicator;
use crate::record::Ticks;

/// A batch of messages, or one by itself, of one rank: see [`DeviceCommunicator::batches`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchRecord {
    /// How many messages there were, beside those of the rank to itself.
    pub messages: usize,
    /// Bytes that the rank sent.
    pub sent: usize,
    /// Bytes that it received.
    pub received: usize,
    /// From this rank's arrival to when the last of its peers had come.
    pub wait: Duration,
    /// From then to the end.
    pub transfer: Duration,
    /// The peer that came last, or this rank.
    pub last_rank: usize,
    /// This rank's arrival.
    pub arrived: Ticks,
    /// The last peer's.
    pub last_arrived: Ticks,
    /// This rank's end.
    pub done: Ticks,
}

/// A batch that was enqueued or captured.
pub(super) struct Exchanged {
    pub messages: usize,
    pub sent: usize,
    pub received: usize,
    /// The numbers of its launches.
    pub launches: Range<u64>,
}

impl DeviceCommunicator {
    /// The batches of messages that have been done, of those that were enqueued or captured last, up to 256, in that
    /// order; a message by itself is a batch of one. They are not among [`calls`](Self::calls), whose numbers are those
    /// of all ranks. All else is as [Records](Self#records) says.
    pub fn batches(&self) -> Vec<BatchRecord> {
        self.history.exchanged(|exchanged, span| BatchRecord {
            messages: exchanged.messages,
            sent: exchanged.sent,
            received: exchanged.received,
            wait: span.wait,
            transfer: span.transfer,
            last_rank: span.last_rank,
            arrived: span.arrived,
            last_arrived: span.last_arrived,
            done: span.done,
        })
    }
}
