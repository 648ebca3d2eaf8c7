// SPDX-License-Identifier: MPL-2.0
//! Messages from one rank to another.
//!
//! A message is agreed on by its two ranks as a collective is by all: the k-th send from a to b meets the k-th receive of
//! b from a, and both name the same type and length. Messages of different pairs, or of the two directions of one, are
//! independent of each other and of collectives. A send returns when the receiver has what was sent, whatever its length:
//! nothing is buffered, so a program that relies on sends that do not wait is found out at once and not when its
//! messages grow. Ranks that send to each other use [`Communicator::batch`], [`Communicator::send_recv`] or started
//! calls.

use std::cell::RefCell;

use super::addresses::Run;
use super::calls::Call;
use super::descriptor::Descriptor;
use super::refusals::Asker;
use super::{Buffer, Communicator, Pending, Scope, ScopedPending};
use crate::element::{DataType, Element};
use crate::error::Result;

/// Messages that proceed together: see [`Communicator::batch`]. `'env` is what they may borrow.
pub struct Batch<'env> {
    communicator: &'env Communicator,
    messages: RefCell<Vec<Message<'env>>>,
}

/// A message of a batch.
struct Message<'env> {
    peer: usize,
    data_type: DataType,
    bytes: Bytes<'env>,
}

/// A message's elements, as bytes.
enum Bytes<'env> {
    Sent(&'env [u8]),
    Received(&'env mut [u8]),
}

impl<'env> Batch<'env> {
    /// Sends `elements` to rank `to`.
    pub fn send<T: Element>(&self, elements: &'env [T], to: usize) {
        let bytes = Bytes::Sent(bytemuck::cast_slice(elements));
        self.messages.borrow_mut().push(Message { peer: to, data_type: T::DATA_TYPE, bytes });
    }

    /// Receives `elements` from rank `from`.
    pub fn recv<T: Element>(&self, elements: &'env mut [T], from: usize) {
        let bytes = Bytes::Received(bytemuck::cast_slice_mut(elements));
        self.messages.borrow_mut().push(Message { peer: from, data_type: T::DATA_TYPE, bytes });
    }
}

fn message(lane: usize, data_type: DataType, run: Run) -> Call<'static> {
    let descriptor = Descriptor::of_message(data_type, run.bytes / data_type.size());
    Call { lane, descriptor, layout: None, verified: None, operator: None, input: run, output: run }
}

impl Communicator {
    /// Sends `elements` to rank `to`, which must [`Communicator::recv`] as many of the same type; returns when it has
    /// them.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if there is no such rank or it is this one, `Mismatch` on both if they disagree, and the
    /// failures of every collective.
    pub fn send<T: Element>(&self, elements: &[T], to: usize) -> Result<()> {
        let lane = self.lane("send", self.rank(), to)?;
        self.engine.block(message(lane, T::DATA_TYPE, Run::of(elements)))
    }

    /// Receives `elements` from rank `from`, which must [`Communicator::send`] as many of the same type.
    ///
    /// # Errors
    ///
    /// As [`Communicator::send`].
    pub fn recv<T: Element>(&self, elements: &mut [T], from: usize) -> Result<()> {
        let lane = self.lane("recv", from, self.rank())?;
        self.engine.block(message(lane, T::DATA_TYPE, Run::of_mut(elements)))
    }

    /// Sends to one rank while receiving from another, or the same; either may be this rank, if both are.
    ///
    /// ```
    /// use annulus::run;
    ///
    /// let left = run(3, |comm| {
    ///     let (next, previous) = ((comm.rank() + 1) % 3, (comm.rank() + 2) % 3);
    ///     let mut got = [0];
    ///     comm.send_recv(&[comm.rank() as u32], next, &mut got, previous)?;
    ///     Ok(got[0])
    /// })?;
    /// assert_eq!(left, [2, 0, 1]);
    /// # Ok::<(), annulus::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Communicator::batch`].
    pub fn send_recv<T: Element>(&self, send: &[T], to: usize, recv: &mut [T], from: usize) -> Result<()> {
        self.batch(|batch| {
            batch.send(send, to);
            batch.recv(recv, from);
        })
    }

    /// Messages that proceed together, in whatever order their peers come to them: none waits for another, but those to
    /// the same rank, or from it, which keep their order. Returns when all are done.
    ///
    /// A rank may send to itself within a batch, if it receives as many elements of the same type there: the k-th send
    /// meets the k-th receive.
    ///
    /// ```
    /// use annulus::run;
    ///
    /// run(4, |comm| {
    ///     let mine = [comm.rank() as u64; 3];
    ///     let mut all = vec![[0_u64; 3]; comm.world_size()];
    ///     comm.batch(|batch| {
    ///         for (rank, part) in all.iter_mut().enumerate() {
    ///             batch.send(&mine, rank);
    ///             batch.recv(part, rank);
    ///         }
    ///     })?;
    ///     assert_eq!(all, [[0; 3], [1; 3], [2; 3], [3; 3]]);
    ///     Ok(())
    /// })?;
    /// # Ok::<(), annulus::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `InvalidArgument`, with nothing sent, if a rank does not exist or this rank's messages to itself do not fit
    /// together; otherwise as [`Communicator::send`].
    pub fn batch<'env>(&'env self, body: impl FnOnce(&Batch<'env>)) -> Result<()> {
        let batch = Batch { communicator: self, messages: RefCell::default() };
        body(&batch);
        batch.run()
    }

    /// Starts [`Communicator::send`] and returns; the buffer moves in and comes back with [`Pending::wait`].
    ///
    /// # Errors
    ///
    /// As `send`; the buffer is then dropped.
    pub fn start_send<T: Element, B: Buffer<T>>(&self, buffer: B, to: usize) -> Result<Pending<B>> {
        let lane = self.lane("start_send", self.rank(), to)?;
        let call = message(lane, T::DATA_TYPE, Run::of(buffer.elements()));
        self.start(call, buffer)
    }

    /// Starts [`Communicator::recv`], likewise.
    ///
    /// # Errors
    ///
    /// As `recv`; the buffer is then dropped.
    pub fn start_recv<T: Element, B: Buffer<T>>(&self, mut buffer: B, from: usize) -> Result<Pending<B>> {
        let lane = self.lane("start_recv", from, self.rank())?;
        let call = message(lane, T::DATA_TYPE, Run::of_mut(buffer.elements_mut()));
        self.start(call, buffer)
    }

    /// The lane of messages from one rank to another, of which this rank is one.
    fn lane(&self, what: &str, from: usize, to: usize) -> Result<usize> {
        let asker = Asker { name: what, rank: self.rank(), world: self.world_size() };
        asker.check_peer(if from == asker.rank { to } else { from })?;
        if from == to {
            return asker.refuse_itself();
        }
        self.engine.pair(from, to, self.timeout.get())
    }
}

impl<'scope> Scope<'scope, '_> {
    /// Starts [`Communicator::send`] of borrowed elements.
    ///
    /// # Errors
    ///
    /// As `send`.
    pub fn start_send<T: Element>(
        &'scope self,
        elements: &'scope [T],
        to: usize,
    ) -> Result<ScopedPending<'scope, &'scope [T]>> {
        let lane = self.communicator.lane("start_send", self.communicator.rank(), to)?;
        self.start(message(lane, T::DATA_TYPE, Run::of(elements)), elements)
    }

    /// Starts [`Communicator::recv`] into borrowed elements.
    ///
    /// # Errors
    ///
    /// As `recv`.
    pub fn start_recv<T: Element>(
        &'scope self,
        elements: &'scope mut [T],
        from: usize,
    ) -> Result<ScopedPending<'scope, &'scope mut [T]>> {
        let lane = self.communicator.lane("start_recv", from, self.communicator.rank())?;
        self.start(message(lane, T::DATA_TYPE, Run::of_mut(elements)), elements)
    }
}

impl Batch<'_> {
    fn run(self) -> Result<()> {
        let (comm, own) = (self.communicator, self.communicator.rank());
        let mut calls = Vec::new();
        // What this rank says to itself, and hears of itself.
        let (mut said, mut heard) = (Vec::new(), Vec::new());
        for Message { peer, data_type, bytes } in self.messages.into_inner() {
            match bytes {
                Bytes::Sent(bytes) if peer == own => said.push((data_type, bytes)),
                Bytes::Received(bytes) if peer == own => heard.push((data_type, bytes)),
                Bytes::Sent(bytes) => {
                    calls.push(message(comm.lane("batch", own, peer)?, data_type, Run::of(bytes)));
                }
                Bytes::Received(bytes) => {
                    calls.push(message(comm.lane("batch", peer, own)?, data_type, Run::of_mut(bytes)));
                }
            }
        }
        let fit = said.len() == heard.len()
            && said.iter().zip(&heard).all(|(said, heard)| said.0 == heard.0 && said.1.len() == heard.1.len());
        if !fit {
            let asker = Asker { name: "batch", rank: own, world: comm.world_size() };
            return asker.refuse_own(said.len(), heard.len());
        }
        for ((_, said), (_, heard)) in said.into_iter().zip(heard) {
            heard.copy_from_slice(said);
        }
        comm.engine.together(calls)
    }
}
