// SPDX-License-Identifier: MPL-2.0
//! The calls that fold: all-reduce, reduce-scatter, reduce.

use super::super::DeviceCommunicator;
use super::Asked;
use crate::driver::{DeviceBuffer, Stream};
use crate::element::{Element, ReduceOp};
use crate::error::Result;
use crate::schedule::Collective;

impl DeviceCommunicator {
    /// Every rank's `recv` becomes the fold of all ranks' `send`, in rank order. Both have the same length, the same on
    /// all ranks.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the lengths differ, buffers overlap or are not of the communicator's device, the operation
    /// does not [apply](ReduceOp::applies_to) to the type, or the algorithm that was [set](Self::set_algorithm) cannot do
    /// this call; and the [failure](Self#failure) of an earlier call.
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
}
