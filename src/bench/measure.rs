// SPDX-License-Identifier: MPL-2.0
//! The loop: barrier, clock, one public call to its end, clock. Who makes the call is a [`Caller`]: on host memory or on
//! devices.
//!
//! Calls come in blocks. Before a block each of its calls' payload is written, after it their outputs are checked;
//! between the calls of a block lies only the barrier. A block is one turn through the sets of buffers, so no call's
//! output is overwritten before it is checked. A sweep that is not checked has three blocks instead: the first call,
//! the last call, and all between, whose outputs are not looked at.

use std::ops::Range;
use std::time::Instant;

use super::payload::Payload;
use super::sweep::rotation;
use super::{Measurement, Subject, Sweep};
use crate::communicator::Communicator;
use crate::element::{Element, ReduceOp};
use crate::error::Result;
use crate::schedule::Layout;

/// The root of collectives that have one.
pub(super) const ROOT: usize = 0;

/// Who makes the calls of a rank, with sets of buffers of its own, by their numbers: each an input and an output, of
/// which calls in place use the output alone.
pub(super) trait Caller<T: Element> {
    /// How many sets there are.
    fn sets(&self) -> usize;

    /// Sets the algorithm of the following calls by name.
    fn set_algorithm(&self, name: Option<&str>) -> Result<()>;

    /// Calls `write` with these elements of the set's output if the call is in place, else of its input.
    fn write(&mut self, set: usize, in_place: bool, range: Range<usize>, write: &dyn Fn(&mut [T])) -> Result<()>;

    /// What is timed: the public call as a user makes it, to its end.
    fn call(&mut self, set: usize, subject: Subject, op: ReduceOp, layout: &Layout) -> Result<()>;

    /// What `read` makes of these elements of the set's output.
    fn read(&mut self, set: usize, range: Range<usize>, read: &dyn Fn(&[T]) -> u64) -> Result<u64>;

    /// The algorithm of the last call of a collective, and how it ran.
    fn ran(&self) -> (String, String);

    /// How many calls are timed of a size in bytes, where nobody said.
    fn iterations(&self, bytes: usize) -> usize;

    /// The kind of the devices, if it is devices.
    fn device(&self) -> Option<String>;
}

/// One rank, ready to measure sizes up to that of its buffers.
pub(super) struct Rank<'a, T: Element, C> {
    pub comm: &'a Communicator,
    pub sweep: &'a Sweep,
    pub payload: Payload<T>,
    pub caller: C,
}

impl<T: Element, C: Caller<T>> Rank<'_, T, C> {
    /// Measures one size in one mode. All ranks return the same.
    pub fn measure(&mut self, size: usize, in_place: bool) -> Result<Measurement> {
        let Sweep { subject, memory, data_type, op, checked, ref algorithm, iterations, .. } = *self.sweep;
        let (comm, ranks) = (self.comm, self.comm.world_size());
        let count = self.sweep.count(size, ranks);
        let bytes = if subject.has_parts() { count * ranks } else { count } * size_of::<T>();
        let iterations = iterations.unwrap_or_else(|| self.caller.iterations(bytes));
        let (warm_up, rotation) = (iterations / 10 + 3, rotation(bytes).min(self.caller.sets()));
        let layout = Layout::uniform(ranks, count).with_root(ROOT).in_place(in_place);
        let mut times = vec![0.0; warm_up + iterations];
        self.caller.set_algorithm(algorithm.as_deref())?;
        let mut wrong = 0;
        for block in blocks(times.len(), rotation, checked) {
            for call in block.clone().take(rotation) {
                self.prepare(call, rotation, &layout)?;
            }
            // Whoever was ready last does not begin with the others still asleep.
            comm.barrier()?;
            for call in block.clone() {
                comm.barrier()?;
                let start = Instant::now();
                self.caller.call(call % rotation, subject, op, &layout)?;
                times[call] = start.elapsed().as_secs_f64() * 1e6;
            }
            if block.len() <= rotation {
                for call in block {
                    wrong += self.wrong(call, rotation, &layout)?;
                }
            }
        }
        // Algorithms and paths differ by size, so the last call knows.
        let (ran, path) = match subject {
            Subject::Collective(_) => self.caller.ran(),
            Subject::SendRecv => ("messages".to_owned(), "messages".to_owned()),
        };
        self.caller.set_algorithm(None)?;
        let slowest = self.slowest(&times[warm_up..])?;
        let mut wrong = [wrong];
        comm.all_reduce_in_place(&mut wrong, ReduceOp::Sum)?;
        Ok(Measurement {
            subject,
            asked: self.sweep.asked().to_owned(),
            algorithm: ran,
            path,
            ranks,
            transport: comm.transport_kind().to_owned(),
            device: self.caller.device(),
            memory,
            in_place,
            data_type,
            op: subject.folds().then_some(op),
            root: subject.has_root().then_some(ROOT),
            count,
            bytes,
            iterations,
            time_us: slowest[iterations / 2],
            min_us: slowest[0],
            p99_us: slowest[iterations * 99 / 100],
            wrong: wrong[0],
        })
    }

    /// Writes the input of a call.
    fn prepare(&mut self, call: usize, rotation: usize, layout: &Layout) -> Result<()> {
        let (subject, rank) = (self.sweep.subject, self.comm.rank());
        let first = usize::try_from(subject.alias(layout, rank)).unwrap_or(0);
        let range = first..first + subject.input_len(layout, rank);
        let payload = &self.payload;
        self.caller.write(call % rotation, layout.is_in_place(), range, &|input| payload.fill(rank, call, input))
    }

    /// How many elements of a call's output are wrong.
    fn wrong(&mut self, call: usize, rotation: usize, layout: &Layout) -> Result<u64> {
        let (subject, rank) = (self.sweep.subject, self.comm.rank());
        let first = usize::try_from(-subject.alias(layout, rank)).unwrap_or(0);
        let range = first..first + subject.output_len(layout, rank);
        let payload = &self.payload;
        self.caller.read(call % rotation, range, &|output| payload.wrong(rank, call, layout, output))
    }

    /// For each call the slowest rank's time, sorted.
    fn slowest(&self, times: &[f64]) -> Result<Vec<f64>> {
        let mut all = vec![0.0; times.len() * self.comm.world_size()];
        self.comm.all_gather(times, &mut all)?;
        let of_call = |call| all.iter().skip(call).step_by(times.len()).copied().fold(0.0, f64::max);
        let mut slowest: Vec<f64> = (0..times.len()).map(of_call).collect();
        slowest.sort_unstable_by(f64::total_cmp);
        Ok(slowest)
    }
}

/// The blocks of `calls` calls, of which there are at least two.
fn blocks(calls: usize, rotation: usize, checked: bool) -> Vec<Range<usize>> {
    match checked {
        true => (0..calls).step_by(rotation).map(|first| first..(first + rotation).min(calls)).collect(),
        false => vec![0..1, 1..calls - 1, calls - 1..calls],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_all_calls_once() {
        for (calls, rotation) in [(4, 1), (4, 4), (9, 4), (2003, 4)] {
            for checked in [true, false] {
                let blocks = blocks(calls, rotation, checked);
                assert!(blocks.iter().cloned().flatten().eq(0..calls));
                assert!(!checked || blocks.iter().all(|block| block.len() <= rotation));
            }
        }
    }
}
