// SPDX-License-Identifier: MPL-2.0
//! The started forms of calls, by themselves and in a scope: a line each. (That of all-reduce is in `pending` and `scope`,
//! with what there is to say about all of them; those of messages are in `messages`.)
//!
//! | macro | buffers |
//! |---|---|
//! | `both` | `send` and `recv` on every rank |
//! | `to_root` | `recv` on the root alone |
//! | `from_root` | `send` on the root alone |
//! | `one` | one buffer, in place |
//!
//! An operation of one's own comes behind a semicolon.

use super::{Buffer, Communicator, Operator, Pending, Scope, ScopedPending};
use crate::element::{Element, ReduceOp};
use crate::error::Result;

/// The documentation of a started call.
macro_rules! documented {
    ($of:literal, $($function:tt)*) => {
        #[doc = concat!("Starts [`Communicator::", $of, "`] and returns: see [`Communicator::start_all_reduce`].")]
        ///
        /// # Errors
        ///
        #[doc = concat!("As [`Communicator::", $of, "`]; buffers that moved in are then dropped.")]
        $($function)*
    };
}

macro_rules! both {
    ($start:ident, $of:literal, $call:ident $(, $argument:ident: $type:ty = $passed:expr)* $(; $operator:ident)?) => {
        impl Communicator {
            documented! { $of,
                pub fn $start<T, S, R>(&self, send: S, mut recv: R $(, $argument: $type)*) -> Result<Pending<(S, R)>>
                where
                    T: Element,
                    S: Buffer<T>,
                    R: Buffer<T>,
                {
                    let call = self.$call(send.elements(), recv.elements_mut() $(, $passed)*)?;
                    self.start(call$(.folded_by($operator))?, (send, recv))
                }
            }
        }

        impl<'scope> Scope<'scope, '_> {
            documented! { $of,
                pub fn $start<T: Element>(
                    &'scope self,
                    send: &'scope [T],
                    recv: &'scope mut [T]
                    $(, $argument: $type)*
                ) -> Result<ScopedPending<'scope, &'scope mut [T]>> {
                    let call = self.communicator.$call(send, recv $(, $passed)*)?;
                    self.start(call$(.folded_by($operator))?, recv)
                }
            }
        }
    };
}

macro_rules! to_root {
    ($start:ident, $of:literal, $call:ident $(, $argument:ident: $type:ty = $passed:expr)* $(; $operator:ident)?) => {
        impl Communicator {
            documented! { $of,
                pub fn $start<T, S, R>(
                    &self,
                    send: S,
                    mut recv: Option<R>
                    $(, $argument: $type)*
                ) -> Result<Pending<(S, Option<R>)>>
                where
                    T: Element,
                    S: Buffer<T>,
                    R: Buffer<T>,
                {
                    let call = self.$call(send.elements(), recv.as_mut().map(R::elements_mut) $(, $passed)*)?;
                    self.start(call$(.folded_by($operator))?, (send, recv))
                }
            }
        }

        impl<'scope> Scope<'scope, '_> {
            documented! { $of,
                pub fn $start<T: Element>(
                    &'scope self,
                    send: &'scope [T],
                    mut recv: Option<&'scope mut [T]>
                    $(, $argument: $type)*
                ) -> Result<ScopedPending<'scope, Option<&'scope mut [T]>>> {
                    let call = self.communicator.$call(send, recv.as_deref_mut() $(, $passed)*)?;
                    self.start(call$(.folded_by($operator))?, recv)
                }
            }
        }
    };
}

macro_rules! from_root {
    ($start:ident, $of:literal, $call:ident $(, $argument:ident: $type:ty = $passed:expr)* $(; $operator:ident)?) => {
        impl Communicator {
            documented! { $of,
                pub fn $start<T, S, R>(
                    &self,
                    send: Option<S>,
                    mut recv: R
                    $(, $argument: $type)*
                ) -> Result<Pending<(Option<S>, R)>>
                where
                    T: Element,
                    S: Buffer<T>,
                    R: Buffer<T>,
                {
                    let call = self.$call(send.as_ref().map(S::elements), recv.elements_mut() $(, $passed)*)?;
                    self.start(call$(.folded_by($operator))?, (send, recv))
                }
            }
        }

        impl<'scope> Scope<'scope, '_> {
            documented! { $of,
                pub fn $start<T: Element>(
                    &'scope self,
                    send: Option<&'scope [T]>,
                    recv: &'scope mut [T]
                    $(, $argument: $type)*
                ) -> Result<ScopedPending<'scope, &'scope mut [T]>> {
                    let call = self.communicator.$call(send, recv $(, $passed)*)?;
                    self.start(call$(.folded_by($operator))?, recv)
                }
            }
        }
    };
}

macro_rules! one {
    ($start:ident, $of:literal, $call:ident $(, $argument:ident: $type:ty = $passed:expr)* $(; $operator:ident)?) => {
        impl Communicator {
            documented! { $of,
                pub fn $start<T, B>(&self, mut buffer: B $(, $argument: $type)*) -> Result<Pending<B>>
                where
                    T: Element,
                    B: Buffer<T>,
                {
                    let call = self.$call(buffer.elements_mut() $(, $passed)*)?;
                    self.start(call$(.folded_by($operator))?, buffer)
                }
            }
        }

        impl<'scope> Scope<'scope, '_> {
            documented! { $of,
                pub fn $start<T: Element>(
                    &'scope self,
                    buffer: &'scope mut [T]
                    $(, $argument: $type)*
                ) -> Result<ScopedPending<'scope, &'scope mut [T]>> {
                    let call = self.communicator.$call(buffer $(, $passed)*)?;
                    self.start(call$(.folded_by($operator))?, buffer)
                }
            }
        }
    };
}

both!(start_reduce_scatter, "reduce_scatter", reduce_scatter_call, op: ReduceOp = Some(op));
both!(start_scan, "scan", scan_call, op: ReduceOp = Some(op));
both!(start_exclusive_scan, "exclusive_scan", exclusive_scan_call, op: ReduceOp = Some(op));
both!(start_all_gather, "all_gather", all_gather_call);
both!(start_all_to_all, "all_to_all", all_to_all_call);
both!(start_all_gather_v, "all_gather_v", all_gather_v_call, counts: &[usize] = counts);
both!(
    start_reduce_scatter_v, "reduce_scatter_v", reduce_scatter_v_call, counts: &[usize] = counts, op: ReduceOp = op
);

both!(start_all_reduce_with, "all_reduce_with", all_reduce_call, operator: &Operator<T> = None; operator);
both!(start_reduce_scatter_with, "reduce_scatter_with", reduce_scatter_call, operator: &Operator<T> = None; operator);
both!(start_scan_with, "scan_with", scan_call, operator: &Operator<T> = None; operator);
both!(start_exclusive_scan_with, "exclusive_scan_with", exclusive_scan_call, operator: &Operator<T> = None; operator);

to_root!(start_reduce, "reduce", reduce_call, op: ReduceOp = Some(op), root: usize = root);
to_root!(
    start_reduce_with, "reduce_with", reduce_call, operator: &Operator<T> = None, root: usize = root; operator
);
to_root!(start_gather, "gather", gather_call, root: usize = root);
to_root!(start_gather_v, "gather_v", gather_v_call, counts: &[usize] = counts, root: usize = root);

from_root!(start_broadcast, "broadcast", broadcast_call, root: usize = root);
from_root!(start_scatter, "scatter", scatter_call, root: usize = root);
from_root!(start_scatter_v, "scatter_v", scatter_v_call, counts: &[usize] = counts, root: usize = root);

one!(start_reduce_scatter_in_place, "reduce_scatter_in_place", reduce_scatter_in_place_call, op: ReduceOp = Some(op));
one!(start_reduce_in_place, "reduce_in_place", reduce_in_place_call, op: ReduceOp = Some(op), root: usize = root);
one!(start_scan_in_place, "scan_in_place", scan_in_place_call, op: ReduceOp = Some(op));
one!(start_exclusive_scan_in_place, "exclusive_scan_in_place", exclusive_scan_in_place_call, op: ReduceOp = Some(op));
one!(start_all_gather_in_place, "all_gather_in_place", all_gather_in_place_call);
one!(start_all_to_all_in_place, "all_to_all_in_place", all_to_all_in_place_call);
one!(start_broadcast_in_place, "broadcast_in_place", broadcast_in_place_call, root: usize = root);
one!(start_scatter_in_place, "scatter_in_place", scatter_in_place_call, root: usize = root);
one!(start_gather_in_place, "gather_in_place", gather_in_place_call, root: usize = root);

one!(start_all_gather_v_in_place, "all_gather_v_in_place", all_gather_v_in_place_call, counts: &[usize] = counts);
one!(
    start_reduce_scatter_v_in_place, "reduce_scatter_v_in_place", reduce_scatter_v_in_place_call,
    counts: &[usize] = counts, op: ReduceOp = op
);
one!(
    start_scatter_v_in_place, "scatter_v_in_place", scatter_v_in_place_call, counts: &[usize] = counts,
    root: usize = root
);
one!(
    start_gather_v_in_place, "gather_v_in_place", gather_v_in_place_call, counts: &[usize] = counts, root: usize = root
);

one!(
    start_all_reduce_in_place_with, "all_reduce_in_place_with", all_reduce_in_place_call,
    operator: &Operator<T> = None; operator
);
one!(
    start_reduce_scatter_in_place_with, "reduce_scatter_in_place_with", reduce_scatter_in_place_call,
    operator: &Operator<T> = None; operator
);
one!(
    start_reduce_in_place_with, "reduce_in_place_with", reduce_in_place_call, operator: &Operator<T> = None,
    root: usize = root; operator
);
one!(
    start_scan_in_place_with, "scan_in_place_with", scan_in_place_call, operator: &Operator<T> = None; operator
);
one!(
    start_exclusive_scan_in_place_with, "exclusive_scan_in_place_with", exclusive_scan_in_place_call,
    operator: &Operator<T> = None; operator
);

impl Communicator {
    /// Starts [`Communicator::all_to_all_v`] and returns: see [`Communicator::start_all_reduce`]. The exchange of counts
    /// that comes first is waited for.
    ///
    /// # Errors
    ///
    /// As [`Communicator::all_to_all_v`]; buffers that moved in are then dropped.
    pub fn start_all_to_all_v<T, S, R>(
        &self,
        send: S,
        send_counts: &[usize],
        mut recv: R,
        recv_counts: &[usize],
    ) -> Result<Pending<(S, R)>>
    where
        T: Element,
        S: Buffer<T>,
        R: Buffer<T>,
    {
        let call = self.all_to_all_v_call(send.elements(), send_counts, recv.elements_mut(), recv_counts)?;
        self.start(call, (send, recv))
    }

    documented! { "barrier",
        pub fn start_barrier(&self) -> Result<Pending<()>> {
            self.start(self.barrier_call(), ())
        }
    }
}

impl<'scope> Scope<'scope, '_> {
    /// Starts [`Communicator::all_to_all_v`] and returns: see [`Communicator::start_all_to_all_v`].
    ///
    /// # Errors
    ///
    /// As [`Communicator::all_to_all_v`].
    pub fn start_all_to_all_v<T: Element>(
        &'scope self,
        send: &'scope [T],
        send_counts: &[usize],
        recv: &'scope mut [T],
        recv_counts: &[usize],
    ) -> Result<ScopedPending<'scope, &'scope mut [T]>> {
        let call = self.communicator.all_to_all_v_call(send, send_counts, recv, recv_counts)?;
        self.start(call, recv)
    }

    documented! { "barrier",
        pub fn start_barrier(&'scope self) -> Result<ScopedPending<'scope, ()>> {
            self.start(self.communicator.barrier_call(), ())
        }
    }
}
