// SPDX-License-Identifier: MPL-2.0
//! Typed device memory.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use super::allocation::{Access, Allocation, Usage};
use super::backend::MemoryKind;
use super::device::{Core, Device};
use crate::element::Element;
use crate::error::{Error, Result};

/// Elements in the memory of a device, or a part of them.
///
/// Clones and parts are the same memory, which is freed with the last of them, once every enqueued operation that uses
/// it has been done. The host reads and writes it through a stream alone ([`Stream::read`](super::Stream::read),
/// [`Stream::write`](super::Stream::write)).
///
/// Operations on several streams that use the same elements are in the order in which they were enqueued, as long as
/// one of them writes; the later one waits on the device, not on the host. Disjoint parts proceed independently.
pub struct DeviceBuffer<T: Element> {
    pub(super) allocation: Arc<Allocation>,
    first: usize,
    elements: usize,
    element: PhantomData<T>,
}

impl<T: Element> DeviceBuffer<T> {
    pub(super) fn new(core: &Arc<Core>, elements: usize, kind: MemoryKind) -> Result<Self> {
        let size = size_of::<T>();
        let bytes = elements.checked_mul(size).filter(|bytes| *bytes <= isize::MAX as usize);
        let allocation = Allocation::new(core, bytes.ok_or_else(|| core.too_long(elements, size))?, kind)?;
        Ok(Self::of(allocation, 0, elements))
    }

    /// Elements `first..first + elements` of an allocation, which has them.
    pub(super) fn of(allocation: Arc<Allocation>, first: usize, elements: usize) -> Self {
        DeviceBuffer { allocation, first, elements, element: PhantomData }
    }

    /// How many elements.
    pub fn len(&self) -> usize {
        self.elements
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.elements == 0
    }

    /// The device whose memory it is; of imported memory, the one that imported it.
    pub fn device(&self) -> Device {
        Device { core: self.allocation.core.clone() }
    }

    /// Where kernels find the first element.
    pub fn address(&self) -> u64 {
        self.allocation.address + self.bytes().start as u64
    }

    /// Whether peers may map it: what [`Device::allocate_mappable`] makes.
    pub fn is_mappable(&self) -> bool {
        self.allocation.kind == MemoryKind::Mappable
    }

    /// Whether it is memory of the host: what [`Device::allocate_hosted`] makes.
    pub(crate) fn is_hosted(&self) -> bool {
        self.allocation.kind == MemoryKind::Hosted
    }

    /// Whether nobody else holds the memory: no other buffer, no enqueued operation that a stream has not let go of,
    /// and no graph.
    pub(crate) fn is_held_alone(&self) -> bool {
        Arc::strong_count(&self.allocation) == 1
    }

    /// These elements of it; the same memory.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` where it has not so many.
    pub fn part(&self, range: impl RangeBounds<usize>) -> Result<DeviceBuffer<T>> {
        let start = match range.start_bound() {
            Bound::Included(start) => Some(*start),
            Bound::Excluded(before) => before.checked_add(1),
            Bound::Unbounded => Some(0),
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.checked_add(1),
            Bound::Excluded(end) => Some(*end),
            Bound::Unbounded => Some(self.elements),
        };
        match (start, end) {
            (Some(start), Some(end)) if start <= end && end <= self.elements => {
                Ok(Self::of(self.allocation.clone(), self.first + start, end - start))
            }
            _ => Err(Error::invalid(format!(
                "a buffer of {} elements has no part from {:?} to {:?}",
                self.elements,
                range.start_bound(),
                range.end_bound()
            ))),
        }
    }

    /// The same memory, as bytes.
    pub fn as_bytes(&self) -> DeviceBuffer<u8> {
        let bytes = self.bytes();
        DeviceBuffer::of(self.allocation.clone(), bytes.start, bytes.len())
    }

    /// The same memory, as so many elements of another type as it has room for.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` where it does not begin at a multiple of their size.
    pub(crate) fn cast<U: Element>(&self) -> Result<DeviceBuffer<U>> {
        let (bytes, size) = (self.bytes(), size_of::<U>());
        if !bytes.start.is_multiple_of(size) {
            let name = U::DATA_TYPE;
            return Err(Error::invalid(format!(
                "{self:?} does not begin at a multiple of {size} bytes, as {name} does"
            )));
        }
        Ok(DeviceBuffer::of(self.allocation.clone(), bytes.start / size, bytes.len() / size))
    }

    /// Whether everything enqueued so far that uses its allocation has been done; what only shares it may not be.
    pub(crate) fn is_idle(&self) -> bool {
        self.allocation.notes.are_done()
    }

    /// Waits, on the host, until everything enqueued so far that uses its allocation has been done; what only shares it may
    /// not have been.
    ///
    /// # Errors
    ///
    /// The first fault of a stream that wrote to it.
    pub(crate) fn wait(&self) -> Result<()> {
        self.allocation.notes.wait()
    }

    /// Where it lies in its allocation.
    pub(super) fn bytes(&self) -> Range<usize> {
        let size = size_of::<T>();
        self.first * size..(self.first + self.elements) * size
    }

    pub(super) fn usage(&self, access: Access) -> Usage {
        Usage { allocation: self.allocation.clone(), range: self.bytes(), access }
    }
}

impl<T: Element> Clone for DeviceBuffer<T> {
    fn clone(&self) -> Self {
        Self::of(self.allocation.clone(), self.first, self.elements)
    }
}

impl<T: Element> fmt::Debug for DeviceBuffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceBuffer({} {} of {})", self.elements, T::DATA_TYPE, self.allocation.core)
    }
}
