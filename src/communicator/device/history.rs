// SPDX-License-Identifier: MPL-2.0
//! What is known of calls that have been done: what ran, and when, by the stamps of their launches.
//!
//! A launch has a number, which its kernel is given, and by which it stamps a place in the journal (`Stamps` in
//! `kernels/pad.h`). So a call that a graph replays has the stamps of its last replay.
//!
//! The journal is in the device's memory, and whoever asks has it copied: a launch that stored to the host's would not be
//! over before that had arrived, and the shortest calls take little longer. Nothing orders the copy with launches; what of
//! a record has come, its tags say.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use super::DeviceCommunicator;
use super::batches::Exchanged;
use super::join::SELF_TESTS;
use crate::driver::{Device, DeviceBuffer, Stream};
use crate::element::{DataType, ReduceOp};
use crate::error::Result;
use crate::kernel::{LAUNCHES, Stamps};
use crate::record::{CallRecord, Ticks};
use crate::schedule::Collective;

/// How many calls are remembered.
const REMEMBERED: usize = 256;

/// Words of the stamps of a launch.
const STAMPS: usize = size_of::<Stamps>() / 8;

/// Memory for a journal. On AMD's devices what may be mapped is coherent: a copy finds there what a kernel has stored.
pub(super) fn allocate(device: &Device) -> Result<DeviceBuffer<u64>> {
    device.allocate_mappable(LAUNCHES * STAMPS)
}

/// A call that was enqueued or captured.
pub(super) struct Enqueued {
    pub collective: Collective,
    pub data_type: DataType,
    pub op: Option<ReduceOp>,
    /// By nccl-tests' definition.
    pub bytes: usize,
    pub algorithm: String,
    /// What did it: a kernel, or a schedule.
    pub path: &'static str,
    /// The numbers of its launches.
    pub launches: Range<u64>,
}

/// The calls that were enqueued last.
pub(super) struct History {
    journal: DeviceBuffer<u64>,
    /// For copies of it; urgent.
    stream: Stream,
    calls: RefCell<VecDeque<Enqueued>>,
    batches: RefCell<VecDeque<Exchanged>>,
    /// The number of the next launch.
    next: Cell<u64>,
}

/// What a launch says of itself, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Launched {
    entered: u64,
    before: u64,
    waited: u64,
    after: u64,
    last_rank: usize,
    calls: u32,
}

impl History {
    pub fn new(journal: DeviceBuffer<u64>, stream: Stream) -> Self {
        History { journal, stream, calls: RefCell::default(), batches: RefCell::default(), next: Cell::new(0) }
    }

    pub fn journal(&self) -> &DeviceBuffer<u64> {
        &self.journal
    }

    /// The number of a launch that is about to be enqueued.
    pub fn count(&self) -> u64 {
        self.next.replace(self.next.get() + 1)
    }

    /// The number that the next launch will have.
    pub fn next(&self) -> u64 {
        self.next.get()
    }

    pub fn push(&self, call: Enqueued) {
        remember(&mut self.calls.borrow_mut(), call);
    }

    pub fn push_batch(&self, batch: Exchanged) {
        remember(&mut self.batches.borrow_mut(), batch);
    }

    /// What `record` makes of batches of messages that have been done.
    pub fn exchanged<R>(&self, record: impl Fn(&Exchanged, Span) -> R) -> Vec<R> {
        let (batches, written) = (self.batches.borrow(), self.written());
        batches.iter().filter_map(|batch| Some(record(batch, span(&written, &batch.launches)?))).collect()
    }

    /// Forgets what was called so far.
    pub fn clear(&self) {
        self.calls.borrow_mut().clear();
    }

    /// The records of calls that have been done, in the order of their numbers.
    fn records(&self) -> Vec<CallRecord> {
        let (calls, written) = (self.calls.borrow(), self.written());
        let mut records: Vec<CallRecord> =
            calls.iter().filter_map(|call| Some(call.record(span(&written, &call.launches)?))).collect();
        records.sort_by_key(|record| record.call);
        records
    }

    /// The journal as it is now. A device that copies no more has no more to say.
    fn written(&self) -> Vec<u64> {
        self.stream.read(&self.journal).unwrap_or_default()
    }
}

/// When these launches were where, if all of them have ended.
fn span(journal: &[u64], launches: &Range<u64>) -> Option<Span> {
    Span::of(&launches.clone().map(|number| launched(journal, number)).collect::<Option<Vec<_>>>()?)
}

/// What a launch has stamped, if it has ended and its place has not been used again.
fn launched(journal: &[u64], number: u64) -> Option<Launched> {
    let first = number as usize % LAUNCHES * STAMPS;
    decode(journal.get(first..first + STAMPS)?, number)
}

/// Remembers one more, and the oldest no longer.
fn remember<T>(all: &mut VecDeque<T>, one: T) {
    if all.len() == REMEMBERED {
        all.pop_front();
    }
    all.push_back(one);
}

/// The stamps, if they are complete and those of that launch.
fn decode(words: &[u64], number: u64) -> Option<Launched> {
    let &[entered, before, waited, after, who] = words else { return None };
    let tag = who >> 48;
    let is_of_the_launch = tag >> 8 == (number / LAUNCHES as u64) & 0xff && tag & 0xff == who & 0xff;
    // A place that was never used has no tag, and no time at which it was entered.
    if !is_of_the_launch || entered << 16 == 0 || words.iter().any(|word| word >> 48 != tag) {
        return None;
    }
    let [entered, before, waited, after] = [entered, before, waited, after].map(|word| word << 16 >> 16);
    Some(Launched { entered, before, waited, after, last_rank: (who >> 32 & 0xffff) as usize, calls: who as u32 })
}

/// When the launches of one call, or of one batch of messages, were where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// How many calls there were before.
    calls: u32,
    pub wait: Duration,
    pub transfer: Duration,
    pub last_rank: usize,
    pub arrived: Ticks,
    pub last_arrived: Ticks,
    pub done: Ticks,
}

impl Span {
    /// Of launches one after the other: waiting is what all of them waited, and all else is moving.
    fn of(launches: &[Launched]) -> Option<Span> {
        let (first, last) = (launches.first()?, launches.last()?);
        let longest = launches.iter().max_by_key(|launch| launch.waited)?;
        let done = last.entered + last.waited + last.after;
        let whole = done.saturating_sub(first.entered.saturating_sub(first.before));
        let waited: u64 = launches.iter().map(|launch| launch.waited).sum();
        Some(Span {
            calls: first.calls,
            wait: Duration::from_nanos(waited),
            transfer: Duration::from_nanos(whole.saturating_sub(waited)),
            last_rank: longest.last_rank,
            arrived: first.entered,
            last_arrived: first.entered + first.waited,
            done,
        })
    }
}

impl Enqueued {
    fn record(&self, span: Span) -> CallRecord {
        CallRecord {
            call: u64::from(span.calls.wrapping_sub(SELF_TESTS)),
            collective: self.collective,
            data_type: self.data_type,
            op: self.op,
            operator: None,
            bytes: self.bytes,
            algorithm: self.algorithm.clone(),
            path: self.path,
            wait: span.wait,
            transfer: span.transfer,
            last_rank: span.last_rank,
            arrived: span.arrived,
            last_arrived: span.last_arrived,
            done: span.done,
        }
    }
}

/// # Records
///
/// A record is what block 0 of each of the call's launches stamped, by the clock of the rank's device: waiting is from
/// when the rank entered until the last rank's entry was seen, and all else, the copying into memory that peers see
/// among it, is moving. Of a call of several launches, both are those of all of them together. Ticks are nanoseconds,
/// modulo 2^48; they compare between ranks that share a device, and on simulated devices between all. How fine they are
/// is the device's affair: some cards count in steps of a microsecond. An entry that was there at the first look counts
/// as no later than this rank's own, which is then the last.
///
/// There is a record once all launches of the call have ended; they are not waited for, but the journal of them is copied
/// from the device, which takes some microseconds. Calls are those that were enqueued or captured last, up to 256, as long
/// as no more than 1024 launches came after them. Of a captured call it is that of its last replay. Calls are numbered as
/// in errors.
impl DeviceCommunicator {
    /// What the last call that has been done was, what ran, and how long this rank waited and moved data. See
    /// [Records](Self#records).
    pub fn last_call(&self) -> Option<CallRecord> {
        self.history.records().pop()
    }

    /// The record of a call by its number. See [Records](Self#records).
    pub fn record(&self, call: u64) -> Option<CallRecord> {
        self.history.records().into_iter().find(|record| record.call == call)
    }

    /// The records that there are, in the order of the calls. See [Records](Self#records).
    pub fn calls(&self) -> Vec<CallRecord> {
        self.history.records()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamped(number: u64, calls: u64, values: [u64; 4], last_rank: u64) -> [u64; STAMPS] {
        let tag = (((number / LAUNCHES as u64) & 0xff) << 8 | (calls & 0xff)) << 48;
        let [entered, before, waited, after] = values.map(|value| tag | value);
        [entered, before, waited, after, tag | last_rank << 32 | calls]
    }

    #[test]
    fn stamps_are_of_one_launch_or_none() {
        let words = stamped(5000, 70_000, [40, 3, 2, 1], 7);
        let launched = Launched { entered: 40, before: 3, waited: 2, after: 1, last_rank: 7, calls: 70_000 };
        assert_eq!(decode(&words, 5000), Some(launched));
        assert_eq!(decode(&words, 5000 + LAUNCHES as u64), None, "an earlier launch's");
        assert_eq!(decode(&[0; STAMPS], 0), None, "nobody's");
        for word in 0..STAMPS {
            let mut torn = words;
            torn[word] = stamped(5000, 70_001, [40, 3, 2, 1], 7)[word];
            assert_eq!(decode(&torn, 5000), None, "word {word} of another replay");
        }
    }

    #[test]
    fn launches_of_one_call_are_added_up() {
        let launched = |number: u32| {
            let (entered, waited) = if number == 3 { (100, 30) } else { (300, 5) };
            Launched { entered, before: 10, waited, after: 50, last_rank: number as usize, calls: number }
        };
        let expected = Span {
            calls: 3,
            wait: Duration::from_nanos(35),
            transfer: Duration::from_nanos(355 - 90 - 35),
            last_rank: 3,
            arrived: 100,
            last_arrived: 130,
            done: 355,
        };
        assert_eq!(Span::of(&[3, 4].map(launched)), Some(expected));
        assert_eq!(Span::of(&[]), None);
    }
}
