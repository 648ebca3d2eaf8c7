// SPDX-License-Identifier: MPL-2.0
//! The last calls of a rank, in a ring buffer: recording one costs a few stores.

use std::sync::Arc;

use super::loaded::Loaded;
use crate::record::{CallRecord, Clock, Stamps};

/// How many calls are remembered.
const REMEMBERED: usize = 256;

/// What is remembered of a call: one cache line.
pub(crate) struct Recorded {
    pub call: u64,
    pub bytes: usize,
    pub loaded: Arc<Loaded>,
    pub stamps: Stamps,
}

impl Recorded {
    fn record(&self, clock: Clock) -> CallRecord {
        let (wait, transfer) = self.stamps.split(clock);
        CallRecord {
            call: self.call,
            collective: self.loaded.collective,
            data_type: self.loaded.data_type,
            op: self.loaded.op,
            operator: self.loaded.operator.map(|operator| operator.name()),
            bytes: self.bytes,
            algorithm: self.loaded.name.clone(),
            path: "schedule",
            wait,
            transfer,
            last_rank: self.stamps.last_rank,
            arrived: self.stamps.arrived,
            last_arrived: self.stamps.last_arrived,
            done: self.stamps.done,
        }
    }
}

/// The ring.
#[derive(Default)]
pub(crate) struct History {
    ring: Vec<Recorded>,
    next: usize,
}

impl History {
    /// Remembers a call that has ended. Programs repeat: where the oldest record is of the same one, its count of users is
    /// left alone, since to change it costs as much as all the rest.
    pub fn push(&mut self, call: u64, bytes: usize, stamps: Stamps, loaded: &Arc<Loaded>) {
        match self.ring.get_mut(self.next) {
            Some(oldest) => {
                (oldest.call, oldest.bytes, oldest.stamps) = (call, bytes, stamps);
                if !Arc::ptr_eq(&oldest.loaded, loaded) {
                    oldest.loaded = loaded.clone();
                }
            }
            None => self.ring.push(Recorded { call, bytes, loaded: loaded.clone(), stamps }),
        }
        self.next = (self.next + 1) % REMEMBERED;
    }

    /// The call that ended last.
    pub fn last(&self, clock: Clock) -> Option<CallRecord> {
        let newest = (self.next + REMEMBERED - 1) % REMEMBERED;
        Some(self.ring.get(newest)?.record(clock))
    }

    /// All that is remembered, the oldest first.
    pub fn all(&self, clock: Clock) -> Vec<CallRecord> {
        let (newer, older) = self.ring.split_at(if self.ring.len() < REMEMBERED { 0 } else { self.next });
        older.iter().chain(newer).map(|recorded| recorded.record(clock)).collect()
    }

    /// A call by its number, if it is remembered.
    pub fn find(&self, call: u64, clock: Clock) -> Option<CallRecord> {
        Some(self.ring.iter().find(|recorded| recorded.call == call)?.record(clock))
    }
}
