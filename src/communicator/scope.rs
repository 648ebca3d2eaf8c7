// SPDX-License-Identifier: MPL-2.0
//! Started calls on borrowed buffers: a scope that does not end before they do.
//!
//! As with `std::thread::scope`, the scope's own end is what makes borrowing sound, not its handles, which may be
//! dropped or forgotten: whatever was started is awaited when the closure has returned or is being unwound, before any
//! borrow ends.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::Arc;

use super::Communicator;
use super::calls::Call;
use super::completion::Completion;
use crate::element::{Element, ReduceOp};
use crate::error::Result;

/// Where calls on borrowed buffers are started. `'scope` is how long they may take, `'env` what they may borrow.
pub struct Scope<'scope, 'env: 'scope> {
    pub(super) communicator: &'env Communicator,
    started: RefCell<Vec<Arc<Completion>>>,
    scope: PhantomData<&'scope mut &'scope ()>,
}

/// A call in flight on a borrowed buffer.
#[must_use = "a started call is awaited with `wait`, or else at the scope's end"]
pub struct ScopedPending<'scope, B> {
    communicator: &'scope Communicator,
    completion: Arc<Completion>,
    call: u64,
    buffers: B,
}

impl<B> ScopedPending<'_, B> {
    /// The call's number, as [`Pending::call`](super::Pending::call).
    pub fn call(&self) -> u64 {
        self.call
    }

    /// Whether the call is done, as [`Pending::is_done`](super::Pending::is_done).
    pub fn is_done(&self) -> bool {
        self.communicator.engine.look(&self.completion)
    }

    /// Waits until the call is done, and returns the borrow.
    ///
    /// # Errors
    ///
    /// The failures of every collective.
    pub fn wait(self) -> Result<B> {
        self.communicator.engine.wait(&self.completion)?;
        Ok(self.buffers)
    }
}

impl<B> std::fmt::Debug for ScopedPending<'_, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScopedPending").field("call", &self.call).finish_non_exhaustive()
    }
}

impl<'scope, 'env> Scope<'scope, 'env> {
    /// Starts [`Communicator::all_reduce`] on borrowed buffers.
    ///
    /// # Errors
    ///
    /// As `all_reduce`.
    pub fn start_all_reduce<T: Element>(
        &'scope self,
        send: &'scope [T],
        recv: &'scope mut [T],
        op: ReduceOp,
    ) -> Result<ScopedPending<'scope, &'scope mut [T]>> {
        let call = self.communicator.all_reduce_call(send, recv, Some(op))?;
        self.start(call, recv)
    }

    /// Starts [`Communicator::all_reduce_in_place`] on a borrowed buffer.
    ///
    /// # Errors
    ///
    /// As `all_reduce_in_place`.
    pub fn start_all_reduce_in_place<T: Element>(
        &'scope self,
        buffer: &'scope mut [T],
        op: ReduceOp,
    ) -> Result<ScopedPending<'scope, &'scope mut [T]>> {
        let call = self.communicator.all_reduce_in_place_call(buffer, Some(op))?;
        self.start(call, buffer)
    }

    pub(super) fn start<B>(&'scope self, call: Call<'_>, buffers: B) -> Result<ScopedPending<'scope, B>> {
        let (completion, call) = self.communicator.engine.start(call, Box::new(()))?;
        self.started.borrow_mut().push(completion.clone());
        Ok(ScopedPending { communicator: self.communicator, completion, call, buffers })
    }
}

impl Communicator {
    /// A scope in which calls can be started on borrowed buffers. Returns when `body` has returned and all that it
    /// started is done.
    ///
    /// ```
    /// use annulus::{ReduceOp, run};
    ///
    /// run(2, |comm| {
    ///     let (mut a, mut b) = (vec![1.0f32; 100], vec![2.0f64; 50]);
    ///     comm.scope(|scope| {
    ///         let first = scope.start_all_reduce_in_place(&mut a, ReduceOp::Sum)?;
    ///         let second = scope.start_all_reduce_in_place(&mut b, ReduceOp::Sum)?;
    ///         second.wait()?;
    ///         first.wait()?;
    ///         Ok(())
    ///     })?;
    ///     assert_eq!((a[0], b[0]), (2.0, 4.0));
    ///     Ok(())
    /// })?;
    /// # Ok::<(), annulus::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// What `body` returned, else the failure of a call that `body` started and did not wait for.
    pub fn scope<'env, R, F>(&'env self, body: F) -> Result<R>
    where
        F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> Result<R>,
    {
        let scope = Scope { communicator: self, started: RefCell::default(), scope: PhantomData };
        let guard = AwaitAll(&scope);
        let result = body(&scope);
        let rest = guard.finish();
        let value = result?;
        rest?;
        Ok(value)
    }
}

/// Waits for all that was started, also when `body` panics.
struct AwaitAll<'a, 'scope, 'env>(&'a Scope<'scope, 'env>);

impl AwaitAll<'_, '_, '_> {
    fn finish(self) -> Result<()> {
        self.drain()
    }

    fn drain(&self) -> Result<()> {
        let mut first = Ok(());
        for completion in self.0.started.borrow_mut().drain(..) {
            if let Err(error) = self.0.communicator.engine.settle(&completion) {
                first = first.and(Err(error));
            }
        }
        first
    }
}

impl Drop for AwaitAll<'_, '_, '_> {
    fn drop(&mut self) {
        let _ = self.drain();
    }
}
