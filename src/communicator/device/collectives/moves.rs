// SPDX-License-Identifier: MPL-2.0
//! The calls that move and do not fold: all-gather, broadcast, scatter, gather, all-to-all, barrier.

use super::super::DeviceCommunicator;
use super::Asked;
use crate::driver::{DeviceBuffer, Stream};
use crate::element::Element;
use crate::error::Result;
use crate::schedule::Collective;

impl DeviceCommunicator {
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
}
