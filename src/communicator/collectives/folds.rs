// SPDX-License-Identifier: MPL-2.0
//! Collectives that fold. Folded in rank order with one rounding at the end: the bits do not depend on length, memory or
//! transport.

use super::super::Communicator;
use super::super::calls::Call;
use super::Asked;
use crate::element::{Element, ReduceOp};
use crate::error::{Error, Result};
use crate::schedule::Collective;

/// Why scans do not average.
pub(super) const NO_AVERAGE: &str = "ranks' prefixes have different numbers of contributions, so there is no average of \
                                     them; use Sum, and divide by rank + 1";

impl Communicator {
    /// Every rank's `recv` becomes the fold of all ranks' `send`.
    ///
    /// `send` and `recv` have the same length, the same on all ranks. Every rank gets the same bits.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the lengths differ or the operation does not [apply](ReduceOp::applies_to) to the type, and
    /// the failures of every collective.
    pub fn all_reduce<T: Element>(&self, send: &[T], recv: &mut [T], op: ReduceOp) -> Result<()> {
        self.engine.block(self.all_reduce_call(send, recv, Some(op))?)
    }

    /// The same with `buffer` as both.
    ///
    /// # Errors
    ///
    /// As [`all_reduce`](Self::all_reduce).
    pub fn all_reduce_in_place<T: Element>(&self, buffer: &mut [T], op: ReduceOp) -> Result<()> {
        self.engine.block(self.all_reduce_in_place_call(buffer, Some(op))?)
    }

    /// Rank r's `recv` becomes part r of the fold of all ranks' `send`; `send` holds one part of `recv`'s length a
    /// rank.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if `send` is not `world_size` times as long as `recv` or the operation does not apply to the
    /// type, and the failures of every collective.
    pub fn reduce_scatter<T: Element>(&self, send: &[T], recv: &mut [T], op: ReduceOp) -> Result<()> {
        self.engine.block(self.reduce_scatter_call(send, recv, Some(op))?)
    }

    /// The same with the output as part `rank` of `buffer`, whose other parts are left as they are.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the length is no multiple of `world_size` or the operation does not apply to the type, and
    /// the failures of every collective.
    pub fn reduce_scatter_in_place<T: Element>(&self, buffer: &mut [T], op: ReduceOp) -> Result<()> {
        self.engine.block(self.reduce_scatter_in_place_call(buffer, Some(op))?)
    }

    /// The root's `recv` becomes the fold of all ranks' `send`. The root passes `Some(recv)`, as long as `send`; the
    /// others pass `None`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the root does not exist, if the lengths differ, if another rank than the root passes `recv`
    /// or the root does not, or if the operation does not apply to the type; and the failures of every collective.
    pub fn reduce<T: Element>(&self, send: &[T], recv: Option<&mut [T]>, op: ReduceOp, root: usize) -> Result<()> {
        self.engine.block(self.reduce_call(send, recv, Some(op), root)?)
    }

    /// The same with the root's `buffer` as both; the others' are only read.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the root does not exist or the operation does not apply to the type, and the failures of
    /// every collective.
    pub fn reduce_in_place<T: Element>(&self, buffer: &mut [T], op: ReduceOp, root: usize) -> Result<()> {
        self.engine.block(self.reduce_in_place_call(buffer, Some(op), root)?)
    }

    /// Rank r's `recv` becomes the fold of the `send` of ranks 0 to r: `MPI_Scan`.
    ///
    /// `send` and `recv` have the same length, the same on all ranks.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the lengths differ, the operation does not apply to the type, or it is
    /// [`Avg`](ReduceOp::Avg), since the ranks' folds have different numbers of contributions; and the failures of every
    /// collective.
    pub fn scan<T: Element>(&self, send: &[T], recv: &mut [T], op: ReduceOp) -> Result<()> {
        self.engine.block(self.scan_call(send, recv, Some(op))?)
    }

    /// The same with `buffer` as both.
    ///
    /// # Errors
    ///
    /// As [`Communicator::scan`].
    pub fn scan_in_place<T: Element>(&self, buffer: &mut [T], op: ReduceOp) -> Result<()> {
        self.engine.block(self.scan_in_place_call(buffer, Some(op))?)
    }

    /// Rank r's `recv` becomes the fold of the `send` of ranks 0 to r - 1: `MPI_Exscan`. Rank 0's is left as it is.
    ///
    /// # Errors
    ///
    /// As [`Communicator::scan`].
    pub fn exclusive_scan<T: Element>(&self, send: &[T], recv: &mut [T], op: ReduceOp) -> Result<()> {
        self.engine.block(self.exclusive_scan_call(send, recv, Some(op))?)
    }

    /// The same with `buffer` as both.
    ///
    /// # Errors
    ///
    /// As [`Communicator::scan`].
    pub fn exclusive_scan_in_place<T: Element>(&self, buffer: &mut [T], op: ReduceOp) -> Result<()> {
        self.engine.block(self.exclusive_scan_in_place_call(buffer, Some(op))?)
    }
}

/// What the forms of a call have in common.
impl Communicator {
    pub(in super::super) fn all_reduce_call<T: Element>(
        &self,
        send: &[T],
        recv: &mut [T],
        op: Option<ReduceOp>,
    ) -> Result<Call<'static>> {
        let layout = self.uniform(recv.len());
        let asked = Asked { name: "all_reduce", collective: Collective::AllReduce, op, layout };
        self.out_of_place(asked, Some(send), Some(recv))
    }

    pub(in super::super) fn all_reduce_in_place_call<T: Element>(
        &self,
        buffer: &mut [T],
        op: Option<ReduceOp>,
    ) -> Result<Call<'static>> {
        let layout = self.uniform(buffer.len());
        self.in_place(Asked { name: "all_reduce_in_place", collective: Collective::AllReduce, op, layout }, buffer)
    }

    pub(in super::super) fn reduce_scatter_call<T: Element>(
        &self,
        send: &[T],
        recv: &mut [T],
        op: Option<ReduceOp>,
    ) -> Result<Call<'static>> {
        let layout = self.uniform(recv.len());
        let asked = Asked { name: "reduce_scatter", collective: Collective::ReduceScatter, op, layout };
        self.out_of_place(asked, Some(send), Some(recv))
    }

    pub(in super::super) fn reduce_scatter_in_place_call<T: Element>(
        &self,
        buffer: &mut [T],
        op: Option<ReduceOp>,
    ) -> Result<Call<'static>> {
        let name = "reduce_scatter_in_place";
        let layout = self.uniform(self.part_of(name, buffer.len())?);
        self.in_place(Asked { name, collective: Collective::ReduceScatter, op, layout }, buffer)
    }

    pub(in super::super) fn reduce_call<T: Element>(
        &self,
        send: &[T],
        recv: Option<&mut [T]>,
        op: Option<ReduceOp>,
        root: usize,
    ) -> Result<Call<'static>> {
        let layout = self.uniform(send.len()).with_root(self.checked_root("reduce", root)?);
        self.out_of_place(Asked { name: "reduce", collective: Collective::Reduce, op, layout }, Some(send), recv)
    }

    pub(in super::super) fn reduce_in_place_call<T: Element>(
        &self,
        buffer: &mut [T],
        op: Option<ReduceOp>,
        root: usize,
    ) -> Result<Call<'static>> {
        let name = "reduce_in_place";
        let layout = self.uniform(buffer.len()).with_root(self.checked_root(name, root)?);
        self.in_place(Asked { name, collective: Collective::Reduce, op, layout }, buffer)
    }

    pub(in super::super) fn scan_call<T: Element>(
        &self,
        send: &[T],
        recv: &mut [T],
        op: Option<ReduceOp>,
    ) -> Result<Call<'static>> {
        let asked = self.prefixes("scan", Collective::Scan, op, send.len())?;
        self.out_of_place(asked, Some(send), Some(recv))
    }

    pub(in super::super) fn scan_in_place_call<T: Element>(
        &self,
        buffer: &mut [T],
        op: Option<ReduceOp>,
    ) -> Result<Call<'static>> {
        let asked = self.prefixes("scan_in_place", Collective::Scan, op, buffer.len())?;
        self.in_place(asked, buffer)
    }

    pub(in super::super) fn exclusive_scan_call<T: Element>(
        &self,
        send: &[T],
        recv: &mut [T],
        op: Option<ReduceOp>,
    ) -> Result<Call<'static>> {
        let asked = self.prefixes("exclusive_scan", Collective::ExclusiveScan, op, send.len())?;
        self.out_of_place(asked, Some(send), Some(recv))
    }

    pub(in super::super) fn exclusive_scan_in_place_call<T: Element>(
        &self,
        buffer: &mut [T],
        op: Option<ReduceOp>,
    ) -> Result<Call<'static>> {
        let asked = self.prefixes("exclusive_scan_in_place", Collective::ExclusiveScan, op, buffer.len())?;
        self.in_place(asked, buffer)
    }

    fn prefixes(
        &self,
        name: &'static str,
        collective: Collective,
        op: Option<ReduceOp>,
        count: usize,
    ) -> Result<Asked> {
        if op == Some(ReduceOp::Avg) {
            return Err(Error::invalid(format!("{name} on rank {}: {NO_AVERAGE}", self.rank())));
        }
        Ok(Asked { name, collective, op, layout: self.uniform(count) })
    }
}
