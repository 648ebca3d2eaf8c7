// SPDX-License-Identifier: MPL-2.0
//! Calls on host memory, for the loop: the blocking ones.

use std::ops::Range;

use super::buffers::Set;
use super::measure::{Caller, ROOT};
use super::subject::neighbours;
use super::{Subject, Sweep};
use crate::communicator::Communicator;
use crate::element::{Element, ReduceOp};
use crate::error::Result;
use crate::schedule::{Collective, Layout};

/// A rank that calls on host memory.
pub(super) struct OnHost<'a, T: Element> {
    comm: &'a Communicator,
    sets: Vec<Set<T>>,
}

impl<'a, T: Element> OnHost<'a, T> {
    /// With as many sets of buffers as the sweep takes turns on, each of `len` elements.
    pub fn new(comm: &'a Communicator, sweep: &Sweep, len: usize) -> Result<Self> {
        let sets: Result<Vec<Set<T>>> = (0..sweep.sets()).map(|_| Set::new(comm, sweep.memory, len)).collect();
        Ok(OnHost { comm, sets: sets? })
    }
}

impl<T: Element> Caller<T> for OnHost<'_, T> {
    fn sets(&self) -> usize {
        self.sets.len()
    }

    fn set_algorithm(&self, name: Option<&str>) -> Result<()> {
        self.comm.set_algorithm(name)
    }

    fn write(&mut self, set: usize, in_place: bool, range: Range<usize>, write: &dyn Fn(&mut [T])) -> Result<()> {
        let set = &mut self.sets[set];
        write(&mut if in_place { &mut set.output } else { &mut set.input }[range]);
        Ok(())
    }

    fn call(&mut self, set: usize, subject: Subject, op: ReduceOp, layout: &Layout) -> Result<()> {
        let (comm, rank, ranks) = (self.comm, self.comm.rank(), self.comm.world_size());
        let is_root = rank == ROOT;
        let (input, output) = (subject.input_len(layout, rank), subject.output_len(layout, rank));
        let Set { input: send, output: recv } = &mut self.sets[set];
        let Subject::Collective(collective) = subject else {
            let (next, before) = neighbours(rank, ranks);
            return comm.send_recv(&send[..input], next, &mut recv[..output], before);
        };
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

    fn read(&mut self, set: usize, range: Range<usize>, read: &dyn Fn(&[T]) -> u64) -> Result<u64> {
        Ok(read(&self.sets[set].output[range]))
    }

    fn ran(&self) -> (String, String) {
        self.comm.last_call().map_or_else(Default::default, |call| (call.algorithm, call.path.to_owned()))
    }

    fn iterations(&self, bytes: usize) -> usize {
        match bytes {
            0..=0x1_0000 => 2000,
            0x1_0001..=0x40_0000 => 200,
            _ => 30,
        }
    }

    fn device(&self) -> Option<String> {
        None
    }
}
