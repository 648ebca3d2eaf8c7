// SPDX-License-Identifier: MPL-2.0
//! The driver library: found at run time, each of its functions looked up before the first is called.
//!
//! The functions' types are those of cudarc's bindings, which the compiler checks below; but they are called through a
//! table of our own, for two reasons. A library or a function that is not there is an error value, where cudarc's own
//! loading panics; and a function answers a number here, because a newer driver may answer one that cudarc's
//! enumeration of results does not have, which would be undefined behaviour.
//!
//! Only functions that drivers for CUDA 12.0 have are in the table, so it works with that and everything later.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::fmt;
use std::sync::OnceLock;

use cudarc::driver::sys::{
    self, CUcontext, CUdevice, CUdevice_attribute, CUdeviceptr, CUevent, CUfunction, CUfunction_attribute, CUgraph,
    CUgraphExec, CUgraphNode, CUhostFn, CUipcMemHandle, CUmemPool_attribute, CUmemPoolProps, CUmemoryPool, CUmodule,
    CUmoduleLoadingMode, CUpointer_attribute, CUstream, CUstreamCaptureMode, CUstreamCaptureStatus, CUuuid,
};

use super::super::gpu::{self, Fault, number};
use crate::error::Error;

/// The oldest version of CUDA whose drivers will do: the embedded kernels are PTX 8.0.
const MINIMUM: i32 = 12000;

const NOT_READY: u32 = sys::CUresult::CUDA_ERROR_SYSTEM_NOT_READY as u32;
const MISMATCH: u32 = sys::CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH as u32;

/// The names under which the library is looked for.
const NAMES: [&str; 2] = ["libcuda.so.1", "libcuda.so"];

/// Why CUDA cannot be used here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Absent {
    /// There is no driver library; what the loader said of each name.
    Library(Vec<String>),
    /// The library lacks a function.
    Symbol(&'static str),
    /// The driver is for this older version of CUDA.
    Version(i32),
    /// The driver shows no device.
    Device,
    /// The driver did not start.
    Start(Fault),
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Absent::Library(answers) => write!(
                f,
                "there is no NVIDIA driver on this machine: looked for {} ({}); install the driver, or put its library \
                 where the loader looks",
                NAMES.join(" and "),
                answers.join("; ")
            ),
            Absent::Symbol(name) => write!(
                f,
                "the driver library has no function {name}; Annulus needs a driver for CUDA {} or later",
                version(MINIMUM)
            ),
            Absent::Version(found) => write!(
                f,
                "the driver is for CUDA {}; Annulus needs one for CUDA {} or later",
                version(*found),
                version(MINIMUM)
            ),
            Absent::Device => write!(
                f,
                "the NVIDIA driver shows no device: looked for one by cuInit and cuDeviceGetCount; see whether there is a \
                 card, and whether CUDA_VISIBLE_DEVICES hides it"
            ),
            Absent::Start(fault) => {
                let remedy = match fault.code {
                    NOT_READY => {
                        "start what the machine needs beside it, as nvidia-fabricmanager where cards are linked"
                    }
                    MISMATCH => "its library and its kernel module are of two versions; restart the machine",
                    _ => "see whether `nvidia-smi` works, and the driver's own log (dmesg)",
                };
                write!(f, "the NVIDIA driver does not start: {fault}; {remedy}")
            }
        }
    }
}

impl From<Absent> for Error {
    fn from(absent: Absent) -> Self {
        Error::unsupported(absent.to_string())
    }
}

/// A version as CUDA counts: 12080 is 12.8.
pub(crate) fn version(number: i32) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}

// The numbers that mean something are those that the room knows.
const _: () = assert!(
    sys::CUresult::CUDA_ERROR_NO_DEVICE as u32 == number::NO_DEVICE
        && sys::CUresult::CUDA_ERROR_INVALID_DEVICE as u32 == number::INVALID_DEVICE
        && sys::CUresult::CUDA_ERROR_INVALID_CONTEXT as u32 == number::INVALID_CONTEXT
        && sys::CUresult::CUDA_ERROR_ALREADY_MAPPED as u32 == number::ALREADY_MAPPED
        && sys::CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU as u32 == number::NO_BINARY
        && sys::CUresult::CUDA_ERROR_NOT_READY as u32 == number::NOT_READY
        && sys::CUresult::CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED as u32 == number::PEER_ACCESS_ALREADY_ENABLED
        && sys::CUresult::CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE as u32 == number::TOO_MANY_BLOCKS
        && sys::CUresult::CUDA_ERROR_NOT_SUPPORTED as u32 == number::NOT_SUPPORTED
);

/// The functions that are called: a line each, as in the driver's header. For each, a method of [`Driver`].
macro_rules! functions {
    ($(fn $name:ident($($argument:ident: $type:ty),* $(,)?);)*) => {
        #[allow(non_snake_case)]
        struct Functions {
            $($name: unsafe extern "C" fn($($type),*) -> u32,)*
        }

        // cudarc's bindings have the same arguments; they answer an enumeration of 32 bits where we take the bits.
        $(const _: unsafe fn($($type),*) -> sys::CUresult = sys::$name;)*
        const _: () = assert!(size_of::<sys::CUresult>() == size_of::<u32>());

        impl Functions {
            /// # Safety
            /// The library is NVIDIA's driver library, or one with the same interface.
            unsafe fn look_up(library: &libloading::Library) -> Result<Self, Absent> {
                Ok(Functions {
                    // SAFETY: a function of this name in that library has this type (see above, and the caller).
                    $($name: *unsafe { library.get(concat!(stringify!($name), "\0").as_bytes()) }
                        .map_err(|_| Absent::Symbol(stringify!($name)))?,)*
                })
            }
        }

        #[allow(non_snake_case, clippy::too_many_arguments, clippy::missing_safety_doc)]
        impl Driver {
            $(
                /// The function of this name.
                ///
                /// # Safety
                /// What the driver's documentation asks of the arguments.
                pub unsafe fn $name(&self, $($argument: $type),*) -> Result<(), Fault> {
                    // SAFETY: the caller's promise.
                    match unsafe { (self.functions.$name)($($argument),*) } {
                        0 => Ok(()),
                        code => Err(self.fault(stringify!($name), code)),
                    }
                }
            )*
        }
    };
}

functions! {
    fn cuInit(flags: c_uint);
    fn cuDriverGetVersion(version: *mut c_int);
    fn cuDeviceGetCount(count: *mut c_int);
    fn cuDeviceGet(device: *mut CUdevice, ordinal: c_int);
    fn cuDeviceGetName(name: *mut c_char, len: c_int, device: CUdevice);
    fn cuDeviceGetUuid_v2(uuid: *mut CUuuid, device: CUdevice);
    fn cuDeviceGetPCIBusId(name: *mut c_char, len: c_int, device: CUdevice);
    fn cuDeviceTotalMem_v2(bytes: *mut usize, device: CUdevice);
    fn cuDeviceGetAttribute(value: *mut c_int, attribute: CUdevice_attribute, device: CUdevice);
    fn cuDeviceCanAccessPeer(can: *mut c_int, device: CUdevice, peer: CUdevice);
    fn cuDevicePrimaryCtxRetain(context: *mut CUcontext, device: CUdevice);
    fn cuDevicePrimaryCtxRelease_v2(device: CUdevice);
    fn cuCtxPushCurrent_v2(context: CUcontext);
    fn cuCtxPopCurrent_v2(context: *mut CUcontext);
    fn cuCtxEnablePeerAccess(peer: CUcontext, flags: c_uint);
    fn cuCtxSetCurrent(context: CUcontext);
    fn cuCtxSynchronize();
    fn cuModuleGetLoadingMode(mode: *mut CUmoduleLoadingMode);
    fn cuModuleLoadData(module: *mut CUmodule, image: *const c_void);
    fn cuModuleUnload(module: CUmodule);
    fn cuModuleGetFunction(function: *mut CUfunction, module: CUmodule, name: *const c_char);
    fn cuFuncGetAttribute(value: *mut c_int, attribute: CUfunction_attribute, function: CUfunction);
    fn cuFuncSetAttribute(function: CUfunction, attribute: CUfunction_attribute, value: c_int);
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
        blocks: *mut c_int, function: CUfunction, threads: c_int, shared: usize,
    );
    fn cuLaunchKernel(
        function: CUfunction, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint,
        block_z: c_uint, shared: c_uint, stream: CUstream, arguments: *mut *mut c_void, extra: *mut *mut c_void,
    );
    fn cuLaunchCooperativeKernel(
        function: CUfunction, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint,
        block_z: c_uint, shared: c_uint, stream: CUstream, arguments: *mut *mut c_void,
    );
    fn cuStreamCreate(stream: *mut CUstream, flags: c_uint);
    fn cuStreamCreateWithPriority(stream: *mut CUstream, flags: c_uint, priority: c_int);
    fn cuStreamDestroy_v2(stream: CUstream);
    fn cuStreamQuery(stream: CUstream);
    fn cuStreamSynchronize(stream: CUstream);
    fn cuStreamWaitEvent(stream: CUstream, event: CUevent, flags: c_uint);
    fn cuLaunchHostFunc(stream: CUstream, function: CUhostFn, data: *mut c_void);
    fn cuStreamWriteValue32_v2(stream: CUstream, address: CUdeviceptr, value: u32, flags: c_uint);
    fn cuStreamWaitValue32_v2(stream: CUstream, address: CUdeviceptr, value: u32, flags: c_uint);
    fn cuStreamIsCapturing(stream: CUstream, status: *mut CUstreamCaptureStatus);
    fn cuStreamBeginCapture_v2(stream: CUstream, mode: CUstreamCaptureMode);
    fn cuStreamEndCapture(stream: CUstream, graph: *mut CUgraph);
    fn cuThreadExchangeStreamCaptureMode(mode: *mut CUstreamCaptureMode);
    fn cuGraphGetNodes(graph: CUgraph, nodes: *mut CUgraphNode, count: *mut usize);
    fn cuGraphDestroy(graph: CUgraph);
    fn cuGraphExecDestroy(executable: CUgraphExec);
    fn cuGraphInstantiateWithFlags(executable: *mut CUgraphExec, graph: CUgraph, flags: c_ulonglong);
    fn cuGraphUpload(executable: CUgraphExec, stream: CUstream);
    fn cuGraphLaunch(executable: CUgraphExec, stream: CUstream);
    fn cuEventCreate(event: *mut CUevent, flags: c_uint);
    fn cuEventDestroy_v2(event: CUevent);
    fn cuEventQuery(event: CUevent);
    fn cuEventRecord(event: CUevent, stream: CUstream);
    fn cuEventSynchronize(event: CUevent);
    fn cuEventElapsedTime(milliseconds: *mut f32, from: CUevent, to: CUevent);
    fn cuMemAlloc_v2(address: *mut CUdeviceptr, bytes: usize);
    fn cuMemFree_v2(address: CUdeviceptr);
    fn cuMemAllocAsync(address: *mut CUdeviceptr, bytes: usize, stream: CUstream);
    fn cuMemAllocFromPoolAsync(address: *mut CUdeviceptr, bytes: usize, pool: CUmemoryPool, stream: CUstream);
    fn cuMemFreeAsync(address: CUdeviceptr, stream: CUstream);
    fn cuMemPoolCreate(pool: *mut CUmemoryPool, properties: *const CUmemPoolProps);
    fn cuMemPoolSetAttribute(pool: CUmemoryPool, attribute: CUmemPool_attribute, value: *mut c_void);
    fn cuMemPoolTrimTo(pool: CUmemoryPool, keep: usize);
    fn cuMemHostAlloc(memory: *mut *mut c_void, bytes: usize, flags: c_uint);
    fn cuMemFreeHost(memory: *mut c_void);
    fn cuMemHostRegister_v2(memory: *mut c_void, bytes: usize, flags: c_uint);
    fn cuMemHostUnregister(memory: *mut c_void);
    fn cuMemHostGetDevicePointer_v2(address: *mut CUdeviceptr, memory: *mut c_void, flags: c_uint);
    fn cuMemGetAddressRange_v2(base: *mut CUdeviceptr, bytes: *mut usize, address: CUdeviceptr);
    fn cuPointerGetAttribute(value: *mut c_void, attribute: CUpointer_attribute, address: CUdeviceptr);
    fn cuMemcpyHtoD_v2(to: CUdeviceptr, from: *const c_void, bytes: usize);
    fn cuMemcpyDtoH_v2(to: *mut c_void, from: CUdeviceptr, bytes: usize);
    fn cuMemcpyDtoDAsync_v2(to: CUdeviceptr, from: CUdeviceptr, bytes: usize, stream: CUstream);
    fn cuMemcpyAsync(to: CUdeviceptr, from: CUdeviceptr, bytes: usize, stream: CUstream);
    fn cuMemcpyPeerAsync(
        to: CUdeviceptr, to_context: CUcontext, from: CUdeviceptr, from_context: CUcontext, bytes: usize,
        stream: CUstream,
    );
    fn cuMemsetD8Async(to: CUdeviceptr, value: u8, count: usize, stream: CUstream);
    fn cuMemsetD16Async(to: CUdeviceptr, value: u16, count: usize, stream: CUstream);
    fn cuMemsetD32Async(to: CUdeviceptr, value: c_uint, count: usize, stream: CUstream);
    fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize);
    fn cuIpcGetMemHandle(handle: *mut CUipcMemHandle, address: CUdeviceptr);
    fn cuIpcOpenMemHandle_v2(address: *mut CUdeviceptr, handle: CUipcMemHandle, flags: c_uint);
    fn cuIpcCloseMemHandle(address: CUdeviceptr);
}

/// The type of `cuGetErrorName`, which takes any number and refuses those that have no name.
type ErrorName = unsafe extern "C" fn(u32, *mut *const c_char) -> u32;

/// The type of `cuFuncLoad`, which drivers for CUDA 12.4 and later have.
type LoadFunction = unsafe extern "C" fn(CUfunction) -> u32;

/// The driver library, loaded and started.
pub(crate) struct Driver {
    functions: Functions,
    error_name: ErrorName,
    load_function: Option<LoadFunction>,
    // What the functions point into.
    _library: libloading::Library,
}

impl Driver {
    /// The driver, loaded and started once in a process. It shows at least one device.
    pub fn get() -> Result<&'static Driver, Absent> {
        static DRIVER: OnceLock<Result<Driver, Absent>> = OnceLock::new();
        DRIVER.get_or_init(Driver::load).as_ref().map_err(Clone::clone)
    }

    fn load() -> Result<Driver, Absent> {
        let mut answers = Vec::new();
        // SAFETY: Loading a library runs its initialisers. Those of a library of this name are NVIDIA's, which every
        // program that uses the device runs.
        let found = NAMES.iter().find_map(|name| match unsafe { libloading::Library::new(*name) } {
            Ok(library) => Some(library),
            Err(error) => {
                let why = std::error::Error::source(&error).map(ToString::to_string);
                answers.push(why.unwrap_or_else(|| error.to_string()));
                None
            }
        });
        let library = found.ok_or(Absent::Library(answers))?;
        // SAFETY: the library is the driver's, by its name.
        let functions = unsafe { Functions::look_up(&library) }?;
        // SAFETY: the type is the driver's, with a number for its enumeration of 32 bits.
        let error_name: ErrorName =
            *unsafe { library.get(b"cuGetErrorName\0") }.map_err(|_| Absent::Symbol("cuGetErrorName"))?;
        // SAFETY: as above; a driver without this function is asked otherwise (`load`).
        let load_function = unsafe { library.get(b"cuFuncLoad\0") }.ok().map(|function| *function);
        let driver = Driver { functions, error_name, load_function, _library: library };
        let found = driver.version().map_err(Absent::Start)?;
        if found < MINIMUM {
            return Err(Absent::Version(found));
        }
        let started =
            |fault: Fault| if fault.code == number::NO_DEVICE { Absent::Device } else { Absent::Start(fault) };
        // SAFETY: the one value that the flags may have.
        unsafe { driver.cuInit(0) }.map_err(started)?;
        match gpu::count(&driver).map_err(started)? {
            0 => Err(Absent::Device),
            _ => Ok(driver),
        }
    }

    /// The version of CUDA that the driver is for: 12080 is 12.8.
    pub fn version(&self) -> Result<i32, Fault> {
        let mut version = 0;
        // SAFETY: the pointer is to an integer of ours.
        unsafe { self.cuDriverGetVersion(&mut version) }?;
        Ok(version)
    }

    /// Loads the code of a function now, if the driver can be told to. Since CUDA 12.4 it can.
    ///
    /// # Safety
    /// The function is of a module of the current context.
    pub unsafe fn load_now(&self, function: CUfunction) -> Result<(), Fault> {
        // SAFETY: the caller's promise.
        match self.load_function.map_or(0, |load| unsafe { load(function) }) {
            0 => Ok(()),
            code => Err(self.fault("cuFuncLoad", code)),
        }
    }

    pub(super) fn fault(&self, call: &'static str, code: u32) -> Fault {
        let mut name = std::ptr::null();
        // SAFETY: the pointer is to a pointer of ours.
        let name = match unsafe { (self.error_name)(code, &mut name) } {
            // SAFETY: a name that there is, is a constant string of the library, which stays loaded.
            0 if !name.is_null() => unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned(),
            _ => "an error without a name".into(),
        };
        Fault { call, code, name }
    }
}
