// SPDX-License-Identifier: MPL-2.0
//! A user's own streams and memory: those of cudarc, and raw ones.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtrMut};

use super::super::allocation::{Access, Allocation, Locked, Usage};
use super::super::backend::{MemoryKind, StreamId};
use super::super::buffer::DeviceBuffer;
use super::super::capabilities::Platform;
use super::super::device::{Core, Device};
use super::super::faults::{FaultWords, Watched};
use super::super::mark::{Kept, Mark};
use super::super::stream::Stream;
use crate::element::Element;
use crate::error::{Error, Result};

/// `CU_STREAM_PER_THREAD`: not a stream, but another one in each thread.
const PER_THREAD: u64 = 2;

/// The number of streams that are not known here, in notes.
const UNKNOWN: u64 = u64::MAX;

impl TryFrom<Arc<CudaStream>> for Stream {
    type Error = Error;

    /// A stream of cudarc's, which stays the user's too: what either enqueues is in one order. It is kept as long as the
    /// stream that is returned, or anything enqueued by that. While cudarc captures on it, whatever is asked of the stream
    /// that is returned is refused; [`Stream::capture`] captures what this library does.
    ///
    /// ```no_run
    /// use annulus::driver::cudarc::driver::CudaContext;
    /// use annulus::driver::{DeviceBuffer, Stream};
    ///
    /// let context = CudaContext::new(0).unwrap();
    /// let theirs = context.new_stream().unwrap();
    /// let slice = theirs.clone_htod(&[1.0_f32; 1000]).unwrap();
    ///
    /// let stream = Stream::try_from(theirs)?; // behind what is enqueued on theirs, and before what will be
    /// let buffer = DeviceBuffer::try_from(slice)?;
    /// stream.fill(&buffer, 2.0)?;
    /// # Ok::<(), annulus::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a stream of another context than a device's primary one, and for the stream that is another
    /// in each thread; those of [`Device::cuda`].
    fn try_from(theirs: Arc<CudaStream>) -> Result<Stream> {
        let device = device_of(theirs.context())?;
        let raw = theirs.cu_stream().cast();
        let id = stream_id(raw)?;
        Stream::of(&device, || Ok(id), Some(Arc::new(theirs)))
    }
}

impl Stream {
    /// A stream that somebody else made and ends: a `CUstream` (or `cudaStream_t`) of this device. Null is the default
    /// stream.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` where the device is not one of CUDA, and for the stream that is another in each thread.
    ///
    /// # Safety
    ///
    /// It is a stream of the device's primary context. It lives as long as any handle of what is returned, and until
    /// everything enqueued by it has been done; nobody else captures on it meanwhile.
    pub unsafe fn from_raw(device: &Device, raw: *mut c_void) -> Result<Stream> {
        check_platform(&device.core, "a stream")?;
        let id = stream_id(raw)?;
        Stream::of(&device.core, || Ok(id), Some(Arc::new(())))
    }
}

impl<T: Element> TryFrom<CudaSlice<T>> for DeviceBuffer<T> {
    type Error = Error;

    /// Memory of cudarc's, which is cudarc's again, to be freed, with the buffer's last handle. Operations on the buffer
    /// come after what cudarc has enqueued on the memory so far. Peers map it if cudarc has not allocated it from a pool;
    /// what cannot be mapped, collectives copy.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for memory of another context than a device's primary one, and while a graph is captured on the
    /// stream that it is of; those of [`Device::cuda`]; `System`
    /// where the driver does not know the memory.
    fn try_from(mut theirs: CudaSlice<T>) -> Result<DeviceBuffer<T>> {
        let core = device_of(theirs.context())?;
        let stream = theirs.stream().clone();
        let id = StreamId(stream.cu_stream().expose_provenance() as u64);
        // SAFETY: the stream lives.
        let is_captured = unsafe { core.backend.is_capturing(id) };
        if is_captured.map_err(|failure| core.failed("looking at cudarc's stream", &failure, "see the driver's log"))? {
            return Err(Error::invalid(
                "a graph is captured on the stream of cudarc's memory; take the memory before that, or after",
            ));
        }
        // Its own stream comes after all that others have done with it.
        let (address, used) = theirs.device_ptr_mut(&stream);
        drop(used);
        let elements = theirs.len();
        let allocation = adopt::<T>(&core, address, elements, Arc::new(theirs))?;
        let mark = Mark::new(&core).map_err(|failure| core.failed("making an event", &failure, "drop some streams"))?;
        // SAFETY: the event is the mark's; the stream lives, and captures nothing.
        unsafe { core.backend.record_event(mark.event(), id) }.map_err(|failure| {
            core.failed("recording an event on cudarc's stream", &failure, "see the driver's log")
        })?;
        let faults = FaultWords::new(&core, |words| Error::System(format!("a fault: {words:x?}").into()))?;
        let usages = [Usage { allocation: allocation.clone(), range: 0..allocation.bytes, access: Access::Updates }];
        Locked::new(&usages).note(UNKNOWN, &Arc::new(Watched::new(faults)), &mark);
        Ok(DeviceBuffer::of(allocation, 0, elements))
    }
}

impl<T: Element> DeviceBuffer<T> {
    /// Elements in device memory that somebody else allocated and frees. Peers map it if it is an allocation of its own
    /// (`cuMemAlloc`, `cudaMalloc`), and not of a pool.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` where the device is not one of CUDA, where the memory is another device's, is shorter, or not
    /// aligned to the element; `System` where the driver does not know it.
    ///
    /// # Safety
    ///
    /// The memory lives as long as any handle or part of what is returned, and until everything enqueued that uses it has
    /// been done. Until then nobody else writes to it, nor reads what this library writes, but on the same stream or in
    /// an order with it that events make.
    pub unsafe fn from_raw(device: &Device, address: u64, elements: usize) -> Result<DeviceBuffer<T>> {
        check_platform(&device.core, "memory")?;
        Ok(DeviceBuffer::of(adopt::<T>(&device.core, address, elements, Arc::new(()))?, 0, elements))
    }
}

fn check_platform(core: &Core, what: &str) -> Result<()> {
    match core.backend.capabilities().platform {
        Platform::Cuda => Ok(()),
        _ => Err(Error::invalid(format!("{core} cannot take {what} of CUDA; use `Device::cuda`"))),
    }
}

/// The device of cudarc's context.
fn device_of(context: &CudaContext) -> Result<Arc<Core>> {
    if !context.is_primary() {
        return Err(Error::invalid(
            "the context of cudarc is not its device's primary one; make it by `CudaContext::new`",
        ));
    }
    super::device(context.ordinal())
}

fn stream_id(raw: *mut c_void) -> Result<StreamId> {
    match raw.expose_provenance() as u64 {
        PER_THREAD => Err(Error::invalid(
            "the default stream of threads (CU_STREAM_PER_THREAD) is another in each thread, and work is enqueued and \
             awaited by several; make a stream",
        )),
        id => Ok(StreamId(id)),
    }
}

/// Somebody else's memory.
fn adopt<T: Element>(core: &Arc<Core>, address: u64, elements: usize, owner: Kept) -> Result<Arc<Allocation>> {
    let bytes = elements.checked_mul(size_of::<T>()).ok_or_else(|| core.too_long(elements, size_of::<T>()))?;
    let mut kind = MemoryKind::Local;
    if bytes > 0 {
        let whole = core.backend.inspect(address).map_err(|failure| {
            core.failed(format_args!("looking at memory at {address:#x}"), &failure, "pass an address of device memory")
        })?;
        let index = core.backend.capabilities().index;
        if whole.device != index {
            return Err(Error::invalid(format!(
                "the memory at {address:#x} is of CUDA device {}, not {index}",
                whole.device
            )));
        }
        let left = (whole.begins + whole.bytes as u64).saturating_sub(address);
        if bytes as u64 > left {
            return Err(Error::invalid(format!(
                "the allocation at {address:#x} has {left} bytes left, fewer than {bytes}"
            )));
        }
        if !address.is_multiple_of(size_of::<T>() as u64) {
            return Err(Error::invalid(format!("the memory at {address:#x} is not aligned for {}", T::DATA_TYPE)));
        }
        if whole.mappable {
            kind = MemoryKind::Mappable;
        }
    }
    let owner = Some(owner);
    Ok(Arc::new(Allocation { core: core.clone(), address, bytes, kind, notes: Arc::default(), owner }))
}
