// SPDX-License-Identifier: MPL-2.0
//! Buffers that calls can own: vectors, and memory that peers map.
#![allow(unsafe_code)] // typed views of raw memory, and the promise that a buffer's address stays

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::element::Element;
use crate::error::{Error, Result};
use crate::transport::memory::{Memory, PAGE};

/// Memory of one rank that its peers can address: collectives on it copy nothing but what they must.
///
/// Made by [`Communicator::allocate`](super::Communicator::allocate); dereferences to a slice. Any part of it may be
/// passed to a blocking call and stays directly addressable. Among threads it is ordinary memory.
///
/// A call that fails among processes takes the pages of what it writes to away from its peers, whole pages of the
/// system. Where that is a part that does not begin and end on page boundaries, the rest of its first and last page
/// goes with it. What other threads of this rank write there at that moment may be lost. And a call on another
/// communicator that is in flight there and writes to it goes on, with peers that no longer see these pages: it may
/// return without an error and with elements of before, here or on its other ranks. So parts that may be in flight on
/// two communicators at a time must not meet within a page: divide the buffer by [`split_at`](Shared::split_at), which
/// sees to that, and not by `split_at_mut`.
pub struct Shared<T: Element> {
    memory: Arc<Memory>,
    first: usize,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Element> Shared<T> {
    pub(crate) fn new(memory: Memory) -> Self {
        let len = memory.bytes() / size_of::<T>();
        Shared { memory: Arc::new(memory), first: 0, len, element: PhantomData }
    }

    /// Two disjoint buffers, `0..middle` and `middle..`, each of which may be in flight by itself.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if `middle` is beyond the end or not on a page boundary ([`Shared::PAGE`] elements, or among
    /// processes those of the system's pages where these are larger): pages are what a failing call takes away from its
    /// peers.
    pub fn split_at(self, middle: usize) -> Result<(Shared<T>, Shared<T>)> {
        let page = self.memory.page() / size_of::<T>();
        if middle > self.len || !middle.is_multiple_of(page) {
            return Err(Error::invalid(format!(
                "a shared buffer of {} elements is split at a multiple of {page} of them up to its length, not at \
                 {middle}",
                self.len
            )));
        }
        let second = Shared {
            memory: self.memory.clone(),
            first: self.first + middle,
            len: self.len - middle,
            element: PhantomData,
        };
        Ok((Shared { len: middle, ..self }, second))
    }

    /// Elements of a page, the smallest that systems have: a shared buffer may be split where pages end.
    pub const PAGE: usize = PAGE / size_of::<T>();

    fn data(&self) -> *mut T {
        self.memory.data().as_ptr().cast::<T>().wrapping_add(self.first)
    }
}

impl<T: Element> Deref for Shared<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the memory is `Arc`-owned, page-aligned, initialised (zeroed when made, then written as `T`s, of
        // which every bit pattern is one) and `first + len` elements long; no other `Shared` covers these elements,
        // and peers write them only while a call of this rank has the buffer.
        unsafe { std::slice::from_raw_parts(self.data(), self.len) }
    }
}

impl<T: Element> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; `&mut self` makes this the only view.
        unsafe { std::slice::from_raw_parts_mut(self.data(), self.len) }
    }
}

impl<T: Element> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A buffer that a started call can take: it owns its elements, and moving it does not move them.
///
/// # Safety
///
/// The slices that `elements` and `elements_mut` return must stay at one address, however the buffer is moved, until it
/// is dropped or used again, and must belong to the buffer alone.
pub unsafe trait Buffer<T: Element>: Send + 'static {
    /// The elements.
    fn elements(&self) -> &[T];
    /// The elements, to be written.
    fn elements_mut(&mut self) -> &mut [T];
}

// SAFETY: a vector's elements are on the heap and its own.
unsafe impl<T: Element> Buffer<T> for Vec<T> {
    fn elements(&self) -> &[T] {
        self
    }
    fn elements_mut(&mut self) -> &mut [T] {
        self
    }
}

// SAFETY: a box's elements are on the heap and its own.
unsafe impl<T: Element> Buffer<T> for Box<[T]> {
    fn elements(&self) -> &[T] {
        self
    }
    fn elements_mut(&mut self) -> &mut [T] {
        self
    }
}

// SAFETY: shared memory stays where it was allocated, and no two `Shared` overlap.
unsafe impl<T: Element> Buffer<T> for Shared<T> {
    fn elements(&self) -> &[T] {
        self
    }
    fn elements_mut(&mut self) -> &mut [T] {
        self
    }
}
