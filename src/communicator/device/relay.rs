// SPDX-License-Identifier: MPL-2.0
//! A message by the copy-engine path: copies of the driver, in pieces through slots of the sender's arena, and between
//! them launches of one warp (`kernels/relay.cu`). Where the sender's buffer is, the receiver could not tell when it
//! enqueues its copies; where the slots are, it can.
#![allow(unsafe_code)]

use super::DeviceCommunicator;
use super::messages::Wanted;
use crate::driver::{self, Stream, Use};
use crate::error::Result;
use crate::kernel::{Kernel, PIECES, Relay, Shape};

impl DeviceCommunicator {
    /// Enqueues a message to or from another rank. The sender copies a piece and tells of it; the receiver waits for it
    /// first.
    pub(super) fn relay(&self, wanted: &Wanted, stream: &Stream) -> Result<()> {
        self.remember(stream);
        let mut argument = Relay { batch: self.batch_of(std::slice::from_ref(wanted)), moved: 0, unused: 0 };
        if !wanted.sends {
            self.launch_relay(&mut argument, wanted, stream)?;
        }
        for piece in 0..self.pieces(wanted.buffer.len()) {
            self.copy_piece(piece, wanted, stream)?;
            argument.moved += 1;
            self.launch_relay(&mut argument, wanted, stream)?;
        }
        Ok(())
    }

    /// In how many pieces a message of so many bytes is moved: one, if there is nothing to move.
    pub(super) fn pieces(&self, bytes: usize) -> usize {
        bytes.div_ceil(self.long_slot()).max(1)
    }

    /// Bytes of the slots of all blocks together.
    fn long_slot(&self) -> usize {
        self.members.layout.room as usize / PIECES
    }

    fn copy_piece(&self, piece: usize, wanted: &Wanted, stream: &Stream) -> Result<()> {
        let (members, slot) = (&self.members, self.long_slot());
        let (begin, end) = (piece * slot, wanted.buffer.len().min((piece + 1) * slot));
        if begin == end {
            return Ok(());
        }
        let (sender, receiver) = if wanted.sends { (members.rank, wanted.peer) } else { (wanted.peer, members.rank) };
        let first = members.layout.slots as usize + receiver * members.layout.room as usize + piece % PIECES * slot;
        let (own, between) =
            (wanted.buffer.part(begin..end)?, members.arenas[sender].part(first..first + end - begin)?);
        let (from, to) = if wanted.sends { (&own, &between) } else { (&between, &own) };
        let uses = [wanted.usage(), Use::writes(&members.state), Use::shares(&between)];
        // SAFETY: The arena overlaps with no buffer of a user's, and all memory is named. The slot is this rank's alone to
        // write, or to read, from the launch before this copy to the one behind it, by the protocol of
        // `kernels/relay.cu`; where a wait of it has failed, what the message moves is unspecified.
        unsafe { stream.copy_using(from, to, &uses) }
    }

    fn launch_relay(&self, argument: &mut Relay, wanted: &Wanted, stream: &Stream) -> Result<()> {
        let members = &self.members;
        argument.batch.call = self.common(self.history.count());
        let mut uses = self.uses();
        uses.push(wanted.usage());
        let Shape { blocks, threads } = members.room.shape(Kernel::Relay, 0);
        let shape = driver::Shape::new(blocks, threads).together();
        // SAFETY: The argument is that of `kernels/relay.cu`: one message, to or from another rank that exists, by block
        // 0, of which so many pieces were moved before. It touches the state, the words and, through the first region of
        // the table, the words of messages in all ranks' arenas: `uses` names all of them. Those are atomic words with one
        // writer each, which is what `shares` asks for.
        unsafe { stream.launch(&members.kernels[&Kernel::Relay], shape, bytemuck::bytes_of(argument), &uses) }
    }
}
