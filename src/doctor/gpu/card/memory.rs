// SPDX-License-Identifier: MPL-2.0
//! Memory: of the device, of its pool, of the host, and of another process.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64};

use bytemuck::Pod;

use super::{Card, Stream};
use crate::driver::cuda::Fault;
use crate::driver::cuda::sys::{CUdeviceptr, CUipcMemHandle};

/// Memory that kernels may be given.
pub(in super::super) trait Memory {
    /// Its address on the device.
    fn address(&self) -> u64;
    /// Its length in bytes.
    fn bytes(&self) -> usize;
}

impl Card {
    /// Zeroed device memory of its own allocation.
    pub fn allocate(&self, bytes: usize) -> Result<DeviceMemory<'_>, Fault> {
        self.zeroed(self.allocate_as_it_is(bytes)?)
    }

    /// Device memory of its own allocation, with whatever is in it.
    pub fn allocate_as_it_is(&self, bytes: usize) -> Result<DeviceMemory<'_>, Fault> {
        let mut address = 0;
        // SAFETY: the pointer is to a variable of ours.
        unsafe { self.driver.cuMemAlloc_v2(&mut address, bytes) }?;
        Ok(DeviceMemory { card: self, address, bytes })
    }

    /// Zeroed device memory from the device's memory pool.
    pub fn allocate_from_pool(&self, bytes: usize, stream: &Stream) -> Result<DeviceMemory<'_>, Fault> {
        self.zeroed(self.allocate_from_pool_as_it_is(bytes, stream)?)
    }

    /// Device memory from the device's memory pool, with whatever is in it, once the stream has come to it.
    pub fn allocate_from_pool_as_it_is(&self, bytes: usize, stream: &Stream) -> Result<DeviceMemory<'_>, Fault> {
        let mut address = 0;
        // SAFETY: the pointer is to a variable of ours; the stream lives.
        unsafe { self.driver.cuMemAllocAsync(&mut address, bytes, stream.stream) }?;
        stream.synchronize()?;
        Ok(DeviceMemory { card: self, address, bytes })
    }

    /// Zeroed device memory of that many words, for counters. Four at the least.
    pub fn words(&self, count: usize) -> Result<DeviceMemory<'_>, Fault> {
        self.allocate(count.max(4) * 4)
    }

    fn zeroed<'a>(&'a self, memory: DeviceMemory<'a>) -> Result<DeviceMemory<'a>, Fault> {
        let stream = self.stream()?;
        memory.fill(0, &stream)?;
        stream.synchronize()?;
        Ok(memory)
    }

    /// Zeroed memory of the host that the device addresses.
    pub fn allocate_pinned(&self, bytes: usize) -> Result<PinnedMemory, Fault> {
        const PORTABLE_AND_MAPPED: u32 = 3;
        let mut data = ptr::null_mut();
        let mut address = 0;
        // SAFETY: the pointers are to variables of ours; the memory is ours for good, and has that many bytes.
        unsafe {
            self.driver.cuMemHostAlloc(&mut data, bytes, PORTABLE_AND_MAPPED)?;
            data.cast::<u8>().write_bytes(0, bytes);
            self.driver.cuMemHostGetDevicePointer_v2(&mut address, data, 0)?;
        }
        Ok(PinnedMemory { data, address, bytes })
    }

    /// Frees memory that nothing on the device uses any more, once everything enqueued has been done.
    pub fn free(&self, memory: DeviceMemory) -> Result<(), Fault> {
        self.synchronize()?;
        // SAFETY: the memory is given up, and nothing enqueued uses it any more.
        unsafe { self.driver.cuMemFree_v2(memory.address) }
    }

    /// Frees memory of the host.
    pub fn free_pinned(&self, memory: PinnedMemory) -> Result<(), Fault> {
        self.synchronize()?;
        // SAFETY: the memory is given up, and nothing enqueued uses it any more.
        unsafe { self.driver.cuMemFreeHost(memory.data) }
    }

    /// Frees memory without waiting for what runs. Were a kernel still to use it, that would be the device's fault and
    /// end this question; none of this process's own memory can come to harm.
    pub fn free_at_once(&self, memory: DeviceMemory) -> Result<(), Fault> {
        // SAFETY: the memory is given up; the driver maps device memory for devices alone.
        unsafe { self.driver.cuMemFree_v2(memory.address) }
    }

    /// Gives memory back to the device's memory pool once the stream has come to it. As above, were anything still to use
    /// it.
    pub fn free_to_pool(&self, memory: DeviceMemory, stream: &Stream) -> Result<(), Fault> {
        // SAFETY: the memory is given up; the driver maps device memory for devices alone; the stream lives.
        unsafe { self.driver.cuMemFreeAsync(memory.address, stream.stream) }
    }

    /// Opens memory that another process exported, `bytes` of it.
    pub fn open_handle(&self, handle: &Handle, bytes: usize) -> Result<PeerMemory<'_>, Fault> {
        const LAZY_PEER_ACCESS: u32 = 1;
        let mut handle_of_driver = CUipcMemHandle { reserved: [0; 64] };
        for (to, from) in handle_of_driver.reserved.iter_mut().zip(handle.0) {
            *to = from as _;
        }
        let mut address = 0;
        // SAFETY: the pointer is to a variable of ours; the driver looks at what is in a handle itself.
        unsafe { self.driver.cuIpcOpenMemHandle_v2(&mut address, handle_of_driver, LAZY_PEER_ACCESS) }?;
        Ok(PeerMemory { card: self, address, bytes })
    }
}

/// The name by which another process opens memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Handle(pub [u8; 64]);

/// Device memory.
pub(in super::super) struct DeviceMemory<'a> {
    card: &'a Card,
    address: CUdeviceptr,
    bytes: usize,
}

impl Memory for DeviceMemory<'_> {
    fn address(&self) -> u64 {
        self.address
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

impl DeviceMemory<'_> {
    /// Sets every word, on a stream.
    pub fn fill(&self, word: u32, stream: &Stream) -> Result<(), Fault> {
        // SAFETY: the words lie inside the memory.
        unsafe { self.card.driver.cuMemsetD32Async(self.address, word, self.bytes / 4, stream.stream) }
    }

    /// Writes from the beginning on; what does not fit is left out.
    pub fn write<T: Pod>(&self, values: &[T]) -> Result<(), Fault> {
        let bytes = size_of_val(values).min(self.bytes);
        // SAFETY: as many bytes as both have.
        unsafe { self.card.driver.cuMemcpyHtoD_v2(self.address, values.as_ptr().cast(), bytes) }
    }

    /// Reads `count` values from the beginning on, or as many as there are.
    pub fn read<T: Pod>(&self, count: usize) -> Result<Vec<T>, Fault> {
        read(self.card, self.address, self.bytes, count)
    }

    /// Copies this memory to the beginning of `to`, on a stream; what does not fit is left out.
    pub fn copy_to(&self, to: &DeviceMemory, stream: &Stream) -> Result<(), Fault> {
        let bytes = self.bytes.min(to.bytes);
        // SAFETY: as many bytes as both have.
        unsafe { self.card.driver.cuMemcpyDtoDAsync_v2(to.address, self.address, bytes, stream.stream) }
    }

    /// The name by which another process opens what lies `offset` bytes from the beginning.
    pub fn handle(&self, offset: usize) -> Result<Handle, Fault> {
        let mut handle = CUipcMemHandle { reserved: [0; 64] };
        let address = self.address + offset.min(self.bytes.saturating_sub(1)) as u64;
        // SAFETY: the pointer is to a variable of ours.
        unsafe { self.card.driver.cuIpcGetMemHandle(&mut handle, address) }?;
        Ok(Handle(handle.reserved.map(|byte| byte as u8)))
    }

    /// Where the allocation begins in which this memory lies, relative to it, and how long that is.
    pub fn allocation(&self) -> Result<(i64, usize), Fault> {
        let (mut base, mut bytes) = (0, 0);
        // SAFETY: the pointers are to variables of ours.
        unsafe { self.card.driver.cuMemGetAddressRange_v2(&mut base, &mut bytes, self.address) }?;
        Ok((base.wrapping_sub(self.address) as i64, bytes))
    }
}

impl Card {
    /// Copies what fits from the beginning of one memory to that of another, on a stream.
    pub fn copy(&self, to: &impl Memory, from: &impl Memory, stream: &Stream) -> Result<(), Fault> {
        let bytes = to.bytes().min(from.bytes());
        // SAFETY: as many bytes as both have.
        unsafe { self.driver.cuMemcpyAsync(to.address(), from.address(), bytes, stream.stream) }
    }
}

fn read<T: Pod>(card: &Card, address: CUdeviceptr, bytes: usize, count: usize) -> Result<Vec<T>, Fault> {
    let mut values = vec![T::zeroed(); count.min(bytes / size_of::<T>().max(1))];
    let to = values.as_mut_ptr().cast();
    // SAFETY: as many bytes as both have; any bits are a `T`.
    unsafe { card.driver.cuMemcpyDtoH_v2(to, address, size_of_val(&*values)) }?;
    Ok(values)
}

/// Memory of another process.
pub(in super::super) struct PeerMemory<'a> {
    card: &'a Card,
    address: CUdeviceptr,
    bytes: usize,
}

impl Memory for PeerMemory<'_> {
    fn address(&self) -> u64 {
        self.address
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

impl PeerMemory<'_> {
    /// Reads `count` values from the beginning on, or as many as there are.
    pub fn read<T: Pod>(&self, count: usize) -> Result<Vec<T>, Fault> {
        read(self.card, self.address, self.bytes, count)
    }

    /// Gives it up, once everything enqueued has been done.
    pub fn close(self) -> Result<(), Fault> {
        self.card.synchronize()?;
        // SAFETY: the memory is given up, and nothing enqueued uses it any more.
        unsafe { self.card.driver.cuIpcCloseMemHandle(self.address) }
    }
}

/// Memory of the host that the device addresses. Both see it as words that others may write at any time.
pub(in super::super) struct PinnedMemory {
    data: *mut c_void,
    address: CUdeviceptr,
    bytes: usize,
}

impl Memory for PinnedMemory {
    fn address(&self) -> u64 {
        self.address
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

impl PinnedMemory {
    pub fn words(&self) -> &[AtomicU32] {
        // SAFETY: The memory is mapped, aligned to a page and zeroed; the device writes it by whole aligned words.
        unsafe { std::slice::from_raw_parts(self.data.cast(), self.bytes / 4) }
    }

    /// What kernels write as words of 64 bits; to be read when they have ended.
    pub fn long_words(&self) -> &[AtomicU64] {
        // SAFETY: as above; the device writes it by whole aligned words of this size.
        unsafe { std::slice::from_raw_parts(self.data.cast(), self.bytes / 8) }
    }
}
