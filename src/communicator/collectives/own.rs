// SPDX-License-Identifier: MPL-2.0
//! Schedules of one's own.

use super::super::Communicator;
use super::super::addresses::Run;
use super::super::calls::Call;
use super::super::descriptor::Descriptor;
use super::super::engine::COLLECTIVES;
use super::folds::NO_AVERAGE;
use crate::element::{Element, ReduceOp};
use crate::error::{Error, Result};
use crate::schedule::Verified;

impl Communicator {
    /// Runs one's own schedule, proved by [`verify`](crate::schedule::verify()), on buffers of the lengths it was
    /// verified for. `op` is given exactly if its collective folds. Ranks with different programs get a `Mismatch`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if lengths, ranks or operation do not fit what was verified, which of scans
    /// [`Avg`](ReduceOp::Avg) never does; `Unsupported`, on all ranks, if the schedule reaches into peers' buffers and
    /// not all of them can be addressed; the failures of every collective.
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
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute).
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

    fn verified_call<'a, T: Element>(
        &self,
        verified: &'a Verified,
        op: Option<ReduceOp>,
        input: Run,
        output: Run,
    ) -> Call<'a> {
        let descriptor = Descriptor::of_verified(verified, T::DATA_TYPE, op);
        Call { lane: COLLECTIVES, descriptor, layout: None, verified: Some(verified), operator: None, input, output }
    }

    pub(in super::super) fn check_verified(
        &self,
        verified: &Verified,
        op: Option<ReduceOp>,
        in_place: bool,
    ) -> Result<()> {
        let (layout, rank) = (verified.layout(), self.rank());
        let problem = if layout.world() != self.world_size() {
            format!("it was verified for {} ranks, and there are {}", layout.world(), self.world_size())
        } else if layout.is_in_place() != in_place {
            let (was, other) = if in_place { ("out of place", "execute") } else { ("in place", "execute_in_place") };
            format!("it was verified {was}; use {other}")
        } else if verified.collective().folds() != op.is_some() {
            let need = if op.is_some() { "takes no operation" } else { "needs an operation" };
            format!("{} {need}", verified.collective())
        } else if verified.collective().is_scan() && op == Some(ReduceOp::Avg) {
            NO_AVERAGE.to_owned()
        } else {
            return Ok(());
        };
        Err(Error::invalid(format!("executing {} on rank {rank}: {problem}", verified.name())))
    }
}
