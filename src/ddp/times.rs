// SPDX-License-Identifier: MPL-2.0
//! Where a rank's time went.
//!
//! The training thread is *blocked* while it waits for a call to end. Every blocked interval is split at the moment
//! when the last rank arrived at that call: before it the rank waits for others, after it data is moved. What is left
//! of the wall time is computing. A call also moves data while the thread computes: that part of the call's own
//! transfer, from the last arrival to its end, is overlapped, and costs the thread nothing.
//!
//! ```text
//! thread   compute ......................... | blocked ................ | compute ..
//! call          arrived      last_arrived    |                    done  |
//!                  |--- waits ---|-- overlapped --|----- transfer ------|
//! ```

use std::ops::Range;
use std::time::Duration;

use crate::record::{CallRecord, Clock, Ticks};

/// Where a rank's time went, of all steps together. `compute + wait + transfer` is the wall time of the steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// The training thread computed.
    pub compute: Duration,
    /// It was blocked, and not all ranks had arrived.
    pub wait: Duration,
    /// It was blocked, and data was being moved.
    pub transfer: Duration,
    /// Data was moved while it computed. Part of `compute`.
    pub overlapped: Duration,
}

/// The accounts of one rank.
#[derive(Debug)]
pub(super) struct Ledger {
    clock: Clock,
    /// Intervals since the last `settle`: when the thread was blocked, and when calls moved data.
    blocked: Vec<Range<Ticks>>,
    moved: Vec<Range<Ticks>>,
    wait: Ticks,
    transfer: Ticks,
    overlapped: Ticks,
}

impl Ledger {
    pub fn new() -> Self {
        let (blocked, moved) = (Vec::new(), Vec::new());
        Ledger { clock: Clock::new(), blocked, moved, wait: 0, transfer: 0, overlapped: 0 }
    }

    pub fn now(&self) -> Ticks {
        self.clock.now()
    }

    /// The thread was blocked from `since` until now by the call of this record.
    pub fn blocked(&mut self, since: Ticks, record: Option<CallRecord>) {
        let until = self.now().max(since);
        // A call whose record is not known any more counts as moving data.
        let (last_arrived, done) = record.map_or((since, since), |record| (record.last_arrived, record.done));
        let turn = last_arrived.clamp(since, until);
        self.wait += turn - since;
        self.transfer += until - turn;
        self.blocked.push(since..until);
        self.moved.push(last_arrived..done.max(last_arrived));
    }

    /// Settles what was overlapped, when no call is in flight: only then all blocked intervals are known. Time in which
    /// several calls moved data counts once.
    pub fn settle(&mut self) {
        let blocked: Ticks = self.blocked.iter().map(|interval| interval.end - interval.start).sum();
        self.moved.append(&mut self.blocked);
        self.overlapped += covered(&mut self.moved).saturating_sub(blocked);
        self.moved.clear();
    }

    /// The accounts of steps that took `wall`.
    pub fn times(&self, wall: Ticks) -> Times {
        let blocked = self.wait + self.transfer;
        Times {
            compute: self.clock.duration(wall.saturating_sub(blocked)),
            wait: self.clock.duration(self.wait),
            transfer: self.clock.duration(self.transfer),
            overlapped: self.clock.duration(self.overlapped),
        }
    }
}

/// The length of the union of these intervals. Sorts them.
fn covered(intervals: &mut [Range<Ticks>]) -> Ticks {
    intervals.sort_unstable_by_key(|interval| interval.start);
    let (mut sum, mut until) = (0, 0);
    for interval in intervals {
        sum += interval.end.saturating_sub(until.max(interval.start));
        until = until.max(interval.end);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::{DataType, ReduceOp};
    use crate::schedule::Collective;

    fn record(last_arrived: Ticks, done: Ticks) -> Option<CallRecord> {
        Some(CallRecord {
            call: 0,
            collective: Collective::AllReduce,
            data_type: DataType::F32,
            op: Some(ReduceOp::Avg),
            operator: None,
            bytes: 0,
            algorithm: String::new(),
            path: "schedule",
            wait: Duration::ZERO,
            transfer: Duration::ZERO,
            last_rank: 0,
            arrived: 0,
            last_arrived,
            done,
        })
    }

    #[test]
    fn blocked_time_is_split_at_the_last_arrival() {
        let mut ledger = Ledger::new();
        let since = ledger.now();
        while ledger.now() < since + 1000 {}
        ledger.blocked(since, record(since + 300, since + 900));
        let until = ledger.blocked[0].end;
        assert_eq!((ledger.wait, ledger.transfer), (300, until - since - 300));
        ledger.settle();
        assert_eq!(ledger.overlapped, 0, "the thread was blocked all the while");
    }

    #[test]
    fn a_call_that_ended_before_it_was_waited_for_is_overlapped() {
        let mut ledger = Ledger::new();
        let since = ledger.now();
        ledger.blocked(since, record(since - 500, since - 100));
        assert_eq!(ledger.wait, 0);
        ledger.settle();
        assert_eq!(ledger.overlapped, 400);
    }

    #[test]
    fn only_what_is_outside_every_blocked_interval_is_overlapped() {
        let mut ledger = Ledger::new();
        ledger.blocked = vec![100..200, 250..300];
        ledger.moved = vec![50..260, 210..240];
        ledger.settle();
        // 50..100 and 200..250; 210..240 is in the latter.
        assert_eq!(ledger.overlapped, 50 + 50);
        assert!(ledger.blocked.is_empty() && ledger.moved.is_empty());
    }
}
