// SPDX-License-Identifier: MPL-2.0
//! Where a benchmark's elements lie: in memory that peers map, or in memory of any kind.
//!
//! Both begin on a page, so that the two kinds differ in nothing but who can address them.

use std::ops::{Deref, DerefMut};

use super::Memory;
use crate::communicator::{Communicator, Shared};
use crate::element::Element;
use crate::error::{Error, Result};

const PAGE: usize = 4096;

/// Elements of one of the two kinds.
pub(super) enum Buffer<T: Element> {
    Allocated(Shared<T>),
    /// The elements from this place on.
    Plain(Vec<T>, usize),
}

impl<T: Element> Buffer<T> {
    /// `len` elements, zeroed, each page of which has been touched.
    pub fn new(comm: &Communicator, memory: Memory, len: usize) -> Result<Self> {
        if memory == Memory::Allocated {
            return comm.allocate(len).map(Buffer::Allocated);
        }
        let exhausted = |error| Error::system(format!("allocating {len} elements of {}", T::DATA_TYPE), error);
        let whole = len.saturating_add(PAGE / size_of::<T>());
        let mut elements = Vec::new();
        elements.try_reserve_exact(whole).map_err(exhausted)?;
        elements.resize(whole, T::zeroed());
        let first = elements.as_ptr().align_offset(PAGE).min(whole - len);
        Ok(Buffer::Plain(elements, first))
    }
}

impl<T: Element> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Buffer::Allocated(shared) => shared,
            Buffer::Plain(elements, first) => &elements[*first..],
        }
    }
}

impl<T: Element> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Buffer::Allocated(shared) => shared,
            Buffer::Plain(elements, first) => &mut elements[*first..],
        }
    }
}

/// What one call uses. In place it is the output alone.
pub(super) struct Set<T: Element> {
    pub input: Buffer<T>,
    pub output: Buffer<T>,
}

impl<T: Element> Set<T> {
    pub fn new(comm: &Communicator, memory: Memory, len: usize) -> Result<Self> {
        Ok(Set { input: Buffer::new(comm, memory, len)?, output: Buffer::new(comm, memory, len)? })
    }
}
