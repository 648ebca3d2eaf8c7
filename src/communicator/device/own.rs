// SPDX-License-Identifier: MPL-2.0
//! Schedules of one's own on device memory.

use super::super::descriptor::Descriptor;
use super::DeviceCommunicator;
use super::call::Call;
use crate::driver::{DeviceBuffer, Stream};
use crate::element::{Element, ReduceOp};
use crate::error::{Error, Result};
use crate::schedule::Verified;

impl DeviceCommunicator {
    /// Enqueues one's own schedule, proved by [`verify`](crate::schedule::verify()), on buffers of the lengths it was
    /// verified for. `op` is given exactly if its collective folds. It is done by copies of the driver, folds, and
    /// flags.
    ///
    /// One that reaches into peers' buffers does so where all ranks' buffers are at the same place of memory that they
    /// allocated or registered together; a rank that has no input, or no output, passes an empty part of such a buffer
    /// that begins where the others' do. Where no rank's buffers are in such memory they are copied. That they are on
    /// some ranks, or elsewhere, is a `Mismatch`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if lengths, ranks or operation do not fit what was verified, if buffers overlap or are not of
    /// the communicator's device, or if it needs more shared memory than there is
    /// ([`set_schedule_memory`](Self::set_schedule_memory)); and the [failure](Self#failure) of an earlier call.
    pub fn execute<T: Element>(
        &self,
        verified: &Verified,
        send: &DeviceBuffer<T>,
        recv: &DeviceBuffer<T>,
        op: Option<ReduceOp>,
        stream: &Stream,
    ) -> Result<()> {
        self.control().check_verified(verified, op, false)?;
        let (input, output) = self.lengths(verified);
        if (send.len(), recv.len()) != (input, output) {
            return Err(Error::invalid(format!(
                "execute on rank {}: {} was verified for {input} elements in and {output} out, not for {} and {}",
                self.rank(),
                verified.name(),
                send.len(),
                recv.len()
            )));
        }
        let buffers = (send.as_bytes(), recv.as_bytes());
        self.execute_on(verified, T::DATA_TYPE, buffers, op, stream)
    }

    /// The same for a schedule verified in place. `buffer` is the larger of input and output.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute).
    pub fn execute_in_place<T: Element>(
        &self,
        verified: &Verified,
        buffer: &DeviceBuffer<T>,
        op: Option<ReduceOp>,
        stream: &Stream,
    ) -> Result<()> {
        self.control().check_verified(verified, op, true)?;
        let (input, output) = self.lengths(verified);
        if buffer.len() != input.max(output) {
            return Err(Error::invalid(format!(
                "execute_in_place on rank {}: {} was verified for {} elements, not for {}",
                self.rank(),
                verified.name(),
                input.max(output),
                buffer.len()
            )));
        }
        let alias = verified.layout().alias(verified.collective(), self.rank());
        let part = |begin: isize, length: usize| {
            let begin = usize::try_from(begin).unwrap_or(0);
            Ok::<_, Error>(buffer.part(begin..begin + length)?.as_bytes())
        };
        let buffers = (part(alias, input)?, part(-alias, output)?);
        self.execute_on(verified, T::DATA_TYPE, buffers, op, stream)
    }

    /// Elements of this rank's input and output.
    fn lengths(&self, verified: &Verified) -> (usize, usize) {
        let (layout, collective, rank) = (verified.layout(), verified.collective(), self.rank());
        (layout.input_len(collective, rank), layout.output_len(collective, rank))
    }

    fn execute_on(
        &self,
        verified: &Verified,
        data_type: crate::element::DataType,
        (from, to): (DeviceBuffer<u8>, DeviceBuffer<u8>),
        op: Option<ReduceOp>,
        stream: &Stream,
    ) -> Result<()> {
        self.members.failure(&self.faults)?;
        self.check_buffers("execute", &from, &to, verified.layout().is_in_place(), stream)?;
        if let Some(error) = op.and_then(|op| op.check(data_type).err()) {
            return self.asker("execute").refuse(error);
        }
        let descriptor = Descriptor::of_verified(verified, data_type, op);
        self.enqueue_verified(&Call { descriptor, from, to }, verified, stream)
    }
}
