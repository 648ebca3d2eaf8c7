// SPDX-License-Identifier: MPL-2.0
//! Started calls: the buffers move in, and come back with `wait`.
//!
//! The engine owns a started call's buffers until the call is done. So a handle may be dropped or forgotten at any time:
//! the call goes on, and its buffers are freed when it is over.

use std::marker::PhantomData;
use std::sync::Arc;

use super::calls::Call;
use super::completion::Completion;
use super::engine::Engine;
use super::{Buffer, Communicator};
use crate::element::{Element, ReduceOp};
use crate::error::{Error, Result};

/// A call in flight, which owns the buffers `B`.
///
/// | MPI | here |
/// |---|---|
/// | `MPI_Isend`, `MPI_Irecv` | [`Communicator::start_send`], [`Communicator::start_recv`] |
/// | `MPI_Iallreduce` and so on | [`Communicator::start_all_reduce`] and so on |
/// | `MPI_Wait` | [`Pending::wait`] |
/// | `MPI_Test` | [`Pending::is_done`], and `wait` once it is |
/// | `MPI_Waitall` | `wait` of each, in any order |
/// | `MPI_Request_free` | dropping it |
#[must_use = "a started call is awaited with `wait`; dropped, it goes on, and its buffers are freed when it is done"]
pub struct Pending<B> {
    engine: Arc<Engine>,
    completion: Arc<Completion>,
    call: u64,
    buffers: PhantomData<fn() -> B>,
}

impl<B: Send + 'static> Pending<B> {
    /// Waits until the call is done, and returns its buffers.
    ///
    /// # Errors
    ///
    /// The failures of every collective. The buffers are then freed.
    pub fn wait(self) -> Result<B> {
        let buffers = self.engine.wait(&self.completion)?;
        // The engine hands back the box that this handle's call put in.
        buffers.downcast::<B>().map(|buffers| *buffers).map_err(|_| Error::invalid("the handle is of another call"))
    }
}

impl<B> Pending<B> {
    /// The call's number on its communicator, by which [`Communicator::record`] finds it once it is done. Of a message, its
    /// number among those from its sender to its receiver.
    pub fn call(&self) -> u64 {
        self.call
    }

    /// Whether the call is done, well or not: then [`Pending::wait`] returns at once. Until then each look moves the calls
    /// in flight on by a piece, unless another thread is at that. It waits for nobody.
    ///
    /// ```
    /// use annulus::{ReduceOp, run};
    ///
    /// run(2, |comm| {
    ///     let pending = comm.start_all_reduce_in_place(vec![1.0_f32; 1000], ReduceOp::Sum)?;
    ///     while !pending.is_done() {
    ///         // .. compute a little of something else ..
    ///     }
    ///     assert_eq!(pending.wait()?, vec![2.0; 1000]);
    ///     Ok(())
    /// })?;
    /// # Ok::<(), annulus::Error>(())
    /// ```
    pub fn is_done(&self) -> bool {
        self.engine.look(&self.completion)
    }
}

impl<B> std::fmt::Debug for Pending<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").field("call", &self.call).finish_non_exhaustive()
    }
}

impl Communicator {
    /// Starts [`Communicator::all_reduce`] and returns; the buffers move in and come back with [`Pending::wait`].
    ///
    /// Up to eight calls proceed together, also while this rank computes; a ninth start waits for the first. They may be
    /// awaited in any order.
    ///
    /// # Errors
    ///
    /// As `all_reduce`; the buffers are then dropped.
    pub fn start_all_reduce<T, S, R>(&self, send: S, mut recv: R, op: ReduceOp) -> Result<Pending<(S, R)>>
    where
        T: Element,
        S: Buffer<T>,
        R: Buffer<T>,
    {
        let call = self.all_reduce_call(send.elements(), recv.elements_mut(), Some(op))?;
        self.start(call, (send, recv))
    }

    /// Starts [`Communicator::all_reduce_in_place`], likewise.
    ///
    /// ```
    /// use annulus::{ReduceOp, run};
    ///
    /// run(2, |comm| {
    ///     let gradients = vec![comm.rank() as f32; 1000];
    ///     let pending = comm.start_all_reduce_in_place(gradients, ReduceOp::Avg)?;
    ///     // .. compute something else ..
    ///     assert_eq!(pending.wait()?, vec![0.5; 1000]);
    ///     Ok(())
    /// })?;
    /// # Ok::<(), annulus::Error>(())
    /// ```
    ///
    /// The buffer cannot be used while the call is in flight:
    ///
    /// ```compile_fail,E0382
    /// # use annulus::{ReduceOp, run};
    /// run(2, |comm| {
    ///     let gradients = vec![0.0f32; 1000];
    ///     let pending = comm.start_all_reduce_in_place(gradients, ReduceOp::Avg)?;
    ///     println!("{}", gradients[0]); // error: it has been moved
    ///     pending.wait()?;
    ///     Ok(())
    /// });
    /// ```
    ///
    /// Nor can a borrowed one be started; that takes a [`Communicator::scope`]:
    ///
    /// ```compile_fail,E0277
    /// # use annulus::{ReduceOp, run};
    /// run(2, |comm| {
    ///     let mut gradients = vec![0.0f32; 1000];
    ///     let pending = comm.start_all_reduce_in_place(&mut gradients[..], ReduceOp::Avg)?;
    ///     Ok(())
    /// });
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`all_reduce`](Self::all_reduce) that one rank can see alone, here; all others from [`Pending::wait`].
    pub fn start_all_reduce_in_place<T, B>(&self, mut buffer: B, op: ReduceOp) -> Result<Pending<B>>
    where
        T: Element,
        B: Buffer<T>,
    {
        let call = self.all_reduce_in_place_call(buffer.elements_mut(), Some(op))?;
        self.start(call, buffer)
    }

    /// Starts a call on these buffers' elements, and keeps the buffers until it is done.
    pub(super) fn start<B: Send + 'static>(&self, call: Call<'_>, buffers: B) -> Result<Pending<B>> {
        // Moving the buffers into the box does not move their elements.
        let (completion, call) = self.engine.start(call, Box::new(buffers))?;
        Ok(Pending { engine: self.engine.clone(), completion, call, buffers: PhantomData })
    }
}
