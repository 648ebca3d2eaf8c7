// SPDX-License-Identifier: MPL-2.0
//! Copies and fills, in the order of a stream.
//!
//! Between devices that reach each other a copy is one operation. Between others it goes through pinned memory of the
//! host: the first device copies there on a stream of the library's own, the second from there on the user's stream;
//! the notes of the memory (`allocation`) order the two like any others.
#![allow(unsafe_code)]

use std::sync::{Arc, PoisonError};

use super::allocation::{Access, Allocation, Usage};
use super::backend::MemoryKind;
use super::buffer::DeviceBuffer;
use super::device::Core;
use super::kernel::Use;
use super::stream::Stream;
use crate::element::Element;
use crate::error::{Error, Result};

impl Stream {
    /// Copies elements of the host to the beginning of `to`. They are taken when this is called, and are the caller's
    /// again when it returns; a captured write writes the same elements each time.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` where the buffer has another length or is of another device; `System` where the driver refuses.
    pub fn write<T: Element>(&self, to: &DeviceBuffer<T>, values: &[T]) -> Result<()> {
        self.check_length(values.len(), to.len())?;
        self.check_device(&to.allocation)?;
        if values.is_empty() {
            return Ok(());
        }
        let host = HostCopy::of(&self.core.device, values)?;
        let (address, bytes) = (host.address(), size_of_val(values));
        self.enqueue("writing to a buffer", vec![to.usage(Access::Overwrites)], vec![host.0], |backend, stream| {
            // SAFETY: both ranges have that many bytes, and are kept until the copy has been done; nobody else writes
            // to the host's.
            unsafe { backend.copy(to.address(), address, bytes, stream) }
        })
    }

    /// The elements of a buffer, once everything enqueued before has been done.
    ///
    /// # Errors
    ///
    /// The first fault of the stream; `InvalidArgument` where the buffer is of another device, or while the stream
    /// captures.
    pub fn read<T: Element>(&self, from: &DeviceBuffer<T>) -> Result<Vec<T>> {
        self.check_device(&from.allocation)?;
        self.refuse_in_capture("read a buffer")?;
        let zeros = vec![T::zeroed(); from.len()];
        let host = HostCopy::new(&self.core.device, size_of_val(&*zeros))?;
        if !zeros.is_empty() {
            let (address, bytes, kept) = (host.address(), size_of_val(&*zeros), host.0.clone());
            self.enqueue("reading from a buffer", vec![from.usage(Access::Reads)], vec![kept], |backend, stream| {
                // SAFETY: both ranges have that many bytes, and are kept until the copy has been done; nobody reads
                // the host's before.
                unsafe { backend.copy(address, from.address(), bytes, stream) }
            })?;
        }
        self.synchronize()?;
        let mut values = zeros;
        // SAFETY: The copy has been done without a fault, and was the only one to this memory.
        unsafe { host.take(&mut values) };
        Ok(values)
    }

    /// Copies all elements of one buffer to another, within this device, or between this stream's device and another.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` where they have different lengths or overlap, or neither is of this stream's device;
    /// `Unsupported` between different platforms, and while the stream captures where two devices do not reach each
    /// other; `System` where the driver refuses.
    pub fn copy<T: Element>(&self, from: &DeviceBuffer<T>, to: &DeviceBuffer<T>) -> Result<()> {
        self.check_length(from.len(), to.len())?;
        let (source, target) = (&from.allocation, &to.allocation);
        if Arc::ptr_eq(&source.notes, &target.notes)
            && from.bytes().start < to.bytes().end
            && to.bytes().start < from.bytes().end
        {
            return Err(Error::invalid(format!("{self} cannot copy between parts of a buffer that overlap")));
        }
        let own = [source, target].map(|allocation| Arc::ptr_eq(&allocation.core, &self.core.device));
        match own {
            [false, false] => return self.check_device(target),
            _ if from.is_empty() => return Ok(()),
            [true, true] => {}
            _ => return self.copy_between(from, to),
        }
        let usages = vec![from.usage(Access::Reads), to.usage(Access::Overwrites)];
        let bytes = from.bytes().len();
        self.enqueue("copying between buffers", usages, Vec::new(), |backend, stream| {
            // SAFETY: both ranges are of this device, have that many bytes, do not overlap, and are kept.
            unsafe { backend.copy(to.address(), from.address(), bytes, stream) }
        })
    }

    /// Copies bytes between memory that this device addresses, its own, that of devices that it reaches, or the host's.
    /// What uses the memory, and how, is what `uses` says.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` where they have different lengths; `Unsupported` where this device does not reach one of the
    /// two.
    ///
    /// # Safety
    ///
    /// The ranges do not overlap, and `uses` names the memory of both, used as said there; where that is
    /// [`Use::shares`], nobody writes to `from`, and nobody uses `to`, while the copy is done.
    pub(crate) unsafe fn copy_using(&self, from: &DeviceBuffer<u8>, to: &DeviceBuffer<u8>, uses: &[Use]) -> Result<()> {
        self.check_length(from.len(), to.len())?;
        let device = &self.core.device;
        for Use(usage) in uses {
            device.address(&usage.allocation)?;
        }
        let usages = uses.iter().map(|used| used.0.clone()).collect();
        let own = |buffer: &DeviceBuffer<u8>| buffer.is_hosted() || Arc::ptr_eq(&buffer.allocation.core, device);
        let place = |buffer: &DeviceBuffer<u8>| (buffer.device().capabilities().index, buffer.address());
        let bytes = from.len();
        self.enqueue("copying within a collective", usages, Vec::new(), |backend, stream| match own(from) && own(to) {
            // SAFETY: both ranges are of this device or the host and have that many bytes; the rest is the caller's
            // promise.
            true => unsafe { backend.copy(to.address(), from.address(), bytes, stream) },
            // SAFETY: each range is of its device and has that many bytes, and this device reaches both; the rest is
            // the caller's promise.
            false => unsafe { backend.copy_between(place(to), place(from), bytes, stream) },
        })
    }

    /// Copies between this stream's device and another.
    fn copy_between<T: Element>(&self, from: &DeviceBuffer<T>, to: &DeviceBuffer<T>) -> Result<()> {
        let (source, target) = (&from.allocation.core, &to.allocation.core);
        if !source.same_platform(target) {
            return Err(Error::unsupported(format!(
                "{self} cannot copy from {source} to {target}, which are of different drivers; read from one and write \
                 to the other"
            )));
        }
        let usages = [from.usage(Access::Reads), to.usage(Access::Overwrites)];
        let bytes = from.bytes().len();
        let own = &self.core.device;
        let other = if Arc::ptr_eq(source, own) { target } else { source };
        if own.reaches(other)? {
            own.enable_peer(other)?;
            let index = |core: &Core| core.backend.capabilities().index;
            let (to, from) = ((index(target), to.address()), (index(source), from.address()));
            return self.enqueue("copying between devices", usages.into(), Vec::new(), |backend, stream| {
                // SAFETY: each range is of its device and has that many bytes; they are of different allocations, and
                // kept. This device is one of the two and reaches the other.
                unsafe { backend.copy_between(to, from, bytes, stream) }
            });
        }
        self.refuse_in_capture("copy between devices that do not reach each other")?;
        let pinned = Allocation::new(source, bytes, MemoryKind::Pinned)?;
        let host = |access| Usage { allocation: pinned.clone(), range: 0..bytes, access };
        let middle = pinned.address;
        let [reads, writes] = usages;
        let first = source.stream_for(self)?;
        let second = target.stream_for(self)?;
        first.enqueue(
            "copying to the host",
            vec![reads, host(Access::Overwrites)],
            Vec::new(),
            |backend, stream| {
                // SAFETY: the source is of this stream's device, the other range is the host's; both have that many
                // bytes and are kept.
                unsafe { backend.copy(middle, from.address(), bytes, stream) }
            },
        )?;
        second.enqueue("copying from the host", vec![host(Access::Reads), writes], Vec::new(), |backend, stream| {
            // SAFETY: as above, the other way round; the notes of the pinned memory put this copy after that one.
            unsafe { backend.copy(to.address(), middle, bytes, stream) }
        })
    }

    /// Sets every element of a buffer.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` where the buffer is of another device; `System` where the driver refuses.
    pub fn fill<T: Element>(&self, to: &DeviceBuffer<T>, value: T) -> Result<()> {
        self.check_device(&to.allocation)?;
        if to.is_empty() {
            return Ok(());
        }
        let mut pattern = [0; 8];
        pattern[..size_of::<T>()].copy_from_slice(bytemuck::bytes_of(&value));
        let (pattern, count) = (u64::from_le_bytes(pattern), to.len());
        let usages = vec![to.usage(Access::Overwrites)];
        // Drivers fill with 32 bits at the most; others are written once and then copied, twice as many each time.
        let is_doubled = pattern >> 32 != pattern & 0xffff_ffff && size_of::<T>() == 8;
        let commands = if is_doubled { 2 + count.next_power_of_two().ilog2() as usize } else { 1 };
        self.enqueue_after("filling a buffer", usages, Vec::new(), None, commands, |backend, stream| {
            // SAFETY: the range has that many elements of that size, is aligned to it, of this device, and kept.
            unsafe { backend.fill(to.address(), pattern, size_of::<T>(), count, stream) }
        })
        .map(drop)
    }

    fn check_length(&self, from: usize, to: usize) -> Result<()> {
        if from == to {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{self} cannot copy {from} elements to {to}; `part` makes a buffer of as many as there are"
        )))
    }

    fn check_device(&self, allocation: &Allocation) -> Result<()> {
        let is_seen = allocation.kind == MemoryKind::Hosted && allocation.core.same_platform(&self.core.device);
        if is_seen || std::ptr::eq(&*allocation.core, &*self.core.device) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{self} cannot use a buffer of {}; use a stream of that device, or copy the buffer",
            allocation.core
        )))
    }
}

impl Core {
    /// The stream on which this device has its part in a copy for `user`: that one itself, if it is this device's.
    fn stream_for(self: &Arc<Self>, user: &Stream) -> Result<Stream> {
        if Arc::ptr_eq(self, &user.core.device) {
            return Ok(user.clone());
        }
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        if staging.is_none() {
            *staging = Some(Stream::new(self, false)?);
        }
        staging.clone().ok_or_else(|| Error::system("making a stream for copies through the host", "there is none"))
    }
}

/// Memory of the host that an enqueued copy reads or writes: nobody else's, pinned, so that to enqueue the copy waits for
/// nothing.
struct HostCopy(Arc<Allocation>);

impl HostCopy {
    fn new(device: &Arc<Core>, bytes: usize) -> Result<Self> {
        Ok(HostCopy(Allocation::new(device, bytes, MemoryKind::Pinned)?))
    }

    fn of<T: Element>(device: &Arc<Core>, values: &[T]) -> Result<Self> {
        let copy = HostCopy::new(device, size_of_val(values))?;
        let to = copy.address() as *mut u8;
        // SAFETY: pinned memory is mapped at its address, as long as asked for, and nobody else knows of it yet.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr().cast::<u8>(), to, size_of_val(values)) };
        Ok(copy)
    }

    fn address(&self) -> u64 {
        self.0.address
    }

    /// # Safety
    /// No copy to this memory is still to be done.
    unsafe fn take<T: Element>(&self, values: &mut [T]) {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(values);
        let length = bytes.len().min(self.0.bytes);
        // SAFETY: as many bytes as both have; nobody writes to them any more, by the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(self.address() as *const u8, bytes.as_mut_ptr(), length) };
    }
}
