// SPDX-License-Identifier: MPL-2.0
//! What a rank knows of each of its calls: when it arrived, when the last rank arrived, when it was done, and what ran.
//!
//! Waiting for others and moving data are two numbers, never one: a call that took long because a peer came late has a
//! long `wait` and an ordinary `transfer`.

mod clock;

use std::time::Duration;

pub use clock::{Clock, Ticks};

use crate::element::{DataType, ReduceOp};
use crate::schedule::Collective;

/// One call of one rank.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallRecord {
    /// The call's number on its communicator, from 0.
    pub call: u64,
    /// What was called.
    pub collective: Collective,
    /// The element type.
    pub data_type: DataType,
    /// The operation, of collectives that fold; `None` also for an operation of one's own.
    pub op: Option<ReduceOp>,
    /// The name of the operation of one's own, if it folded with one; long names are cut after 32 bytes.
    pub operator: Option<String>,
    /// Bytes by nccl-tests' definition: the whole buffer of an all-reduce or broadcast, all parts together of a
    /// reduce-scatter or all-gather.
    pub bytes: usize,
    /// The algorithm that ran, by name.
    pub algorithm: String,
    /// How it ran: `schedule`; on devices also `kernel`.
    pub path: &'static str,
    /// From this rank's arrival to the last rank's.
    pub wait: Duration,
    /// From the last rank's arrival to this rank's end.
    pub transfer: Duration,
    /// The rank that arrived last.
    pub last_rank: usize,
    /// This rank's arrival, in ticks that compare among ranks of one machine.
    pub arrived: Ticks,
    /// The last rank's arrival, in the same ticks.
    pub last_arrived: Ticks,
    /// This rank's end.
    pub done: Ticks,
}

/// What a record keeps until somebody asks: plain words, so that recording costs a few stores.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Stamps {
    pub arrived: Ticks,
    pub last_arrived: Ticks,
    pub last_rank: usize,
    pub done: Ticks,
}

impl Stamps {
    /// The time before the last rank arrived, and after. A call that ended before the last arrival was seen counts as
    /// waiting; clocks of different cores may disagree by a tick, so differences saturate.
    pub fn split(&self, clock: Clock) -> (Duration, Duration) {
        let turn = self.last_arrived.clamp(self.arrived, self.done.max(self.arrived));
        (clock.duration(turn - self.arrived), clock.duration(self.done.saturating_sub(turn)))
    }
}
