// SPDX-License-Identifier: MPL-2.0
//! Calls on device memory, for the loop: each is enqueued on the rank's stream, which is then synchronised. The time of
//! a call is that of both.

use std::ops::Range;

use super::measure::{Caller, ROOT};
use super::subject::neighbours;
use super::{Memory, Subject, Sweep};
use crate::communicator::DeviceCommunicator;
use crate::driver::{DeviceBuffer, Stream};
use crate::element::{Element, ReduceOp};
use crate::error::{Error, Result};
use crate::schedule::{Collective, Layout};

/// A rank that calls on device memory.
pub(super) struct OnDevice<'a, T: Element> {
    gpus: &'a DeviceCommunicator,
    stream: Stream,
    sets: Vec<Set<T>>,
    /// What is written to the device, made here.
    written: Vec<T>,
}

/// What one call uses.
struct Set<T: Element> {
    input: DeviceBuffer<T>,
    output: DeviceBuffer<T>,
}

impl<'a, T: Element> OnDevice<'a, T> {
    /// With as many sets of buffers as the sweep takes turns on, each of `len` elements. Collective.
    pub fn new(gpus: &'a DeviceCommunicator, sweep: &Sweep, len: usize) -> Result<Self> {
        let buffer = || match sweep.memory {
            Memory::Allocated => gpus.allocate(len),
            Memory::Plain => gpus.device().allocate(len),
        };
        let sets: Result<Vec<Set<T>>> =
            (0..sweep.sets()).map(|_| Ok(Set { input: buffer()?, output: buffer()? })).collect();
        Ok(OnDevice { gpus, stream: gpus.device().stream()?, sets: sets?, written: vec![T::zeroed(); len] })
    }
}

impl<T: Element> Caller<T> for OnDevice<'_, T> {
    fn sets(&self) -> usize {
        self.sets.len()
    }

    fn set_algorithm(&self, name: Option<&str>) -> Result<()> {
        self.gpus.set_algorithm(name)
    }

    fn write(&mut self, set: usize, in_place: bool, range: Range<usize>, write: &dyn Fn(&mut [T])) -> Result<()> {
        let set = &self.sets[set];
        let written = &mut self.written[..range.len()];
        write(written);
        self.stream.write(&if in_place { &set.output } else { &set.input }.part(range)?, written)?;
        self.stream.synchronize()
    }

    fn call(&mut self, set: usize, subject: Subject, op: ReduceOp, layout: &Layout) -> Result<()> {
        let OnDevice { gpus, stream, .. } = self;
        let (rank, ranks) = (gpus.rank(), gpus.world_size());
        let (input, output) = (subject.input_len(layout, rank), subject.output_len(layout, rank));
        let Set { input: send, output: recv } = &self.sets[set];
        let Subject::Collective(collective) = subject else {
            let (next, before) = neighbours(rank, ranks);
            gpus.send_recv(&send.part(..input)?, next, &recv.part(..output)?, before, stream)?;
            return stream.synchronize();
        };
        match layout.is_in_place() {
            true => {
                let buffer = recv.part(..input.max(output))?;
                match collective {
                    Collective::AllReduce => gpus.all_reduce_in_place(&buffer, op, stream),
                    Collective::ReduceScatter => gpus.reduce_scatter_in_place(&buffer, op, stream),
                    Collective::AllGather => gpus.all_gather_in_place(&buffer, stream),
                    Collective::Broadcast => gpus.broadcast_in_place(&buffer, ROOT, stream),
                    Collective::Barrier => gpus.barrier(stream),
                    Collective::Reduce => gpus.reduce_in_place(&buffer, op, ROOT, stream),
                    Collective::Scatter => gpus.scatter_in_place(&buffer, ROOT, stream),
                    Collective::Gather => gpus.gather_in_place(&buffer, ROOT, stream),
                    Collective::AllToAll => gpus.all_to_all_in_place(&buffer, stream),
                    other => Err(absent(other)),
                }
            }
            false => {
                let (send, recv) = (send.part(..input)?, recv.part(..output)?);
                let is_root = rank == ROOT;
                match collective {
                    Collective::AllReduce => gpus.all_reduce(&send, &recv, op, stream),
                    Collective::ReduceScatter => gpus.reduce_scatter(&send, &recv, op, stream),
                    Collective::AllGather => gpus.all_gather(&send, &recv, stream),
                    Collective::Broadcast => gpus.broadcast(is_root.then_some(&send), &recv, ROOT, stream),
                    Collective::Barrier => gpus.barrier(stream),
                    Collective::Reduce => gpus.reduce(&send, is_root.then_some(&recv), op, ROOT, stream),
                    Collective::Scatter => gpus.scatter(is_root.then_some(&send), &recv, ROOT, stream),
                    Collective::Gather => gpus.gather(&send, is_root.then_some(&recv), ROOT, stream),
                    Collective::AllToAll => gpus.all_to_all(&send, &recv, stream),
                    other => Err(absent(other)),
                }
            }
        }?;
        stream.synchronize()
    }

    fn read(&mut self, set: usize, range: Range<usize>, read: &dyn Fn(&[T]) -> u64) -> Result<u64> {
        Ok(read(&self.stream.read(&self.sets[set].output.part(range)?)?))
    }

    fn ran(&self) -> (String, String) {
        self.gpus.last_call().map_or_else(Default::default, |call| (call.algorithm, call.path.to_owned()))
    }

    fn iterations(&self, bytes: usize) -> usize {
        match bytes {
            0..=0x1_0000 => 200,
            0x1_0001..=0x40_0000 => 50,
            _ => 10,
        }
    }

    fn device(&self) -> Option<String> {
        Some(self.gpus.device().capabilities().platform.to_string())
    }
}

/// What devices do not have, in words.
pub(super) fn absent(collective: Collective) -> Error {
    let all = DeviceCommunicator::COLLECTIVES.map(Collective::name).join(", ");
    Error::invalid(format!("devices have no {collective}; they have {all}"))
}
