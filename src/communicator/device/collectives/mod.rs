// SPDX-License-Identifier: MPL-2.0
//! The calls, typed and checked. Counts and in-place rules are NCCL's, as on the host. `folds` and `moves` are the calls;
//! here is what they have in common.

mod folds;
mod moves;

use super::super::descriptor::Descriptor;
use super::super::refusals::Asker;
use super::DeviceCommunicator;
use super::call::Call;
use super::exchange::agree;
use super::join::SELF_TESTS;
use crate::driver::{DeviceBuffer, Stream};
use crate::element::{DataType, Element, ReduceOp};
use crate::error::{Error, Result};
use crate::schedule::Collective;

/// What is called, apart from its buffers and their type.
struct Asked {
    name: &'static str,
    collective: Collective,
    op: Option<ReduceOp>,
    root: usize,
    in_place: bool,
}

impl Asked {
    fn new(name: &'static str, collective: Collective, op: Option<ReduceOp>) -> Self {
        Asked { name, collective, op, root: 0, in_place: false }
    }

    fn in_place(self) -> Self {
        Asked { in_place: true, ..self }
    }

    fn root(self, root: usize) -> Self {
        Asked { root, ..self }
    }
}

impl DeviceCommunicator {
    /// What the root passes, and other ranks do not.
    fn at_root<'a, T: Element>(
        &self,
        asked: &Asked,
        what: &str,
        given: Option<&'a DeviceBuffer<T>>,
    ) -> Result<Option<&'a DeviceBuffer<T>>> {
        let (asker, is_root) = (self.asker(asked.name), self.rank() == asked.root);
        let root = asker.checked_root(asked.root)?;
        asker.check_passed(what, root, is_root, given.is_some())?;
        Ok(given)
    }

    pub(super) fn asker<'a>(&self, name: &'a str) -> Asker<'a> {
        Asker { name, rank: self.rank(), world: self.world_size() }
    }

    /// Checks a call and enqueues it; `parts` are how often the count goes into input and output. What a rank does not
    /// give, or get, has none.
    fn call<T: Element>(
        &self,
        asked: Asked,
        from: &DeviceBuffer<T>,
        to: &DeviceBuffer<T>,
        parts: (usize, usize),
        stream: &Stream,
    ) -> Result<()> {
        let Asked { name, collective, op, root, in_place } = asked;
        let asker = self.asker(name);
        asker.checked_root(root)?;
        if from.len().checked_mul(parts.1) != to.len().checked_mul(parts.0) {
            return asker.refuse_lengths(from.len(), to.len(), parts);
        }
        let (from, to) = (from.as_bytes(), to.as_bytes());
        let may_be_same = in_place || (collective == Collective::Broadcast && asker.rank != root);
        self.check_buffers(name, &from, &to, may_be_same, stream)?;
        if let Some(error) = op.and_then(|op| op.check(T::DATA_TYPE).err()) {
            return asker.refuse(error);
        }
        let descriptor = Descriptor {
            collective,
            data_type: if collective == Collective::Barrier { DataType::U8 } else { T::DATA_TYPE },
            op,
            operator: None,
            count: from.len().checked_div(parts.0).unwrap_or(to.len()) / size_of::<T>(),
            root,
            in_place,
            algorithm: 0,
            program: 0,
            is_varying: false,
        };
        self.enqueue(&Call { descriptor, from, to }, stream)
    }

    /// Buffers and stream must be of the communicator's device, and the buffers apart unless they may be the same.
    pub(super) fn check_buffers(
        &self,
        name: &str,
        from: &DeviceBuffer<u8>,
        to: &DeviceBuffer<u8>,
        may_be_same: bool,
        stream: &Stream,
    ) -> Result<()> {
        let (asker, device) = (self.asker(name), self.device());
        if stream.device() != *device {
            return asker.refuse(format_args!("{stream} is not of {device}, which the communicator was made for"));
        }
        for (what, buffer) in [("input", from), ("output", to)] {
            if buffer.device() != *device {
                return asker.refuse(format_args!("the {what} is of {}; it must be of {device}", buffer.device()));
            }
        }
        let end = |buffer: &DeviceBuffer<u8>| buffer.address() + buffer.len() as u64;
        let is_same = (from.address(), from.len()) == (to.address(), to.len());
        if !may_be_same && from.address() < end(to) && to.address() < end(from) {
            let whole = if is_same { "are the same" } else { "overlap" };
            return asker.refuse(format_args!("send and recv {whole}; they must be apart, or the call in place"));
        }
        Ok(())
    }

    /// This rank's part of a buffer of one part a rank.
    fn own_part<T: Element>(&self, asked: &Asked, buffer: &DeviceBuffer<T>) -> Result<DeviceBuffer<T>> {
        let (rank, part) = (self.rank(), self.asker(asked.name).part_of(buffer.len())?);
        buffer.part(rank * part..(rank + 1) * part)
    }

    /// Proves that what each rank writes arrives at every other: all meet, and each gets a number of every other's.
    pub(super) fn test_self(&self) -> Result<()> {
        const WHAT: &str = "testing whether ranks' devices see each other's writes";
        let number = |rank: usize| 0x5eed_0000_0000_0000 + rank as u64;
        // All ranks have what they need before any waits on its device: to make it might wait for that.
        let prepared = || {
            // Not the stream by which reports of faults are read: calls make their stream wait for such reports.
            let stream = self.device().stream()?;
            let (send, recv) = (self.device().allocate(1)?, self.device().allocate(self.world_size())?);
            stream.write(&send, &[number(self.rank())])?;
            stream.synchronize()?;
            Ok((stream, send, recv))
        };
        let (stream, send, recv) = agree(&self.control(), WHAT, prepared())?;
        agree(&self.control(), WHAT, self.meet(&stream, &send, &recv, number))
    }

    fn meet(
        &self,
        stream: &Stream,
        send: &DeviceBuffer<u64>,
        recv: &DeviceBuffer<u64>,
        number: impl Fn(usize) -> u64,
    ) -> Result<()> {
        self.barrier(stream)?;
        self.all_gather(send, recv, stream)?;
        const { assert!(SELF_TESTS == 2, "as many calls as these") };
        let got = stream.read(recv)?;
        match (0..self.world_size()).find(|rank| got[*rank] != number(*rank)) {
            None => Ok(()),
            Some(rank) => Err(Error::system(
                format!("testing device memory between ranks {rank} and {}", self.rank()),
                "what was written did not arrive; the machine's peer-to-peer access does not work",
            )),
        }
    }
}
