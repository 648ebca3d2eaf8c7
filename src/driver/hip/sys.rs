// SPDX-License-Identifier: MPL-2.0
//! HIP's functions, as `hip_sys` binds them; no other file names it.
//!
//! Each is called through a pointer whose type answers a number. The bindings' own answer is an enumeration, and HIP has
//! answers that were not known when they were made: to receive one as that enumeration would be undefined behaviour.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::fmt;
use std::sync::OnceLock;

pub(super) use hip_sys::hiprt as types;

use super::super::gpu::{self, Fault, number};
use crate::error::Error;
use types::{
    hipDevice_t, hipDeviceAttribute_t, hipDeviceptr_t, hipError_t, hipEvent_t, hipFunction_t, hipGraph_t,
    hipGraphExec_t, hipHostFn_t, hipIpcMemHandle_t, hipMemPool_t, hipMemPoolAttr, hipMemPoolProps, hipMemcpyKind,
    hipModule_t, hipStream_t, hipStreamCaptureMode, hipStreamCaptureStatus, hipUUID,
};

// The numbers that mean something are those that the room knows.
const _: () = assert!(
    hipError_t::hipErrorInvalidValue as u32 == number::INVALID_VALUE
        && hipError_t::hipErrorNoDevice as u32 == number::NO_DEVICE
        && hipError_t::hipErrorInvalidDevice as u32 == number::INVALID_DEVICE
        && hipError_t::hipErrorInvalidContext as u32 == number::INVALID_CONTEXT
        && hipError_t::hipErrorAlreadyMapped as u32 == number::ALREADY_MAPPED
        && hipError_t::hipErrorNoBinaryForGpu as u32 == number::NO_BINARY
        && hipError_t::hipErrorNotReady as u32 == number::NOT_READY
        && hipError_t::hipErrorPeerAccessAlreadyEnabled as u32 == number::PEER_ACCESS_ALREADY_ENABLED
        && hipError_t::hipErrorCooperativeLaunchTooLarge as u32 == number::TOO_MANY_BLOCKS
        && hipError_t::hipErrorNotSupported as u32 == number::NOT_SUPPORTED
);
const _: () = assert!(size_of::<hipError_t>() == size_of::<u32>());

/// HIP, which shows at least one device.
pub(crate) struct Hip(());

/// Why HIP cannot be used here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Absent {
    /// It shows no device.
    Device,
    /// It did not start.
    Start(Fault),
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Absent::Device => write!(
                f,
                "HIP shows no AMD device: looked for one by hipGetDeviceCount; see whether there is a card and its kernel \
                 driver (/dev/kfd), and whether HIP_VISIBLE_DEVICES hides it"
            ),
            Absent::Start(fault) => {
                write!(f, "HIP does not start: {fault}; see whether `rocminfo` works, and the driver's own log (dmesg)")
            }
        }
    }
}

impl From<Absent> for Error {
    fn from(absent: Absent) -> Self {
        Error::unsupported(absent.to_string())
    }
}

/// A version as HIP counts: 60443484 is 6.4.43484.
pub(crate) fn version(number: i32) -> String {
    format!("{}.{}.{}", number / 10_000_000, number / 100_000 % 100, number % 100_000)
}

/// The functions that are called: a line each, as in HIP's header. For each, a method of [`Hip`].
macro_rules! functions {
    ($(fn $name:ident($($argument:ident: $type:ty),* $(,)?);)*) => {
        #[allow(non_snake_case, clippy::too_many_arguments)]
        impl Hip {
            $(
                /// The function of this name.
                ///
                /// # Safety
                /// What HIP's documentation asks of the arguments.
                pub(super) unsafe fn $name(&self, $($argument: $type),*) -> Result<(), Fault> {
                    let bound: unsafe extern "C" fn($($type),*) -> hipError_t = types::$name;
                    // SAFETY: the arguments are the same. The answer is an enumeration of 32 bits without a sign, which is
                    // handed over as the number is.
                    let function: unsafe extern "C" fn($($type),*) -> u32 = unsafe { std::mem::transmute(bound) };
                    // SAFETY: the caller's promise.
                    fault(stringify!($name), unsafe { function($($argument),*) })
                }
            )*
        }
    };
}

functions! {
    fn hipDriverGetVersion(version: *mut c_int);
    fn hipGetDeviceCount(count: *mut c_int);
    fn hipDeviceGet(device: *mut hipDevice_t, ordinal: c_int);
    fn hipDeviceGetName(name: *mut c_char, length: c_int, device: hipDevice_t);
    fn hipDeviceGetUuid(uuid: *mut hipUUID, device: hipDevice_t);
    fn hipDeviceGetPCIBusId(name: *mut c_char, length: c_int, device: c_int);
    fn hipDeviceTotalMem(bytes: *mut usize, device: hipDevice_t);
    fn hipDeviceGetAttribute(value: *mut c_int, attribute: hipDeviceAttribute_t, device: c_int);
    fn hipDeviceCanAccessPeer(can: *mut c_int, device: c_int, peer: c_int);
    fn hipGetDevice(device: *mut c_int);
    fn hipSetDevice(device: c_int);
    fn hipDeviceEnablePeerAccess(peer: c_int, flags: c_uint);
    fn hipModuleLoadData(module: *mut hipModule_t, image: *const c_void);
    fn hipModuleGetFunction(function: *mut hipFunction_t, module: hipModule_t, name: *const c_char);
    fn hipModuleOccupancyMaxActiveBlocksPerMultiprocessor(
        blocks: *mut c_int, function: hipFunction_t, threads: c_int, shared: usize,
    );
    fn hipModuleLaunchKernel(
        function: hipFunction_t, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint,
        block_z: c_uint, shared: c_uint, stream: hipStream_t, arguments: *mut *mut c_void, extra: *mut *mut c_void,
    );
    fn hipStreamCreateWithFlags(stream: *mut hipStream_t, flags: c_uint);
    fn hipStreamCreateWithPriority(stream: *mut hipStream_t, flags: c_uint, priority: c_int);
    fn hipStreamDestroy(stream: hipStream_t);
    fn hipStreamQuery(stream: hipStream_t);
    fn hipStreamSynchronize(stream: hipStream_t);
    fn hipStreamWaitEvent(stream: hipStream_t, event: hipEvent_t, flags: c_uint);
    fn hipStreamIsCapturing(stream: hipStream_t, status: *mut hipStreamCaptureStatus);
    fn hipStreamBeginCapture(stream: hipStream_t, mode: hipStreamCaptureMode);
    fn hipStreamEndCapture(stream: hipStream_t, graph: *mut hipGraph_t);
    fn hipGraphDestroy(graph: hipGraph_t);
    fn hipGraphInstantiateWithFlags(executable: *mut hipGraphExec_t, graph: hipGraph_t, flags: c_ulonglong);
    fn hipGraphLaunch(executable: hipGraphExec_t, stream: hipStream_t);
    fn hipGraphExecDestroy(executable: hipGraphExec_t);
    fn hipEventCreateWithFlags(event: *mut hipEvent_t, flags: c_uint);
    fn hipEventDestroy(event: hipEvent_t);
    fn hipEventQuery(event: hipEvent_t);
    fn hipEventRecord(event: hipEvent_t, stream: hipStream_t);
    fn hipEventSynchronize(event: hipEvent_t);
    fn hipEventElapsedTime(milliseconds: *mut f32, from: hipEvent_t, to: hipEvent_t);
    fn hipExtMallocWithFlags(memory: *mut *mut c_void, bytes: usize, flags: c_uint);
    fn hipFree(memory: *mut c_void);
    fn hipMemPoolCreate(pool: *mut hipMemPool_t, properties: *const hipMemPoolProps);
    fn hipMemPoolSetAttribute(pool: hipMemPool_t, attribute: hipMemPoolAttr, value: *mut c_void);
    fn hipMemPoolTrimTo(pool: hipMemPool_t, keep: usize);
    fn hipMallocFromPoolAsync(memory: *mut *mut c_void, bytes: usize, pool: hipMemPool_t, stream: hipStream_t);
    fn hipFreeAsync(memory: *mut c_void, stream: hipStream_t);
    fn hipMemGetInfo(free: *mut usize, total: *mut usize);
    fn hipHostMalloc(memory: *mut *mut c_void, bytes: usize, flags: c_uint);
    fn hipHostRegister(memory: *mut c_void, bytes: usize, flags: c_uint);
    fn hipHostUnregister(memory: *mut c_void);
    fn hipHostGetDevicePointer(address: *mut *mut c_void, memory: *mut c_void, flags: c_uint);
    fn hipMemGetAddressRange(base: *mut hipDeviceptr_t, bytes: *mut usize, address: hipDeviceptr_t);
    fn hipMemcpyAsync(
        to: *mut c_void, from: *const c_void, bytes: usize, kind: hipMemcpyKind, stream: hipStream_t,
    );
    fn hipMemcpyPeerAsync(
        to: *mut c_void, to_device: c_int, from: *const c_void, from_device: c_int, bytes: usize, stream: hipStream_t,
    );
    fn hipMemsetD8Async(to: hipDeviceptr_t, value: u8, count: usize, stream: hipStream_t);
    fn hipMemsetD16Async(to: hipDeviceptr_t, value: u16, count: usize, stream: hipStream_t);
    fn hipMemsetD32Async(to: hipDeviceptr_t, value: c_int, count: usize, stream: hipStream_t);
    fn hipIpcGetMemHandle(handle: *mut hipIpcMemHandle_t, address: *mut c_void);
    fn hipIpcOpenMemHandle(address: *mut *mut c_void, handle: hipIpcMemHandle_t, flags: c_uint);
    fn hipIpcCloseMemHandle(address: *mut c_void);
}

impl Hip {
    /// HIP, which starts with the first call.
    pub(crate) fn get() -> Result<&'static Hip, Absent> {
        static HIP: OnceLock<Result<Hip, Absent>> = OnceLock::new();
        let look = || match gpu::count(&Hip(())) {
            Ok(0) => Err(Absent::Device),
            Ok(_) => Ok(Hip(())),
            Err(fault) if fault.code == number::NO_DEVICE => Err(Absent::Device),
            Err(fault) => Err(Absent::Start(fault)),
        };
        HIP.get_or_init(look).as_ref().map_err(Clone::clone)
    }

    /// The version of HIP: 60443484 is 6.4.43484.
    pub(crate) fn version(&self) -> Result<i32, Fault> {
        let mut version = 0;
        // SAFETY: the pointer is to an integer of ours.
        unsafe { self.hipDriverGetVersion(&mut version) }?;
        Ok(version)
    }

    /// `hipLaunchHostFunc`, which not every version has; so it must not be linked.
    ///
    /// # Safety
    /// What HIP's documentation asks of the arguments.
    pub(super) unsafe fn launch_host_function(
        &self,
        stream: hipStream_t,
        function: hipHostFn_t,
        data: *mut c_void,
    ) -> Result<(), Fault> {
        type Function = unsafe extern "C" fn(hipStream_t, hipHostFn_t, *mut c_void) -> u32;
        const CALL: &str = "hipLaunchHostFunc";
        // The type is that of the bindings, but for the answer, as of every function.
        const _: unsafe extern "C" fn(hipStream_t, hipHostFn_t, *mut c_void) -> hipError_t = types::hipLaunchHostFunc;
        // SAFETY: the name ends with a zero.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"hipLaunchHostFunc".as_ptr()) };
        if found.is_null() {
            let name = "this version of HIP has no such function".into();
            return Err(Fault { call: CALL, code: number::NOT_SUPPORTED, name });
        }
        // SAFETY: a function of this name in a process that has HIP has this type.
        let launch: Function = unsafe { std::mem::transmute(found) };
        // SAFETY: the caller's promise.
        fault(CALL, unsafe { launch(stream, function, data) })
    }
}

/// What a number means that a function answered.
fn fault(call: &'static str, code: u32) -> Result<(), Fault> {
    if code == 0 {
        return Ok(());
    }
    let bound: unsafe extern "C" fn(hipError_t) -> *const c_char = types::hipGetErrorName;
    // SAFETY: as in `functions`, for an argument; the function takes any number.
    let name_of: unsafe extern "C" fn(u32) -> *const c_char = unsafe { std::mem::transmute(bound) };
    // SAFETY: it takes any number.
    let name = unsafe { name_of(code) };
    let name = match name.is_null() {
        true => "an error without a name".into(),
        // SAFETY: a name is a constant string of the library, which stays loaded.
        false => unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned(),
    };
    Err(Fault { call, code, name })
}
