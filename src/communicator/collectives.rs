// SPDX-License-Identifier: MPL-2.0
//! The calls, typed and checked. Counts and in-place rules are NCCL's.
//!
//! What a rank can see wrong alone (lengths that do not fit together, a root that does not exist) is
//! `InvalidArgument`: nothing is posted, no call number is used. Lengths that differ *between* ranks are a `Mismatch`
//! on all of them.

use super::Communicator;
use super::addresses::Run;
use super::calls::Call;
use super::descriptor::Descriptor;
use crate::element::{Element, ReduceOp};
use crate::error::{Error, Result};
use crate::schedule::{Collective, Verified};

impl Run {
    /// Nothing.
    pub const NONE: Run = Run { data: std::ptr::null_mut(), bytes: 0 };

    /// Elements that are only read.
    pub fn of<T: Element>(elements: &[T]) -> Self {
        Run { data: elements.as_ptr().cast_mut().cast(), bytes: size_of_val(elements) }
    }

    /// Elements that are written.
    pub fn of_mut<T: Element>(elements: &mut [T]) -> Self {
        Run { data: elements.as_mut_ptr().cast(), bytes: size_of_val(elements) }
    }

    /// Elements `range` of these.
    fn part<T: Element>(self, first: usize, len: usize) -> Self {
        Run { data: self.data.wrapping_add(first * size_of::<T>()), bytes: len * size_of::<T>() }
    }
}

impl Communicator {
    /// Every rank's `recv` becomes the fold of all ranks' `send`.
    ///
    /// `send` and `recv` have the same length, the same on all ranks. Folded in rank order with one rounding at the end:
    /// every rank gets the same bits, whatever the length and the memory.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the lengths differ or the operation does not [apply](ReduceOp::applies_to) to the type, and
    /// the failures of every collective.
    pub fn all_reduce<T: Element>(&self, send: &[T], recv: &mut [T], op: ReduceOp) -> Result<()> {
        self.engine.block(self.all_reduce_call(send, recv, Some(op))?)
    }

    /// The same with `buffer` as both.
    pub fn all_reduce_in_place<T: Element>(&self, buffer: &mut [T], op: ReduceOp) -> Result<()> {
        self.engine.block(self.all_reduce_in_place_call(buffer, Some(op)))
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

    /// Every rank's `recv` becomes all ranks' `send`, one after the other.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if `recv` is not `world_size` times as long as `send`, and the failures of every collective.
    pub fn all_gather<T: Element>(&self, send: &[T], recv: &mut [T]) -> Result<()> {
        self.check_parts("all_gather", "recv", recv.len(), "send", send.len())?;
        let (input, output) = (Run::of(send), Run::of_mut(recv));
        self.engine.block(self.call::<T>(Collective::AllGather, None, send.len(), 0, false, input, output))
    }

    /// The same with the input as part `rank` of `buffer`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the length is no multiple of `world_size`, and the failures of every collective.
    pub fn all_gather_in_place<T: Element>(&self, buffer: &mut [T]) -> Result<()> {
        let count = self.part_of("all_gather_in_place", buffer.len())?;
        let output = Run::of_mut(buffer);
        let input = output.part::<T>(self.rank() * count, count);
        self.engine.block(self.call::<T>(Collective::AllGather, None, count, 0, true, input, output))
    }

    /// Every rank's `recv` becomes the root's `send`. The root passes `Some(send)`, as long as `recv`; the others pass
    /// `None`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the root does not exist or passes no `send` or one of another length, or if another rank
    /// passes one; and the failures of every collective.
    pub fn broadcast<T: Element>(&self, send: Option<&[T]>, recv: &mut [T], root: usize) -> Result<()> {
        self.check_root("broadcast", root)?;
        let rank = self.rank();
        match send {
            Some(send) if rank == root && send.len() != recv.len() => {
                return Err(Error::invalid(format!(
                    "broadcast on rank {rank}: send has {} elements and recv {}; they must be equal",
                    send.len(),
                    recv.len()
                )));
            }
            None if rank == root => {
                return Err(Error::invalid(format!(
                    "broadcast on rank {rank}: this rank is the root and must pass send"
                )));
            }
            Some(_) if rank != root => {
                return Err(Error::invalid(format!(
                    "broadcast on rank {rank}: only the root, rank {root}, passes send; pass None"
                )));
            }
            _ => {}
        }
        let (input, output) = (send.map_or(Run::NONE, Run::of), Run::of_mut(recv));
        self.engine.block(self.call::<T>(
            Collective::Broadcast,
            None,
            output.bytes / size_of::<T>(),
            root,
            false,
            input,
            output,
        ))
    }

    /// Every rank's `buffer` becomes the root's.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the root does not exist, and the failures of every collective.
    pub fn broadcast_in_place<T: Element>(&self, buffer: &mut [T], root: usize) -> Result<()> {
        self.check_root("broadcast_in_place", root)?;
        let output = Run::of_mut(buffer);
        let input = if self.rank() == root { output } else { Run::NONE };
        self.engine.block(self.call::<T>(Collective::Broadcast, None, buffer.len(), root, true, input, output))
    }

    /// Returns when all ranks have called it.
    ///
    /// # Errors
    ///
    /// The failures of every collective.
    pub fn barrier(&self) -> Result<()> {
        self.engine.block(self.call::<u8>(Collective::Barrier, None, 0, 0, false, Run::NONE, Run::NONE))
    }

    /// Runs one's own schedule, proved by [`verify`](crate::schedule::verify()), on buffers of the lengths it was
    /// verified for. `op` is given exactly if its collective folds. Ranks with different programs get a `Mismatch`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if lengths, ranks or operation do not fit what was verified; `Unsupported`, on all ranks, if
    /// the schedule reaches into peers' buffers and not all of them can be addressed; the failures of every collective.
    pub fn execute<T: Element>(
        &self,
        verified: &Verified,
        send: &[T],
        recv: &mut [T],
        op: Option<ReduceOp>,
    ) -> Result<()> {
        let (layout, collective, rank) = (verified.layout(), verified.collective(), self.rank());
        self.check_verified(verified, op, false)?;
        let (input_len, output_len) = (layout.input_len(collective, rank), layout.output_len(collective, rank));
        if send.len() != input_len || recv.len() != output_len {
            return Err(Error::invalid(format!(
                "execute on rank {rank}: {} was verified for {input_len} elements in and {output_len} out, not for {} and {}",
                verified.name(),
                send.len(),
                recv.len()
            )));
        }
        self.engine.block(self.verified_call::<T>(verified, op, Run::of(send), Run::of_mut(recv)))
    }

    /// The same for a schedule verified in place. `buffer` is the larger of input and output.
    pub fn execute_in_place<T: Element>(
        &self,
        verified: &Verified,
        buffer: &mut [T],
        op: Option<ReduceOp>,
    ) -> Result<()> {
        let (layout, collective, rank) = (verified.layout(), verified.collective(), self.rank());
        self.check_verified(verified, op, true)?;
        let (input_len, output_len) = (layout.input_len(collective, rank), layout.output_len(collective, rank));
        if buffer.len() != input_len.max(output_len) {
            return Err(Error::invalid(format!(
                "execute_in_place on rank {rank}: {} was verified for {} elements, not for {}",
                verified.name(),
                input_len.max(output_len),
                buffer.len()
            )));
        }
        let whole = Run::of_mut(buffer);
        let alias = layout.alias(collective, rank);
        let input = whole.part::<T>(usize::try_from(alias).unwrap_or(0), input_len);
        let output = whole.part::<T>(usize::try_from(-alias).unwrap_or(0), output_len);
        self.engine.block(self.verified_call::<T>(verified, op, input, output))
    }

    pub(super) fn all_reduce_call<T: Element>(
        &self,
        send: &[T],
        recv: &mut [T],
        op: Option<ReduceOp>,
    ) -> Result<Call<'static>> {
        if send.len() != recv.len() {
            return Err(Error::invalid(format!(
                "all_reduce on rank {}: send has {} elements and recv {}; they must be equal",
                self.rank(),
                send.len(),
                recv.len()
            )));
        }
        let (input, output) = (Run::of(send), Run::of_mut(recv));
        Ok(self.call::<T>(Collective::AllReduce, op, send.len(), 0, false, input, output))
    }

    pub(super) fn all_reduce_in_place_call<T: Element>(&self, buffer: &mut [T], op: Option<ReduceOp>) -> Call<'static> {
        let run = Run::of_mut(buffer);
        self.call::<T>(Collective::AllReduce, op, buffer.len(), 0, true, run, run)
    }

    pub(super) fn reduce_scatter_call<T: Element>(
        &self,
        send: &[T],
        recv: &mut [T],
        op: Option<ReduceOp>,
    ) -> Result<Call<'static>> {
        self.check_parts("reduce_scatter", "send", send.len(), "recv", recv.len())?;
        let (input, output) = (Run::of(send), Run::of_mut(recv));
        Ok(self.call::<T>(Collective::ReduceScatter, op, recv.len(), 0, false, input, output))
    }

    pub(super) fn reduce_scatter_in_place_call<T: Element>(
        &self,
        buffer: &mut [T],
        op: Option<ReduceOp>,
    ) -> Result<Call<'static>> {
        let count = self.part_of("reduce_scatter_in_place", buffer.len())?;
        let input = Run::of_mut(buffer);
        let output = input.part::<T>(self.rank() * count, count);
        Ok(self.call::<T>(Collective::ReduceScatter, op, count, 0, true, input, output))
    }

    #[allow(clippy::too_many_arguments)] // what a collective is
    fn call<T: Element>(
        &self,
        collective: Collective,
        op: Option<ReduceOp>,
        count: usize,
        root: usize,
        in_place: bool,
        input: Run,
        output: Run,
    ) -> Call<'static> {
        let algorithm = if collective == Collective::Barrier { 0 } else { self.algorithm.get() };
        let (data_type, operator) = (T::DATA_TYPE, None);
        let descriptor =
            Descriptor { collective, data_type, op, operator, count, root, in_place, algorithm, program: 0 };
        Call { descriptor, verified: None, operator: None, input, output }
    }

    fn verified_call<'a, T: Element>(
        &self,
        verified: &'a Verified,
        op: Option<ReduceOp>,
        input: Run,
        output: Run,
    ) -> Call<'a> {
        let layout = verified.layout();
        let descriptor = Descriptor {
            collective: verified.collective(),
            data_type: T::DATA_TYPE,
            op,
            operator: None,
            count: layout.count(self.rank()),
            root: layout.root(),
            in_place: layout.is_in_place(),
            algorithm: 0,
            program: verified.hash(),
        };
        Call { descriptor, verified: Some(verified), operator: None, input, output }
    }

    fn check_verified(&self, verified: &Verified, op: Option<ReduceOp>, in_place: bool) -> Result<()> {
        let (layout, rank) = (verified.layout(), self.rank());
        let problem = if layout.world() != self.world_size() {
            format!("it was verified for {} ranks, and there are {}", layout.world(), self.world_size())
        } else if layout.is_in_place() != in_place {
            let (was, other) = if in_place { ("out of place", "execute") } else { ("in place", "execute_in_place") };
            format!("it was verified {was}; use {other}")
        } else if verified.collective().folds() != op.is_some() {
            let need = if op.is_some() { "takes no operation" } else { "needs an operation" };
            format!("{} {need}", verified.collective())
        } else {
            return Ok(());
        };
        Err(Error::invalid(format!("executing {} on rank {rank}: {problem}", verified.name())))
    }

    fn check_root(&self, name: &str, root: usize) -> Result<()> {
        if root < self.world_size() {
            return Ok(());
        }
        let (rank, world) = (self.rank(), self.world_size());
        Err(Error::invalid(format!(
            "{name} on rank {rank}: there is no rank {root} to be the root among {world} ranks"
        )))
    }

    fn check_parts(&self, name: &str, whole: &str, all: usize, part: &str, count: usize) -> Result<()> {
        let (rank, world) = (self.rank(), self.world_size());
        if count.checked_mul(world) == Some(all) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{name} on rank {rank}: {whole} has {all} elements and {part} {count}; {whole} must hold {world} times as many"
        )))
    }

    fn part_of(&self, name: &str, all: usize) -> Result<usize> {
        let (rank, world) = (self.rank(), self.world_size());
        if all.is_multiple_of(world) {
            return Ok(all / world);
        }
        Err(Error::invalid(format!(
            "{name} on rank {rank}: {all} elements cannot be {world} equal parts; pass a multiple of {world}"
        )))
    }
}
