// SPDX-License-Identifier: MPL-2.0
//! Which of HIP's functions does what the room asks for.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};
use std::ptr;

use super::super::backend::{Address, Failure, Handle, HostFunction};
use super::super::capabilities::Platform;
use super::super::gpu::{Attribute, Calls, Fault, Object, Ordinal, Place, Unit, number, table};
use super::objects;
use super::sys::{
    Hip,
    types::{
        hipDeviceAttribute_t, hipDeviceMallocDefault, hipDeviceMallocFinegrained, hipEventDisableTiming,
        hipEventReleaseToSystem, hipHostMallocCoherent, hipHostMallocMapped, hipHostMallocPortable,
        hipHostRegisterMapped, hipHostRegisterPortable, hipIpcMemHandle_st, hipMemAllocationHandleType,
        hipMemAllocationType, hipMemLocation, hipMemLocationType, hipMemPool_t, hipMemPoolAttr, hipMemPoolProps,
        hipMemcpyKind::hipMemcpyDefault, hipStreamCaptureMode::hipStreamCaptureModeRelaxed, hipStreamNonBlocking,
        hipUUID,
    },
};

/// Beyond the highest priority of any device, for which HIP takes it.
const HIGHEST: c_int = -1000;

// SAFETY: HIP's functions do what is asked for, each as its documentation says.
unsafe impl Calls for Hip {
    fn platform(&self) -> Platform {
        Platform::Hip
    }

    fn visibility(&self) -> &'static str {
        "HIP_VISIBLE_DEVICES"
    }

    fn remedy(&self, code: u32) -> &'static str {
        match code {
            number::NOT_SUPPORTED | number::NO_BINARY => {
                "build with ANNULUS_HIP_TARGETS naming the device's architecture (`rocminfo` shows it), or put its code \
                 where ANNULUS_HIP_CODE says"
            }
            _ => "see what else uses the device, and the driver's own log (dmesg)",
        }
    }

    fn units(&self, _: Ordinal) -> Result<Vec<Unit>, Failure> {
        objects::units()
    }

    table! {
        count(count: *mut c_int) = hipGetDeviceCount(count);
        device(device: *mut c_int, index: c_int) = hipDeviceGet(device, index);
        name(name: *mut c_char, length: c_int, device: c_int) = hipDeviceGetName(name, length, device);
        bus(name: *mut c_char, length: c_int, device: c_int) = hipDeviceGetPCIBusId(name, length, device);
        identity(identity: *mut [u8; 16], device: c_int) = identify(identity, device);
        total_memory(bytes: *mut usize, device: c_int) = hipDeviceTotalMem(bytes, device);
        attribute(value: *mut c_int, attribute: Attribute, device: c_int) =
            hipDeviceGetAttribute(value, named_attribute(attribute), device);
        can_access_peer(can: *mut c_int, device: c_int, peer: c_int) = hipDeviceCanAccessPeer(can, device, peer);

        retain_context(_context: *mut Object, _device: c_int) = nothing();
        release_context(_device: c_int) = nothing();
        enter(place: Place, before: *mut u64) = enter_device(place.device, before);
        leave(before: u64) = hipSetDevice(before as c_int);
        enable_peer(peer: Place) = hipDeviceEnablePeerAccess(peer.device, 0);

        load_module(module: *mut Object, image: *const c_void) = hipModuleLoadData(module.cast(), image);
        find_function(function: *mut Object, module: Object, name: *const c_char) =
            hipModuleGetFunction(function.cast(), module.cast(), name);
        // Modules are loaded whole, and any block may have all of the shared memory.
        prepare_function(_function: Object, _shared: c_int) = nothing();
        resident_blocks(blocks: *mut c_int, function: Object, threads: c_int, shared: usize) =
            hipModuleOccupancyMaxActiveBlocksPerMultiprocessor(blocks, function.cast(), threads, shared);
        launch(function: Object, blocks: u32, threads: u32, shared: u32, stream: Object, arguments: *mut *mut c_void) =
            hipModuleLaunchKernel(
                function.cast(), blocks, 1, 1, threads, 1, 1, shared, stream.cast(), arguments, ptr::null_mut(),
            );

        create_stream(stream: *mut Object) = hipStreamCreateWithFlags(stream.cast(), hipStreamNonBlocking);
        create_urgent_stream(stream: *mut Object) =
            hipStreamCreateWithPriority(stream.cast(), hipStreamNonBlocking, HIGHEST);
        destroy_stream(stream: Object) = hipStreamDestroy(stream.cast());
        query_stream(stream: Object) = hipStreamQuery(stream.cast());
        synchronize_stream(stream: Object) = hipStreamSynchronize(stream.cast());
        wait_event(stream: Object, event: Object) = hipStreamWaitEvent(stream.cast(), event.cast(), 0);
        call_host(stream: Object, function: HostFunction, data: *mut c_void) =
            launch_host_function(stream.cast(), Some(function), data);

        is_capturing(status: *mut c_int, stream: Object) = hipStreamIsCapturing(stream.cast(), status.cast());
        begin_capture(stream: Object) = hipStreamBeginCapture(stream.cast(), hipStreamCaptureModeRelaxed);
        end_capture(stream: Object, graph: *mut Object) = hipStreamEndCapture(stream.cast(), graph.cast());
        destroy_graph(graph: Object) = hipGraphDestroy(graph.cast());
        instantiate(executable: *mut Object, graph: Object) =
            hipGraphInstantiateWithFlags(executable.cast(), graph.cast(), 0);
        upload(_executable: Object, _stream: Object) = nothing();
        launch_graph(executable: Object, stream: Object) = hipGraphLaunch(executable.cast(), stream.cast());
        destroy_executable(executable: Object) = hipGraphExecDestroy(executable.cast());

        create_event(event: *mut Object, timed: bool) = hipEventCreateWithFlags(
            event.cast(), hipEventReleaseToSystem | if timed { 0 } else { hipEventDisableTiming },
        );
        destroy_event(event: Object) = hipEventDestroy(event.cast());
        query_event(event: Object) = hipEventQuery(event.cast());
        record_event(event: Object, stream: Object) = hipEventRecord(event.cast(), stream.cast());
        synchronize_event(event: Object) = hipEventSynchronize(event.cast());
        elapsed(milliseconds: *mut f32, from: Object, to: Object) =
            hipEventElapsedTime(milliseconds, from.cast(), to.cast());

        allocate(address: *mut Address, bytes: usize, shared: bool) = hipExtMallocWithFlags(
            address.cast(), bytes, if shared { hipDeviceMallocFinegrained } else { hipDeviceMallocDefault },
        );
        free(address: Address) = hipFree(at(address));
        create_pool(pool: *mut Object, device: c_int) = make_pool(pool.cast(), device);
        trim_pool(pool: Object) = hipMemPoolTrimTo(pool.cast(), 0);
        allocate_of_pool(address: *mut Address, bytes: usize, pool: Object, stream: Object) =
            hipMallocFromPoolAsync(address.cast(), bytes, pool.cast(), stream.cast());
        free_to_pool(address: Address, stream: Object) = hipFreeAsync(at(address), stream.cast());
        memory(free: *mut usize, total: *mut usize) = hipMemGetInfo(free, total);
        pin(memory: *mut *mut c_void, bytes: usize) =
            hipHostMalloc(memory, bytes, hipHostMallocPortable | hipHostMallocMapped | hipHostMallocCoherent);
        register(memory: *mut c_void, bytes: usize) =
            hipHostRegister(memory, bytes, hipHostRegisterPortable | hipHostRegisterMapped);
        unregister(memory: *mut c_void) = hipHostUnregister(memory);
        device_address(address: *mut Address, memory: *mut c_void) = hipHostGetDevicePointer(address.cast(), memory, 0);
        range(base: *mut Address, bytes: *mut usize, address: Address) =
            hipMemGetAddressRange(base.cast(), bytes, at(address));

        copy(to: Address, from: Address, bytes: usize, stream: Object) =
            hipMemcpyAsync(at(to), at(from), bytes, hipMemcpyDefault, stream.cast());
        copy_between(to: (Place, Address), from: (Place, Address), bytes: usize, stream: Object) =
            hipMemcpyPeerAsync(at(to.1), to.0.device, at(from.1), from.0.device, bytes, stream.cast());
        fill_8(to: Address, value: u8, count: usize, stream: Object) =
            hipMemsetD8Async(at(to), value, count, stream.cast());
        fill_16(to: Address, value: u16, count: usize, stream: Object) =
            hipMemsetD16Async(at(to), value, count, stream.cast());
        fill_32(to: Address, value: u32, count: usize, stream: Object) =
            hipMemsetD32Async(at(to), value as c_int, count, stream.cast());

        export(handle: *mut Handle, address: Address) = hipIpcGetMemHandle(handle.cast(), at(address));
        open_exported(address: *mut Address, handle: &Handle) = open(address, handle);
        close_exported(address: Address) = hipIpcCloseMemHandle(at(address));
    }

    #[cfg(feature = "cuda")]
    unsafe fn inspect(&self, _: *mut c_int, _: *mut c_int, _: Address) -> Result<(), Fault> {
        let name = "memory that somebody else allocated is taken of CUDA alone".into();
        Err(Fault { call: "inspect", code: number::NOT_SUPPORTED, name })
    }
}

fn named_attribute(attribute: Attribute) -> hipDeviceAttribute_t {
    match attribute {
        Attribute::CapabilityMajor => hipDeviceAttribute_t::hipDeviceAttributeComputeCapabilityMajor,
        Attribute::CapabilityMinor => hipDeviceAttribute_t::hipDeviceAttributeComputeCapabilityMinor,
        Attribute::Multiprocessors => hipDeviceAttribute_t::hipDeviceAttributeMultiprocessorCount,
        Attribute::Warp => hipDeviceAttribute_t::hipDeviceAttributeWarpSize,
        Attribute::ThreadsPerBlock => hipDeviceAttribute_t::hipDeviceAttributeMaxThreadsPerBlock,
        Attribute::SharedPerBlock => hipDeviceAttribute_t::hipDeviceAttributeMaxSharedMemoryPerBlock,
        Attribute::MemoryPools => hipDeviceAttribute_t::hipDeviceAttributeMemoryPoolsSupported,
    }
}

fn at<T>(address: Address) -> *mut T {
    ptr::with_exposed_provenance_mut(address as usize)
}

impl Hip {
    /// # Safety
    /// Nothing is asked.
    unsafe fn nothing(&self) -> Result<(), Fault> {
        Ok(())
    }

    /// # Safety
    /// The pointer is to an integer that may be written.
    unsafe fn enter_device(&self, device: c_int, before: *mut u64) -> Result<(), Fault> {
        let mut own = 0;
        // SAFETY: the pointer is to an integer of ours.
        unsafe { self.hipGetDevice(&mut own) }?;
        // SAFETY: the caller's promise.
        unsafe { before.write(own as u64) };
        // SAFETY: takes a number.
        unsafe { self.hipSetDevice(device) }
    }

    /// # Safety
    /// The pointer is to bytes that may be written.
    unsafe fn identify(&self, identity: *mut [u8; 16], device: c_int) -> Result<(), Fault> {
        let mut uuid = hipUUID { bytes: [0; 16] };
        let mut bus: [c_char; 16] = [0; 16];
        // SAFETY: the pointers are to variables of ours, of that many bytes.
        unsafe {
            self.hipDeviceGetUuid(&mut uuid, device)?;
            self.hipDeviceGetPCIBusId(bus.as_mut_ptr(), bus.len() as c_int, device)?;
        }
        let mixed = std::array::from_fn(|byte| (uuid.bytes[byte] ^ bus[byte]) as u8);
        // SAFETY: the caller's promise.
        unsafe { identity.write(mixed) };
        Ok(())
    }

    /// Makes a pool of memory of a device, which is exported to nobody and gives nothing back by itself.
    ///
    /// # Safety
    /// The pointer is to a handle that may be written.
    unsafe fn make_pool(&self, pool: *mut hipMemPool_t, device: c_int) -> Result<(), Fault> {
        let properties = hipMemPoolProps {
            allocType: hipMemAllocationType::hipMemAllocationTypePinned,
            handleTypes: hipMemAllocationHandleType::hipMemHandleTypeNone,
            location: hipMemLocation { type_: hipMemLocationType::hipMemLocationTypeDevice, id: device },
            win32SecurityAttributes: ptr::null_mut(),
            // Of later versions the first are how much it may have at the most; zeros are no limit.
            reserved: [0; 64],
        };
        let mut keep = u64::MAX;
        // SAFETY: the properties are whole, and the attribute is a number of 64 bits; the rest is the caller's promise.
        unsafe {
            self.hipMemPoolCreate(pool, &properties)?;
            let threshold = hipMemPoolAttr::hipMemPoolAttrReleaseThreshold;
            self.hipMemPoolSetAttribute(*pool, threshold, (&raw mut keep).cast())
        }
    }

    /// # Safety
    /// The pointer is to an address that may be written.
    unsafe fn open(&self, address: *mut Address, handle: &Handle) -> Result<(), Fault> {
        let handle = hipIpcMemHandle_st { reserved: handle.map(|byte| byte as c_char) };
        let with = |lazy_enable_peer_access| {
            // SAFETY: the caller's promise; HIP says which bytes are handles.
            unsafe { self.hipIpcOpenMemHandle(address.cast(), handle, lazy_enable_peer_access) }
        };
        match with(1) {
            Err(fault) if fault.code == number::INVALID_VALUE => with(0),
            answer => answer,
        }
    }
}
