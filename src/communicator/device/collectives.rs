// SPDX-License-Identifier: MPL-2.0
//! The calls, typed and checked. Counts and in-place rules are NCCL's, as on the host.

use super::super::descriptor::Descriptor;
use super::DeviceCommunicator;
use super::call::Call;
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
    /// Every rank's `recv` becomes the fold of all ranks' `send`, in rank order. Both have the same length, the same on
    /// all ranks.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the lengths differ, buffers overlap or are not of the communicator's device, or the
    /// operation does not [apply](ReduceOp::applies_to) to the type; and the [failure](Self#failure) of an earlier
    /// call.
    pub fn all_reduce<T: Element>(
        &self,
        send: &DeviceBuffer<T>,
        recv: &DeviceBuffer<T>,
        op: ReduceOp,
        stream: &Stream,
    ) -> Result<()> {
        let asked = Asked::new("all_reduce", Collective::AllReduce, Some(op));
        self.call(asked, send, recv, (1, 1), stream)
    }

    /// The same with `buffer` as both.
    ///
    /// # Errors
    ///
    /// As [`all_reduce`](Self::all_reduce).
    pub fn all_reduce_in_place<T: Element>(
        &self,
        buffer: &DeviceBuffer<T>,
        op: ReduceOp,
        stream: &Stream,
    ) -> Result<()> {
        let asked = Asked::new("all_reduce_in_place", Collective::AllReduce, Some(op)).in_place();
        self.call(asked, buffer, buffer, (1, 1), stream)
    }

    /// Rank r's `recv` becomes part r of the fold of all ranks' `send`, in rank order; `send` is `world_size` times as
    /// long.
    ///
    /// # Errors
    ///
    /// As [`all_reduce`](Self::all_reduce).
    pub fn reduce_scatter<T: Element>(
        &self,
        send: &DeviceBuffer<T>,
        recv: &DeviceBuffer<T>,
        op: ReduceOp,
        stream: &Stream,
    ) -> Result<()> {
        let asked = Asked::new("reduce_scatter", Collective::ReduceScatter, Some(op));
        self.call(asked, send, recv, (self.world_size(), 1), stream)
    }

    /// The same with the output as part `rank` of `buffer`, whose other parts are left as they are.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the length is no multiple of `world_size`; otherwise as [`all_reduce`](Self::all_reduce).
    pub fn reduce_scatter_in_place<T: Element>(
        &self,
        buffer: &DeviceBuffer<T>,
        op: ReduceOp,
        stream: &Stream,
    ) -> Result<()> {
        let asked = Asked::new("reduce_scatter_in_place", Collective::ReduceScatter, Some(op)).in_place();
        let own = self.own_part(&asked, buffer)?;
        self.call(asked, buffer, &own, (self.world_size(), 1), stream)
    }

    /// Every rank's `recv` becomes all ranks' `send`, one after the other; it is `world_size` times as long.
    ///
    /// # Errors
    ///
    /// As [`all_reduce`](Self::all_reduce), but that any type will do.
    pub fn all_gather<T: Element>(
        &self,
        send: &DeviceBuffer<T>,
        recv: &DeviceBuffer<T>,
        stream: &Stream,
    ) -> Result<()> {
        let asked = Asked::new("all_gather", Collective::AllGather, None);
        self.call(asked, send, recv, (1, self.world_size()), stream)
    }

    /// The same with part `rank` of `buffer` as the input.
    ///
    /// # Errors
    ///
    /// As [`reduce_scatter_in_place`](Self::reduce_scatter_in_place).
    pub fn all_gather_in_place<T: Element>(&self, buffer: &DeviceBuffer<T>, stream: &Stream) -> Result<()> {
        let asked = Asked::new("all_gather_in_place", Collective::AllGather, None).in_place();
        let own = self.own_part(&asked, buffer)?;
        self.call(asked, &own, buffer, (1, self.world_size()), stream)
    }

    /// Every rank's `recv` becomes the root's `send`. The root passes `Some(send)`, as long as `recv`; the others pass
    /// `None`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if there is no such root, if the root passes no `send` or another rank does; otherwise as
    /// [`all_gather`](Self::all_gather).
    pub fn broadcast<T: Element>(
        &self,
        send: Option<&DeviceBuffer<T>>,
        recv: &DeviceBuffer<T>,
        root: usize,
        stream: &Stream,
    ) -> Result<()> {
        let asked = Asked::new("broadcast", Collective::Broadcast, None).root(root);
        match self.at_root(&asked, "send", send)? {
            Some(send) => self.call(asked, send, recv, (1, 1), stream),
            // What another rank gives is not looked at.
            None => self.call(asked, recv, recv, (1, 1), stream),
        }
    }

    /// The same with `buffer` as both.
    ///
    /// # Errors
    ///
    /// As [`broadcast`](Self::broadcast).
    pub fn broadcast_in_place<T: Element>(&self, buffer: &DeviceBuffer<T>, root: usize, stream: &Stream) -> Result<()> {
        let asked = Asked::new("broadcast_in_place", Collective::Broadcast, None).root(root).in_place();
        self.call(asked, buffer, buffer, (1, 1), stream)
    }

    /// The root's `recv` becomes the fold of all ranks' `send`, in rank order. The root passes `Some(recv)`, as long as
    /// `send`; the others pass `None`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if there is no such root, if the root passes no `recv` or another rank does; otherwise as
    /// [`all_reduce`](Self::all_reduce).
    pub fn reduce<T: Element>(
        &self,
        send: &DeviceBuffer<T>,
        recv: Option<&DeviceBuffer<T>>,
        op: ReduceOp,
        root: usize,
        stream: &Stream,
    ) -> Result<()> {
        let asked = Asked::new("reduce", Collective::Reduce, Some(op)).root(root);
        match self.at_root(&asked, "recv", recv)? {
            Some(recv) => self.call(asked, send, recv, (1, 1), stream),
            None => self.call(asked, send, &send.part(..0)?, (1, 0), stream),
        }
    }

    /// The same with the root's `buffer` as both; the others' are only read.
    ///
    /// # Errors
    ///
    /// As [`reduce`](Self::reduce).
    pub fn reduce_in_place<T: Element>(
        &self,
        buffer: &DeviceBuffer<T>,
        op: ReduceOp,
        root: usize,
        stream: &Stream,
    ) -> Result<()> {
        let asked = Asked::new("reduce_in_place", Collective::Reduce, Some(op)).root(root).in_place();
        match self.rank() == root {
            true => self.call(asked, buffer, buffer, (1, 1), stream),
            false => self.call(asked, buffer, &buffer.part(..0)?, (1, 0), stream),
        }
    }

    /// Rank r's `recv` becomes part r of the root's `send`. The root passes `Some(send)`, `world_size` times as long as
    /// `recv`; the others pass `None`.
    ///
    /// # Errors
    ///
    /// As [`broadcast`](Self::broadcast).
    pub fn scatter<T: Element>(
        &self,
        send: Option<&DeviceBuffer<T>>,
        recv: &DeviceBuffer<T>,
        root: usize,
        stream: &Stream,
    ) -> Result<()> {
        let asked = Asked::new("scatter", Collective::Scatter, None).root(root);
        match self.at_root(&asked, "send", send)? {
            Some(send) => self.call(asked, send, recv, (self.world_size(), 1), stream),
            None => self.call(asked, &recv.part(..0)?, recv, (0, 1), stream),
        }
    }

    /// The same in place: the root passes all parts, of which its own stays where it is; the others pass what they
    /// receive.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if there is no such root or its length is no multiple of `world_size`; otherwise as
    /// [`all_gather`](Self::all_gather).
    pub fn scatter_in_place<T: Element>(&self, buffer: &DeviceBuffer<T>, root: usize, stream: &Stream) -> Result<()> {
        let asked = Asked::new("scatter_in_place", Collective::Scatter, None).root(root).in_place();
        match self.rank() == root {
            true => {
                let own = self.own_part(&asked, buffer)?;
                self.call(asked, buffer, &own, (self.world_size(), 1), stream)
            }
            false => self.call(asked, &buffer.part(..0)?, buffer, (0, 1), stream),
        }
    }

    /// The root's `recv` becomes all ranks' `send`, one after the other. The root passes `Some(recv)`, `world_size` times
    /// as long as `send`; the others pass `None`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if there is no such root, if the root passes no `recv` or another rank does; otherwise as
    /// [`all_gather`](Self::all_gather).
    pub fn gather<T: Element>(
        &self,
        send: &DeviceBuffer<T>,
        recv: Option<&DeviceBuffer<T>>,
        root: usize,
        stream: &Stream,
    ) -> Result<()> {
        let asked = Asked::new("gather", Collective::Gather, None).root(root);
        match self.at_root(&asked, "recv", recv)? {
            Some(recv) => self.call(asked, send, recv, (1, self.world_size()), stream),
            None => self.call(asked, send, &send.part(..0)?, (1, 0), stream),
        }
    }

    /// The same in place: the root passes room for all parts, with its own where it belongs; the others pass what they
    /// send, which is only read.
    ///
    /// # Errors
    ///
    /// As [`scatter_in_place`](Self::scatter_in_place).
    pub fn gather_in_place<T: Element>(&self, buffer: &DeviceBuffer<T>, root: usize, stream: &Stream) -> Result<()> {
        let asked = Asked::new("gather_in_place", Collective::Gather, None).root(root).in_place();
        match self.rank() == root {
            true => {
                let own = self.own_part(&asked, buffer)?;
                self.call(asked, &own, buffer, (1, self.world_size()), stream)
            }
            false => self.call(asked, buffer, &buffer.part(..0)?, (1, 0), stream),
        }
    }

    /// Part i of rank r's `send` becomes part r of rank i's `recv`. Both have the same length, the same on all ranks.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the lengths differ or are no multiple of `world_size`; otherwise as
    /// [`all_gather`](Self::all_gather).
    pub fn all_to_all<T: Element>(
        &self,
        send: &DeviceBuffer<T>,
        recv: &DeviceBuffer<T>,
        stream: &Stream,
    ) -> Result<()> {
        let (asked, parts) = (Asked::new("all_to_all", Collective::AllToAll, None), self.world_size());
        self.own_part(&asked, send)?;
        self.call(asked, send, recv, (parts, parts), stream)
    }

    /// The same with `buffer` as both: what came from rank i takes the place of what went there.
    ///
    /// # Errors
    ///
    /// As [`all_to_all`](Self::all_to_all).
    pub fn all_to_all_in_place<T: Element>(&self, buffer: &DeviceBuffer<T>, stream: &Stream) -> Result<()> {
        let asked = Asked::new("all_to_all_in_place", Collective::AllToAll, None).in_place();
        let parts = self.world_size();
        self.own_part(&asked, buffer)?;
        self.call(asked, buffer, buffer, (parts, parts), stream)
    }

    /// What is enqueued behind it is done when all ranks' streams have come to it.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` on a stream of another device; and the [failure](Self#failure) of an earlier call.
    pub fn barrier(&self, stream: &Stream) -> Result<()> {
        let none = self.members.packs[self.rank()].part(..0)?;
        self.call(Asked::new("barrier", Collective::Barrier, None).in_place(), &none, &none, (1, 1), stream)
    }

    /// What the root passes, and other ranks do not.
    fn at_root<'a, T: Element>(
        &self,
        asked: &Asked,
        what: &str,
        given: Option<&'a DeviceBuffer<T>>,
    ) -> Result<Option<&'a DeviceBuffer<T>>> {
        let Asked { name, root, .. } = *asked;
        let rank = self.rank();
        self.check_root(asked)?;
        match (given.is_some(), rank == root) {
            (false, true) => Err(Error::invalid(format!("{name} on rank {rank}: the root must pass {what}"))),
            (true, false) => Err(Error::invalid(format!(
                "{name} on rank {rank}: only the root, rank {root}, passes {what}; pass None"
            ))),
            _ => Ok(given),
        }
    }

    fn check_root(&self, asked: &Asked) -> Result<()> {
        let Asked { name, root, .. } = *asked;
        let (rank, world) = (self.rank(), self.world_size());
        match root < world {
            true => Ok(()),
            false => Err(Error::invalid(format!(
                "{name} on rank {rank}: there is no rank {root} to be the root among {world} ranks"
            ))),
        }
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
        let rank = self.rank();
        let refused = |why: String| Err(Error::invalid(format!("{name} on rank {rank}: {why}")));
        self.check_root(&asked)?;
        if from.len().checked_mul(parts.1) != to.len().checked_mul(parts.0) {
            let (sent, received) = (from.len(), to.len());
            return refused(match parts {
                (n, m) if n == m => format!("send has {sent} elements and recv {received}; they must be equal"),
                (1, n) => format!("recv has {received} elements and send {sent}; recv must hold {n} times as many"),
                (n, _) => format!("send has {sent} elements and recv {received}; send must hold {n} times as many"),
            });
        }
        let (from, to) = (from.as_bytes(), to.as_bytes());
        let may_be_same = in_place || (collective == Collective::Broadcast && rank != root);
        self.check_buffers(name, &from, &to, may_be_same, stream)?;
        if let Some(op) = op {
            op.check(T::DATA_TYPE)?;
        }
        let descriptor = Descriptor {
            collective,
            data_type: if collective == Collective::Barrier { DataType::U8 } else { T::DATA_TYPE },
            op,
            operator: None,
            count: if parts.0 == 0 { to.len() } else { from.len() / parts.0 } / size_of::<T>(),
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
        let (rank, device) = (self.rank(), self.device());
        let refused = |why: String| Err(Error::invalid(format!("{name} on rank {rank}: {why}")));
        if stream.device() != *device {
            return refused(format!("{stream} is not of {device}, which the communicator was made for"));
        }
        for (what, buffer) in [("input", from), ("output", to)] {
            if buffer.device() != *device {
                return refused(format!("the {what} is of {}; it must be of {device}", buffer.device()));
            }
        }
        let end = |buffer: &DeviceBuffer<u8>| buffer.address() + buffer.len() as u64;
        let is_same = (from.address(), from.len()) == (to.address(), to.len());
        if !may_be_same && from.address() < end(to) && to.address() < end(from) {
            let whole = if is_same { "are the same" } else { "overlap" };
            return refused(format!("send and recv {whole}; they must be apart, or the call in place"));
        }
        Ok(())
    }

    /// This rank's part of a buffer of one part a rank.
    fn own_part<T: Element>(&self, asked: &Asked, buffer: &DeviceBuffer<T>) -> Result<DeviceBuffer<T>> {
        let (name, rank, world, all) = (asked.name, self.rank(), self.world_size(), buffer.len());
        if !all.is_multiple_of(world) {
            return Err(Error::invalid(format!(
                "{name} on rank {rank}: {all} elements cannot be {world} equal parts; pass a multiple of {world}"
            )));
        }
        buffer.part(rank * (all / world)..(rank + 1) * (all / world))
    }

    /// Proves that what each rank writes arrives at every other: all meet, and each gets a number of every other's.
    pub(super) fn test_self(&self) -> Result<()> {
        // Not the stream by which reports of faults are read: calls make their stream wait for such reports.
        let stream = &self.device().stream()?;
        let (send, recv) = (self.device().allocate(1)?, self.device().allocate(self.world_size())?);
        let number = |rank: usize| 0x5eed_0000_0000_0000 + rank as u64;
        stream.write(&send, &[number(self.rank())])?;
        self.barrier(stream)?;
        self.all_gather(&send, &recv, stream)?;
        const { assert!(SELF_TESTS == 2, "as many calls as these") };
        let got = stream.read(&recv)?;
        match (0..self.world_size()).find(|rank| got[*rank] != number(*rank)) {
            None => Ok(()),
            Some(rank) => Err(Error::system(
                format!("testing device memory between ranks {rank} and {}", self.rank()),
                "what was written did not arrive; the machine's peer-to-peer access does not work",
            )),
        }
    }
}
