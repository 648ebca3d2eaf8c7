// SPDX-License-Identifier: MPL-2.0
//! Which of the driver's functions does what the room asks for.
#![allow(unsafe_code)]

use std::borrow::Cow;
use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr;

use super::super::backend::{Address, Failure, Handle, HostFunction};
use super::super::capabilities::Platform;
use super::super::gpu::{Attribute, Calls, Fault, Multiplies, Object, Ordinal, Place, Unit, entries, number, table};
use super::blas::Blas;
use super::library::Driver;
use super::ptx;
use super::sys::{
    CUcontext, CUdevice_attribute, CUfunction, CUfunction_attribute, CUipcMemHandle_st, CUmemAllocationHandleType,
    CUmemAllocationType, CUmemLocation, CUmemLocationType, CUmemPool_attribute, CUmemPoolProps, CUmemoryPool,
    CUpointer_attribute, CUresult, CUstreamCaptureMode, CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED,
};

/// For a stream that waits for no other.
const NON_BLOCKING: u32 = 1;
/// Beyond the highest priority of any device, for which the driver takes it.
const HIGHEST: c_int = -1000;
/// For an event that keeps no time.
const DISABLE_TIMING: u32 = 2;
/// For all contexts, and mapped into their devices.
const PORTABLE_AND_MAPPED: u32 = 3;
const LAZY_ENABLE_PEER_ACCESS: u32 = 1;

const NO_COMPILER: u32 = CUresult::CUDA_ERROR_JIT_COMPILER_NOT_FOUND as u32;
const NEWER_PTX: u32 = CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION as u32;
const NO_COMPILING: u32 = CUresult::CUDA_ERROR_JIT_COMPILATION_DISABLED as u32;

// SAFETY: the driver's functions do what is asked for, each as its documentation says.
unsafe impl Calls for Driver {
    fn platform(&self) -> Platform {
        Platform::Cuda
    }

    fn visibility(&self) -> &'static str {
        "CUDA_VISIBLE_DEVICES"
    }

    fn remedy(&self, code: u32) -> &'static str {
        match code {
            number::NOT_SUPPORTED | number::NO_BINARY => "use another device",
            NO_COMPILER => {
                "the driver's compiler of PTX (libnvidia-ptxjitcompiler) is missing; install all of the driver"
            }
            NEWER_PTX => "the driver is too old for the kernels; update it",
            NO_COMPILING => "unset CUDA_DISABLE_PTX_JIT and CUDA_DISABLE_JIT",
            _ => "see what else uses the device, and the driver's own log (dmesg)",
        }
    }

    fn units(&self, ordinal: Ordinal) -> Result<Vec<Unit>, Failure> {
        let capability = ordinal.capability()?;
        let units = ptx::chosen(capability).ok_or_else(|| {
            let (own, oldest) = (capability, ptx::oldest());
            let meaning = format!(
                "the device has compute capability {}.{}, and the kernels are for {}.{} and later",
                own / 10,
                own % 10,
                oldest / 10,
                oldest % 10
            );
            Failure { call: "cuDeviceGetAttribute", code: number::NOT_SUPPORTED as i32, meaning }
        })?;
        Ok(units.into_iter().map(unit).collect())
    }

    fn products(&self) -> Option<Box<dyn Multiplies>> {
        Some(Box::new(Blas::default()))
    }

    table! {
        count(count: *mut c_int) = cuDeviceGetCount(count);
        device(device: *mut c_int, index: c_int) = cuDeviceGet(device, index);
        name(name: *mut c_char, length: c_int, device: c_int) = cuDeviceGetName(name, length, device);
        bus(name: *mut c_char, length: c_int, device: c_int) = cuDeviceGetPCIBusId(name, length, device);
        identity(identity: *mut [u8; 16], device: c_int) = cuDeviceGetUuid_v2(identity.cast(), device);
        total_memory(bytes: *mut usize, device: c_int) = cuDeviceTotalMem_v2(bytes, device);
        attribute(value: *mut c_int, attribute: Attribute, device: c_int) =
            cuDeviceGetAttribute(value, named_attribute(attribute), device);
        can_access_peer(can: *mut c_int, device: c_int, peer: c_int) = cuDeviceCanAccessPeer(can, device, peer);

        retain_context(context: *mut Object, device: c_int) = cuDevicePrimaryCtxRetain(context.cast(), device);
        release_context(device: c_int) = cuDevicePrimaryCtxRelease_v2(device);
        enter(place: Place, before: *mut u64) = push(place.context.cast(), before);
        leave(before: u64) = pop(before);
        enable_peer(peer: Place) = cuCtxEnablePeerAccess(peer.context.cast(), 0);

        load_module(module: *mut Object, image: *const c_void) = cuModuleLoadData(module.cast(), image);
        find_function(function: *mut Object, module: Object, name: *const c_char) =
            cuModuleGetFunction(function.cast(), module.cast(), name);
        prepare_function(function: Object, shared: c_int) = prepare(function.cast(), shared);
        resident_blocks(blocks: *mut c_int, function: Object, threads: c_int, shared: usize) =
            cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks, function.cast(), threads, shared);
        launch(function: Object, blocks: u32, threads: u32, shared: u32, stream: Object, arguments: *mut *mut c_void) =
            cuLaunchKernel(
                function.cast(), blocks, 1, 1, threads, 1, 1, shared, stream.cast(), arguments, ptr::null_mut(),
            );

        create_stream(stream: *mut Object) = cuStreamCreate(stream.cast(), NON_BLOCKING);
        create_urgent_stream(stream: *mut Object) =
            cuStreamCreateWithPriority(stream.cast(), NON_BLOCKING, HIGHEST);
        destroy_stream(stream: Object) = cuStreamDestroy_v2(stream.cast());
        query_stream(stream: Object) = cuStreamQuery(stream.cast());
        synchronize_stream(stream: Object) = cuStreamSynchronize(stream.cast());
        wait_event(stream: Object, event: Object) = cuStreamWaitEvent(stream.cast(), event.cast(), 0);
        call_host(stream: Object, function: HostFunction, data: *mut c_void) =
            cuLaunchHostFunc(stream.cast(), Some(function), data);

        begin_capture(stream: Object) = cuStreamBeginCapture_v2(stream.cast(), CU_STREAM_CAPTURE_MODE_RELAXED);
        is_capturing(status: *mut c_int, stream: Object) = cuStreamIsCapturing(stream.cast(), status.cast());
        end_capture(stream: Object, graph: *mut Object) = cuStreamEndCapture(stream.cast(), graph.cast());
        destroy_graph(graph: Object) = cuGraphDestroy(graph.cast());
        instantiate(executable: *mut Object, graph: Object) =
            cuGraphInstantiateWithFlags(executable.cast(), graph.cast(), 0);
        upload(executable: Object, stream: Object) = cuGraphUpload(executable.cast(), stream.cast());
        launch_graph(executable: Object, stream: Object) = cuGraphLaunch(executable.cast(), stream.cast());
        destroy_executable(executable: Object) = cuGraphExecDestroy(executable.cast());

        create_event(event: *mut Object, timed: bool) =
            cuEventCreate(event.cast(), if timed { 0 } else { DISABLE_TIMING });
        destroy_event(event: Object) = cuEventDestroy_v2(event.cast());
        query_event(event: Object) = cuEventQuery(event.cast());
        record_event(event: Object, stream: Object) = cuEventRecord(event.cast(), stream.cast());
        synchronize_event(event: Object) = cuEventSynchronize(event.cast());
        elapsed(milliseconds: *mut f32, from: Object, to: Object) =
            cuEventElapsedTime(milliseconds, from.cast(), to.cast());

        allocate(address: *mut Address, bytes: usize, _shared: bool) = cuMemAlloc_v2(address, bytes);
        free(address: Address) = cuMemFree_v2(address);
        create_pool(pool: *mut Object, device: c_int) = make_pool(pool.cast(), device);
        trim_pool(pool: Object) = cuMemPoolTrimTo(pool.cast(), 0);
        allocate_of_pool(address: *mut Address, bytes: usize, pool: Object, stream: Object) =
            cuMemAllocFromPoolAsync(address, bytes, pool.cast(), stream.cast());
        free_to_pool(address: Address, stream: Object) = cuMemFreeAsync(address, stream.cast());
        memory(free: *mut usize, total: *mut usize) = cuMemGetInfo_v2(free, total);
        pin(memory: *mut *mut c_void, bytes: usize) = cuMemHostAlloc(memory, bytes, PORTABLE_AND_MAPPED);
        register(memory: *mut c_void, bytes: usize) = cuMemHostRegister_v2(memory, bytes, PORTABLE_AND_MAPPED);
        unregister(memory: *mut c_void) = cuMemHostUnregister(memory);
        device_address(address: *mut Address, memory: *mut c_void) = cuMemHostGetDevicePointer_v2(address, memory, 0);
        range(base: *mut Address, bytes: *mut usize, address: Address) =
            cuMemGetAddressRange_v2(base, bytes, address);
        inspect(device: *mut c_int, exportable: *mut c_int, address: Address) =
            look_at(device, exportable, address);

        copy(to: Address, from: Address, bytes: usize, stream: Object) =
            cuMemcpyAsync(to, from, bytes, stream.cast());
        copy_between(to: (Place, Address), from: (Place, Address), bytes: usize, stream: Object) =
            cuMemcpyPeerAsync(to.1, to.0.context.cast(), from.1, from.0.context.cast(), bytes, stream.cast());
        fill_8(to: Address, value: u8, count: usize, stream: Object) =
            cuMemsetD8Async(to, value, count, stream.cast());
        fill_16(to: Address, value: u16, count: usize, stream: Object) =
            cuMemsetD16Async(to, value, count, stream.cast());
        fill_32(to: Address, value: u32, count: usize, stream: Object) =
            cuMemsetD32Async(to, value, count, stream.cast());

        export(handle: *mut Handle, address: Address) = cuIpcGetMemHandle(handle.cast(), address);
        open_exported(address: *mut Address, handle: &Handle) =
            cuIpcOpenMemHandle_v2(address, named_handle(handle), LAZY_ENABLE_PEER_ACCESS);
        close_exported(address: Address) = cuIpcCloseMemHandle(address);
    }
}

fn named_attribute(attribute: Attribute) -> CUdevice_attribute {
    match attribute {
        Attribute::CapabilityMajor => CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
        Attribute::CapabilityMinor => CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        Attribute::Multiprocessors => CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
        Attribute::Warp => CUdevice_attribute::CU_DEVICE_ATTRIBUTE_WARP_SIZE,
        Attribute::ThreadsPerBlock => CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK,
        Attribute::SharedPerBlock => CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
        Attribute::MemoryPools => CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED,
    }
}

fn named_handle(handle: &Handle) -> CUipcMemHandle_st {
    CUipcMemHandle_st { reserved: handle.map(|byte| byte as c_char) }
}

/// PTX as the driver takes it: text that ends with a zero.
fn unit(unit: &ptx::Unit) -> Unit {
    // It has no zero, as its compiler wrote it; up to one, if it had one.
    let text = unit.text.split('\0').next().unwrap_or_default();
    Unit {
        what: format!("the kernels of {}.cu for sm_{}", unit.name, unit.target),
        image: Cow::Owned(CString::new(text).unwrap_or_default().into_bytes_with_nul()),
        kernels: entries(unit.text).collect(),
    }
}

impl Driver {
    /// Makes a context current. A user may capture meanwhile, by default so that whatever allocates or asks on any thread
    /// spoils the capture. None of our calls is of that capture, so each is made as a relaxed one; `before` gets how the
    /// thread took others' captures.
    ///
    /// # Safety
    /// The context lives, and the pointer is to a number that may be written.
    unsafe fn push(&self, context: CUcontext, before: *mut u64) -> Result<(), Fault> {
        // SAFETY: the caller's promise.
        unsafe { self.cuCtxPushCurrent_v2(context) }?;
        let mut mode = CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the pointer is to a variable of ours, of one of the modes, and gets another of them.
        let exchanged = unsafe { self.cuThreadExchangeStreamCaptureMode(&mut mode) };
        if exchanged.is_err() {
            // SAFETY: the pointer is to a variable of ours.
            let _ = unsafe { self.cuCtxPopCurrent_v2(&mut ptr::null_mut()) };
        }
        // SAFETY: the caller's promise.
        unsafe { before.write(mode as u64) };
        exchanged
    }

    /// # Safety
    /// What `push` made current is, and `before` came from it.
    unsafe fn pop(&self, before: u64) -> Result<(), Fault> {
        const MODES: [CUstreamCaptureMode; 3] = [
            CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL,
            CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL,
            CU_STREAM_CAPTURE_MODE_RELAXED,
        ];
        let mode = MODES.into_iter().find(|mode| *mode as u64 == before);
        // SAFETY: the pointers are to variables of ours.
        unsafe {
            let exchanged = self.cuThreadExchangeStreamCaptureMode(&mut mode.unwrap_or(MODES[0]));
            self.cuCtxPopCurrent_v2(&mut ptr::null_mut())?;
            exchanged
        }
    }

    /// Has a function loaded, and allows it all the shared memory. A driver that loads a function at its first use by itself
    /// (`CUDA_MODULE_LOADING`) is told to load it, or, before CUDA 12.4, asked what only the loaded code can answer.
    ///
    /// # Safety
    /// The function is of the current context.
    unsafe fn prepare(&self, function: CUfunction, shared: c_int) -> Result<(), Fault> {
        let mut own = 0;
        // SAFETY: the pointer is to an integer of ours; the rest is the caller's promise.
        unsafe {
            self.load_now(function)?;
            self.cuFuncGetAttribute(&mut own, CUfunction_attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, function)?;
            let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            self.cuFuncSetAttribute(function, attribute, shared.saturating_sub(own).max(0))
        }
    }

    /// Makes a pool of memory of a device, which is exported to nobody and gives nothing back by itself.
    ///
    /// # Safety
    /// The pointer is to a handle that may be written.
    unsafe fn make_pool(&self, pool: *mut CUmemoryPool, device: c_int) -> Result<(), Fault> {
        let properties = CUmemPoolProps {
            allocType: CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED,
            handleTypes: CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_NONE,
            location: CUmemLocation { type_: CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE, id: device },
            win32SecurityAttributes: ptr::null_mut(),
            // As much as there is. Drivers before CUDA 12.2 have reserved bytes here, which must be zeros.
            maxSize: 0,
            reserved: [0; 56],
        };
        let mut keep = u64::MAX;
        // SAFETY: the properties are whole, and the attribute is a number of 64 bits; the rest is the caller's promise.
        unsafe {
            self.cuMemPoolCreate(pool, &properties)?;
            let threshold = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
            self.cuMemPoolSetAttribute(*pool, threshold, (&raw mut keep).cast())
        }
    }

    /// # Safety
    /// The pointers are to integers that may be written.
    unsafe fn look_at(&self, device: *mut c_int, exportable: *mut c_int, address: Address) -> Result<(), Fault> {
        // SAFETY: both attributes are of 32 bits at the most, for which there is room by the caller's promise.
        unsafe {
            let of_device = CUpointer_attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL;
            self.cuPointerGetAttribute(device.cast(), of_device, address)?;
            let for_peers = CUpointer_attribute::CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE;
            self.cuPointerGetAttribute(exportable.cast(), for_peers, address)
        }
    }
}
