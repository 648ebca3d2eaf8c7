// SPDX-License-Identifier: MPL-2.0
//! Collectives that move elements, bit for bit, and the barrier.

use super::super::Communicator;
use super::super::addresses::Run;
use super::super::calls::Call;
use super::Asked;
use crate::element::Element;
use crate::error::Result;
use crate::schedule::Collective;

impl Communicator {
    /// Every rank's `recv` becomes all ranks' `send`, one after the other.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if `recv` is not `world_size` times as long as `send`, and the failures of every collective.
    pub fn all_gather<T: Element>(&self, send: &[T], recv: &mut [T]) -> Result<()> {
        self.engine.block(self.all_gather_call(send, recv)?)
    }

    /// The same with the input as part `rank` of `buffer`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the length is no multiple of `world_size`, and the failures of every collective.
    pub fn all_gather_in_place<T: Element>(&self, buffer: &mut [T]) -> Result<()> {
        self.engine.block(self.all_gather_in_place_call(buffer)?)
    }

    /// Every rank's `recv` becomes the root's `send`. The root passes `Some(send)`, as long as `recv`; the others pass
    /// `None`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the root does not exist or passes no `send` or one of another length, or if another rank
    /// passes one; and the failures of every collective.
    pub fn broadcast<T: Element>(&self, send: Option<&[T]>, recv: &mut [T], root: usize) -> Result<()> {
        self.engine.block(self.broadcast_call(send, recv, root)?)
    }

    /// Every rank's `buffer` becomes the root's.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the root does not exist, and the failures of every collective.
    pub fn broadcast_in_place<T: Element>(&self, buffer: &mut [T], root: usize) -> Result<()> {
        self.engine.block(self.broadcast_in_place_call(buffer, root)?)
    }

    /// Rank r's `recv` becomes part r of the root's `send`. The root passes `Some(send)`, one part of `recv`'s length a
    /// rank; the others pass `None`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the root does not exist, if `send` is not `world_size` times as long as `recv`, or if another
    /// rank than the root passes it or the root does not; and the failures of every collective.
    pub fn scatter<T: Element>(&self, send: Option<&[T]>, recv: &mut [T], root: usize) -> Result<()> {
        self.engine.block(self.scatter_call(send, recv, root)?)
    }

    /// The same in place: the root passes all parts, of which its own stays where it is; the others pass what they
    /// receive.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the root does not exist or its buffer is no multiple of `world_size` long, and the failures
    /// of every collective.
    pub fn scatter_in_place<T: Element>(&self, buffer: &mut [T], root: usize) -> Result<()> {
        self.engine.block(self.scatter_in_place_call(buffer, root)?)
    }

    /// The root's `recv` becomes all ranks' `send`, one after the other. The root passes `Some(recv)`, `world_size` times
    /// as long as `send`; the others pass `None`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the root does not exist, if the lengths do not fit, or if another rank than the root passes
    /// `recv` or the root does not; and the failures of every collective.
    pub fn gather<T: Element>(&self, send: &[T], recv: Option<&mut [T]>, root: usize) -> Result<()> {
        self.engine.block(self.gather_call(send, recv, root)?)
    }

    /// The same in place: the root passes room for all parts, with its own where it belongs; the others pass what they
    /// send, which is only read.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the root does not exist or its buffer is no multiple of `world_size` long, and the failures
    /// of every collective.
    pub fn gather_in_place<T: Element>(&self, buffer: &mut [T], root: usize) -> Result<()> {
        self.engine.block(self.gather_in_place_call(buffer, root)?)
    }

    /// Part i of rank r's `send` becomes part r of rank i's `recv`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the lengths differ or are no multiple of `world_size`, and the failures of every collective.
    pub fn all_to_all<T: Element>(&self, send: &[T], recv: &mut [T]) -> Result<()> {
        self.engine.block(self.all_to_all_call(send, recv)?)
    }

    /// The same with `buffer` as both: what came from rank i takes the place of what went there.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the length is no multiple of `world_size`, and the failures of every collective.
    pub fn all_to_all_in_place<T: Element>(&self, buffer: &mut [T]) -> Result<()> {
        self.engine.block(self.all_to_all_in_place_call(buffer)?)
    }

    /// Returns when all ranks have called it.
    ///
    /// # Errors
    ///
    /// The failures of every collective.
    pub fn barrier(&self) -> Result<()> {
        self.engine.block(self.barrier_call())
    }
}

/// What the forms of a call have in common.
impl Communicator {
    pub(in super::super) fn all_gather_call<T: Element>(&self, send: &[T], recv: &mut [T]) -> Result<Call<'static>> {
        let layout = self.uniform(send.len());
        let asked = Asked { name: "all_gather", collective: Collective::AllGather, op: None, layout };
        self.out_of_place(asked, Some(send), Some(recv))
    }

    pub(in super::super) fn all_gather_in_place_call<T: Element>(&self, buffer: &mut [T]) -> Result<Call<'static>> {
        let name = "all_gather_in_place";
        let layout = self.uniform(self.part_of(name, buffer.len())?);
        self.in_place(Asked { name, collective: Collective::AllGather, op: None, layout }, buffer)
    }

    pub(in super::super) fn broadcast_call<T: Element>(
        &self,
        send: Option<&[T]>,
        recv: &mut [T],
        root: usize,
    ) -> Result<Call<'static>> {
        let layout = self.uniform(recv.len()).with_root(self.checked_root("broadcast", root)?);
        let asked = Asked { name: "broadcast", collective: Collective::Broadcast, op: None, layout };
        self.out_of_place(asked, send, Some(recv))
    }

    pub(in super::super) fn broadcast_in_place_call<T: Element>(
        &self,
        buffer: &mut [T],
        root: usize,
    ) -> Result<Call<'static>> {
        let name = "broadcast_in_place";
        let layout = self.uniform(buffer.len()).with_root(self.checked_root(name, root)?);
        self.in_place(Asked { name, collective: Collective::Broadcast, op: None, layout }, buffer)
    }

    pub(in super::super) fn scatter_call<T: Element>(
        &self,
        send: Option<&[T]>,
        recv: &mut [T],
        root: usize,
    ) -> Result<Call<'static>> {
        let layout = self.uniform(recv.len()).with_root(self.checked_root("scatter", root)?);
        let asked = Asked { name: "scatter", collective: Collective::Scatter, op: None, layout };
        self.out_of_place(asked, send, Some(recv))
    }

    pub(in super::super) fn scatter_in_place_call<T: Element>(
        &self,
        buffer: &mut [T],
        root: usize,
    ) -> Result<Call<'static>> {
        let asked = self.rooted_in_place("scatter_in_place", Collective::Scatter, buffer.len(), root)?;
        self.in_place(asked, buffer)
    }

    pub(in super::super) fn gather_call<T: Element>(
        &self,
        send: &[T],
        recv: Option<&mut [T]>,
        root: usize,
    ) -> Result<Call<'static>> {
        let layout = self.uniform(send.len()).with_root(self.checked_root("gather", root)?);
        let asked = Asked { name: "gather", collective: Collective::Gather, op: None, layout };
        self.out_of_place(asked, Some(send), recv)
    }

    pub(in super::super) fn gather_in_place_call<T: Element>(
        &self,
        buffer: &mut [T],
        root: usize,
    ) -> Result<Call<'static>> {
        let asked = self.rooted_in_place("gather_in_place", Collective::Gather, buffer.len(), root)?;
        self.in_place(asked, buffer)
    }

    /// The root passes all parts, the others theirs.
    fn rooted_in_place(&self, name: &'static str, collective: Collective, len: usize, root: usize) -> Result<Asked> {
        let root = self.checked_root(name, root)?;
        let count = if self.rank() == root { self.part_of(name, len)? } else { len };
        Ok(Asked { name, collective, op: None, layout: self.uniform(count).with_root(root) })
    }

    pub(in super::super) fn all_to_all_call<T: Element>(&self, send: &[T], recv: &mut [T]) -> Result<Call<'static>> {
        let layout = self.uniform(self.part_of("all_to_all", send.len())?);
        let asked = Asked { name: "all_to_all", collective: Collective::AllToAll, op: None, layout };
        self.out_of_place(asked, Some(send), Some(recv))
    }

    pub(in super::super) fn all_to_all_in_place_call<T: Element>(&self, buffer: &mut [T]) -> Result<Call<'static>> {
        let name = "all_to_all_in_place";
        let layout = self.uniform(self.part_of(name, buffer.len())?);
        self.in_place(Asked { name, collective: Collective::AllToAll, op: None, layout }, buffer)
    }

    pub(in super::super) fn barrier_call(&self) -> Call<'static> {
        let layout = self.uniform(0);
        let asked = Asked { name: "barrier", collective: Collective::Barrier, op: None, layout };
        self.call::<u8>(asked, Run::NONE, Run::NONE)
    }
}
