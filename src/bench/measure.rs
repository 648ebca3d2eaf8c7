// SPDX-License-Identifier: MPL-2.0
//! The loop: barrier, clock, one public blocking call, clock.
//!
//! Calls come in blocks. Before a block each of its calls' payload is written, after it their outputs are checked;
//! between the calls of a block lies only the barrier. A block is one turn through the sets of buffers, so no call's
//! output is overwritten before it is checked. A sweep that is not checked has three blocks instead: the first call,
//! the last call, and all between, whose outputs are not looked at.

use std::ops::Range;
use std::time::Instant;

use super::buffers::Set;
use super::payload::Payload;
use super::sweep::rotation;
use super::{Measurement, Sweep};
use crate::communicator::Communicator;
use crate::element::{Element, ReduceOp};
use crate::error::Result;
use crate::schedule::{Collective, Layout};

/// The root of collectives that have one.
const ROOT: usize = 0;

/// One rank, ready to measure sizes up to that of its buffers.
pub(super) struct Rank<'a, T: Element> {
    pub comm: &'a Communicator,
    pub sweep: &'a Sweep,
    pub payload: Payload<T>,
    pub sets: Vec<Set<T>>,
}

impl<T: Element> Rank<'_, T> {
    /// Measures one size in one mode. All ranks return the same.
    pub fn measure(&mut self, size: usize, in_place: bool) -> Result<Measurement> {
        let Sweep { collective, memory, data_type, op, checked, ref algorithm, iterations, .. } = *self.sweep;
        let (comm, ranks) = (self.comm, self.comm.world_size());
        let count = self.sweep.count(size, ranks);
        let bytes = if collective.has_parts() { count * ranks } else { count } * size_of::<T>();
        let iterations = iterations.unwrap_or(match bytes {
            0..=0x1_0000 => 2000,
            0x1_0001..=0x40_0000 => 200,
            _ => 30,
        });
        let (warm_up, rotation) = (iterations / 10 + 3, rotation(bytes).min(self.sets.len()));
        let layout = Layout::uniform(ranks, count).with_root(ROOT).in_place(in_place);
        let mut times = vec![0.0; warm_up + iterations];
        comm.set_algorithm(algorithm.as_deref())?;
        let mut wrong = 0;
        for block in blocks(times.len(), rotation, checked) {
            for call in block.clone().take(rotation) {
                self.prepare(call, rotation, &layout);
            }
            // Whoever was ready last does not begin with the others still asleep.
            comm.barrier()?;
            for call in block.clone() {
                let set = &mut self.sets[call % rotation];
                comm.barrier()?;
                let start = Instant::now();
                one_call(comm, collective, op, &layout, set)?;
                times[call] = start.elapsed().as_secs_f64() * 1e6;
            }
            if block.len() <= rotation {
                wrong += block.map(|call| self.wrong(call, rotation, &layout)).sum::<u64>();
            }
        }
        // Algorithms and paths differ by size, so the last call knows.
        let (ran, path): (String, &str) =
            comm.last_call().map_or(Default::default(), |call| (call.algorithm, call.path));
        comm.set_algorithm(None)?;
        let slowest = self.slowest(&times[warm_up..])?;
        let mut wrong = [wrong];
        comm.all_reduce_in_place(&mut wrong, ReduceOp::Sum)?;
        Ok(Measurement {
            collective,
            asked: self.sweep.algorithm.as_deref().unwrap_or("auto").to_owned(),
            algorithm: ran,
            path: path.to_owned(),
            ranks,
            transport: comm.transport_kind().to_owned(),
            memory,
            in_place,
            data_type,
            op: collective.folds().then_some(op),
            root: collective.has_root().then_some(ROOT),
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
    fn prepare(&mut self, call: usize, rotation: usize, layout: &Layout) {
        let (collective, rank) = (self.sweep.collective, self.comm.rank());
        let set = &mut self.sets[call % rotation];
        let (buffer, first) = match layout.is_in_place() {
            true => (&mut set.output, usize::try_from(layout.alias(collective, rank)).unwrap_or(0)),
            false => (&mut set.input, 0),
        };
        self.payload.fill(rank, call, &mut buffer[first..first + layout.input_len(collective, rank)]);
    }

    /// How many elements of a call's output are wrong.
    fn wrong(&self, call: usize, rotation: usize, layout: &Layout) -> u64 {
        let (collective, rank) = (self.sweep.collective, self.comm.rank());
        let alias = if layout.is_in_place() { layout.alias(collective, rank) } else { 0 };
        let first = usize::try_from(-alias).unwrap_or(0);
        let output = &self.sets[call % rotation].output[first..first + layout.output_len(collective, rank)];
        self.payload.wrong(rank, call, layout, output)
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

/// What is timed: the public call, as a user makes it.
fn one_call<T: Element>(
    comm: &Communicator,
    collective: Collective,
    op: ReduceOp,
    layout: &Layout,
    set: &mut Set<T>,
) -> Result<()> {
    let is_root = comm.rank() == ROOT;
    let (input, output) = (layout.input_len(collective, comm.rank()), layout.output_len(collective, comm.rank()));
    let Set { input: send, output: recv } = set;
    if layout.is_in_place() {
        let buffer = &mut recv[..input.max(output)];
        return match collective {
            Collective::AllReduce => comm.all_reduce_in_place(buffer, op),
            Collective::ReduceScatter => comm.reduce_scatter_in_place(buffer, op),
            Collective::AllGather => comm.all_gather_in_place(buffer),
            Collective::Broadcast => comm.broadcast_in_place(buffer, ROOT),
            Collective::Barrier => comm.barrier(),
            Collective::Reduce => comm.reduce_in_place(buffer, op, ROOT),
            Collective::Scatter => comm.scatter_in_place(buffer, ROOT),
            Collective::Gather => comm.gather_in_place(buffer, ROOT),
            Collective::AllToAll => comm.all_to_all_in_place(buffer),
            Collective::Scan => comm.scan_in_place(buffer, op),
            Collective::ExclusiveScan => comm.exclusive_scan_in_place(buffer, op),
        };
    }
    // Rank 0, to which nothing comes in an exclusive scan, passes a buffer all the same.
    let len = if collective == Collective::ExclusiveScan { input } else { output };
    let (send, recv) = (&send[..input], &mut recv[..len]);
    match collective {
        Collective::AllReduce => comm.all_reduce(send, recv, op),
        Collective::ReduceScatter => comm.reduce_scatter(send, recv, op),
        Collective::AllGather => comm.all_gather(send, recv),
        Collective::Broadcast => comm.broadcast(is_root.then_some(send), recv, ROOT),
        Collective::Barrier => comm.barrier(),
        Collective::Reduce => comm.reduce(send, is_root.then_some(recv), op, ROOT),
        Collective::Scatter => comm.scatter(is_root.then_some(send), recv, ROOT),
        Collective::Gather => comm.gather(send, is_root.then_some(recv), ROOT),
        Collective::AllToAll => comm.all_to_all(send, recv),
        Collective::Scan => comm.scan(send, recv, op),
        Collective::ExclusiveScan => comm.exclusive_scan(send, recv, op),
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
