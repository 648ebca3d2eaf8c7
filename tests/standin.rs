// SPDX-License-Identifier: MPL-2.0
//! The stand-in for the CUDA driver answers as a driver does, as far as that can be seen from outside.

#![allow(unsafe_code)]
#![allow(non_snake_case)] // the driver's names

mod compiler;
#[path = "standin/mod.rs"]
mod standin;

use std::ffi::{CStr, c_char, c_void};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};

type Address = u64;
type Handle = *mut c_void;

#[repr(C)]
#[derive(Clone, Copy)]
struct IpcHandle([u8; 64]);

/// `CUmemPoolProps`: kind of memory, of handles, of place; which place; and what is zeros.
#[repr(C)]
struct PoolProperties([i32; 4], [u64; 9]);

/// Declares the driver's functions as methods that look them up when called.
macro_rules! functions {
    ($($name:ident($($argument:ident: $kind:ty),*);)*) => {
        impl Driver {
            $(#[allow(clippy::too_many_arguments)] // as many as the driver's function has
            fn $name(&self, $($argument: $kind),*) -> i32 {
                // SAFETY: the stand-in defines the function with these argument types, as the CUDA driver does, and the
                // library is never unloaded. What the pointers must point to, each call below says by its shape.
                unsafe {
                    let function = self.library.get::<unsafe extern "C" fn($($kind),*) -> i32>(stringify!($name));
                    function.expect("the stand-in has the function")($($argument),*)
                }
            })*
        }
    };
}

functions! {
    cuInit(flags: u32);
    cuDriverGetVersion(version: *mut i32);
    cuDeviceGetCount(count: *mut i32);
    cuDeviceGet(device: *mut i32, ordinal: i32);
    cuDeviceGetName(name: *mut c_char, length: i32, device: i32);
    cuDeviceTotalMem_v2(bytes: *mut usize, device: i32);
    cuDeviceGetAttribute(value: *mut i32, which: i32, device: i32);
    cuDevicePrimaryCtxRetain(context: *mut Handle, device: i32);
    cuDevicePrimaryCtxRelease_v2(device: i32);
    cuCtxSetCurrent(context: Handle);
    cuCtxSynchronize();
    cuModuleGetLoadingMode(mode: *mut i32);
    cuModuleLoadData(module: *mut Handle, image: *const c_void);
    cuModuleUnload(module: Handle);
    cuModuleGetFunction(function: *mut Handle, module: Handle, name: *const c_char);
    cuFuncGetAttribute(value: *mut i32, which: i32, function: Handle);
    cuFuncSetAttribute(function: Handle, which: i32, value: i32);
    cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks: *mut i32, function: Handle, threads: i32, shared: usize);
    cuLaunchKernel(function: Handle, gx: u32, gy: u32, gz: u32, bx: u32, by: u32, bz: u32, shared: u32, stream: Handle,
        parameters: *mut *mut c_void, extra: *mut *mut c_void);
    cuLaunchCooperativeKernel(function: Handle, gx: u32, gy: u32, gz: u32, bx: u32, by: u32, bz: u32, shared: u32,
        stream: Handle, parameters: *mut *mut c_void);
    cuStreamCreate(stream: *mut Handle, flags: u32);
    cuStreamDestroy_v2(stream: Handle);
    cuStreamSynchronize(stream: Handle);
    cuStreamQuery(stream: Handle);
    cuStreamWaitEvent(stream: Handle, event: Handle, flags: u32);
    cuStreamWriteValue32_v2(stream: Handle, address: Address, value: u32, flags: u32);
    cuStreamWaitValue32_v2(stream: Handle, address: Address, value: u32, flags: u32);
    cuStreamBeginCapture_v2(stream: Handle, mode: i32);
    cuStreamEndCapture(stream: Handle, graph: *mut Handle);
    cuGraphGetNodes(graph: Handle, nodes: *mut Handle, count: *mut usize);
    cuGraphInstantiateWithFlags(exec: *mut Handle, graph: Handle, flags: u64);
    cuGraphLaunch(exec: Handle, stream: Handle);
    cuGraphDestroy(graph: Handle);
    cuGraphExecDestroy(exec: Handle);
    cuEventCreate(event: *mut Handle, flags: u32);
    cuEventRecord(event: Handle, stream: Handle);
    cuEventQuery(event: Handle);
    cuEventSynchronize(event: Handle);
    cuEventElapsedTime(milliseconds: *mut f32, from: Handle, to: Handle);
    cuEventDestroy_v2(event: Handle);
    cuMemAlloc_v2(address: *mut Address, bytes: usize);
    cuMemFree_v2(address: Address);
    cuMemAllocAsync(address: *mut Address, bytes: usize, stream: Handle);
    cuMemFreeAsync(address: Address, stream: Handle);
    cuMemPoolCreate(pool: *mut Handle, properties: *const PoolProperties);
    cuMemPoolSetAttribute(pool: Handle, which: i32, value: *const u64);
    cuMemPoolTrimTo(pool: Handle, least: usize);
    cuMemAllocFromPoolAsync(address: *mut Address, bytes: usize, pool: Handle, stream: Handle);
    cuMemHostAlloc(address: *mut *mut c_void, bytes: usize, flags: u32);
    cuMemFreeHost(address: *mut c_void);
    cuMemHostGetDevicePointer_v2(address: *mut Address, host: *mut c_void, flags: u32);
    cuMemGetAddressRange_v2(base: *mut Address, bytes: *mut usize, address: Address);
    cuMemcpyHtoD_v2(to: Address, from: *const c_void, bytes: usize);
    cuMemcpyDtoH_v2(to: *mut c_void, from: Address, bytes: usize);
    cuMemcpyDtoDAsync_v2(to: Address, from: Address, bytes: usize, stream: Handle);
    cuMemsetD8Async(to: Address, value: u8, count: usize, stream: Handle);
    cuMemsetD32Async(to: Address, value: u32, count: usize, stream: Handle);
    cuMemGetInfo_v2(free: *mut usize, total: *mut usize);
    cuIpcGetMemHandle(handle: *mut IpcHandle, address: Address);
    cuIpcOpenMemHandle_v2(address: *mut Address, handle: IpcHandle, flags: u32);
    cuIpcCloseMemHandle(address: Address);
    cuGetErrorName(error: i32, text: *mut *const c_char);
    cuGetErrorString(error: i32, text: *mut *const c_char);
}

struct Driver {
    library: libloading::Library,
}

impl Driver {
    fn open(folder: &Path) -> Driver {
        // SAFETY: what runs when the stand-in is loaded only builds a list of kernels.
        let library = unsafe { libloading::Library::new(folder.join("libcuda.so.1")) };
        Driver { library: library.expect("the stand-in can be loaded") }
    }

    /// With a context of device 0, current on this thread.
    fn ready(folder: &Path) -> Driver {
        let driver = Driver::open(folder);
        assert_eq!(driver.cuInit(0), 0);
        let mut context = null_mut();
        assert_eq!(driver.cuDevicePrimaryCtxRetain(&mut context, 0), 0);
        assert_eq!(driver.cuCtxSetCurrent(context), 0);
        driver
    }

    fn stream(&self, flags: u32) -> Handle {
        let mut stream = null_mut();
        assert_eq!(self.cuStreamCreate(&mut stream, flags), 0);
        stream
    }

    fn event(&self) -> Handle {
        let mut event = null_mut();
        assert_eq!(self.cuEventCreate(&mut event, 0), 0);
        event
    }

    /// Zeroed words of device memory.
    fn words(&self, count: usize) -> Address {
        let mut address = 0;
        assert_eq!(self.cuMemAlloc_v2(&mut address, 4 * count), 0);
        assert_eq!(self.cuMemsetD32Async(address, 0, count, null_mut()), 0);
        assert_eq!(self.cuStreamSynchronize(null_mut()), 0);
        address
    }

    fn read<const N: usize>(&self, address: Address) -> [u32; N] {
        let mut words = [0; N];
        assert_eq!(self.cuMemcpyDtoH_v2(words.as_mut_ptr().cast(), address, 4 * N), 0);
        words
    }

    /// A pinned word, which the host may touch while kernels do.
    fn pinned(&self) -> (&'static AtomicU32, Address) {
        let mut host = null_mut();
        let mut address = 0;
        assert_eq!(self.cuMemHostAlloc(&mut host, 64, 3), 0);
        assert_eq!(self.cuMemHostGetDevicePointer_v2(&mut address, host, 0), 0);
        // SAFETY: 64 fresh bytes, zeroed and aligned to a page, that these tests never free; everybody who touches the
        // word does so atomically.
        (unsafe { &*host.cast::<AtomicU32>() }, address)
    }

    fn load(&self, image: &CStr) -> Result<Handle, i32> {
        let mut module = null_mut();
        match self.cuModuleLoadData(&mut module, image.as_ptr().cast()) {
            0 => Ok(module),
            error => Err(error),
        }
    }

    fn function(&self, name: &CStr) -> Handle {
        let module = self.load(&ptx("8.0", "sm_90")).expect("the image is right");
        let mut function = null_mut();
        assert_eq!(self.cuModuleGetFunction(&mut function, module, name.as_ptr()), 0);
        function
    }

    fn launch<A>(&self, function: Handle, blocks: u32, threads: u32, stream: Handle, mut arguments: A) -> i32 {
        let mut parameters = [(&raw mut arguments).cast::<c_void>()];
        self.cuLaunchKernel(function, blocks, 1, 1, threads, 1, 1, 0, stream, parameters.as_mut_ptr(), null_mut())
    }
}

/// The probes' PTX as checked in, but of that version and for that target.
fn ptx(version: &str, target: &str) -> std::ffi::CString {
    let text = include_str!("../kernels/ptx/probe.sm_75.ptx");
    let text = text.replacen(".version 8.0", &format!(".version {version}"), 1);
    let text = text.replacen(".target sm_75", &format!(".target {target}"), 1);
    std::ffi::CString::new(text).expect("no zero in it")
}

// Arguments of kernels/probe.cu.

#[repr(C)]
struct Advance {
    epoch: Address,
    kept: Address,
    length: u32,
}

#[repr(C)]
struct Meet {
    arrivals: Address,
    ended: Address,
    abort: Address,
    patience: u64,
    expected: u32,
}

#[repr(C)]
struct Wait {
    counter: Address,
    abort: Address,
    begun: Address,
    out: Address,
    patience: u64,
    value: u32,
}

/// A kernel that runs on a stream until `counter` is raised.
struct Waiting {
    counter: &'static AtomicU32,
    out: Address,
}

impl Waiting {
    fn begin(driver: &Driver, stream: Handle) -> Waiting {
        let (counter, counter_address) = driver.pinned();
        let (begun, begun_address) = driver.pinned();
        let (_, abort) = driver.pinned();
        let (_, out) = driver.pinned();
        let arguments = Wait { counter: counter_address, abort, begun: begun_address, out, patience: MINUTE, value: 1 };
        assert_eq!(driver.launch(driver.function(c"probe_wait"), 1, 32, stream, arguments), 0);
        while begun.load(Ordering::Acquire) == 0 {
            std::thread::yield_now();
        }
        Waiting { counter, out }
    }

    fn end(&self) {
        self.counter.store(1, Ordering::Release);
    }
}

const MINUTE: u64 = 60_000_000_000;

/// The tests share one device of one process, and captures and synchronisation concern all of it.
fn alone() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Runs one of the tests below that are ignored in a process of its own, whose environment is as asked.
fn child(test: &str, environment: &[(&str, &str)]) -> Child {
    Command::new(std::env::current_exe().expect("the test has a path"))
        .args(["--exact", test, "--ignored", "--nocapture"])
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the test can start itself")
}

fn passes(test: &str, environment: &[(&str, &str)]) {
    if standin::library().is_none() {
        return;
    }
    let output = child(test, environment).wait_with_output().expect("the child ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn names_say_that_it_is_a_stand_in() {
    let (_guard, Some(folder)) = (alone(), standin::library()) else { return };
    let driver = Driver::ready(&folder);
    let mut name = [0; 64];
    assert_eq!(driver.cuDeviceGetName(name.as_mut_ptr(), 64, 0), 0);
    // SAFETY: the call has written a string that ends within the 64 bytes.
    assert_eq!(unsafe { CStr::from_ptr(name.as_ptr()) }, c"stand-in, no GPU");
    let mut text = null();
    assert_eq!(driver.cuGetErrorName(720, &mut text), 0);
    // SAFETY: the call has answered a string that is never freed.
    assert_eq!(unsafe { CStr::from_ptr(text) }, c"CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE");
    assert_eq!(driver.cuGetErrorString(1, &mut text), 0);
    // SAFETY: as above.
    assert_eq!(unsafe { CStr::from_ptr(text) }, c"stand-in: invalid argument");
    assert_eq!(driver.cuGetErrorName(12345, &mut text), 1);
    assert!(text.is_null());
}

#[test]
fn the_device_is_what_its_model_says() {
    let (_guard, Some(folder)) = (alone(), standin::library()) else { return };
    let driver = Driver::ready(&folder);
    let (mut version, mut count, mut device, mut bytes, mut mode) = (0, 0, 9, 0, 0);
    assert_eq!((driver.cuDriverGetVersion(&mut version), version), (0, 12080));
    assert_eq!((driver.cuDeviceGetCount(&mut count), count), (0, 1));
    assert_eq!((driver.cuDeviceGet(&mut device, 0), device), (0, 0));
    assert_eq!(driver.cuDeviceGet(&mut device, 1), 101);
    assert_eq!((driver.cuDeviceTotalMem_v2(&mut bytes, 0), bytes), (0, 128 << 20));
    assert_eq!((driver.cuModuleGetLoadingMode(&mut mode), mode), (0, 2));
    for (which, expected) in [(16, 4), (39, 2048), (75, 9), (76, 0), (95, 1), (106, 32)] {
        let mut value = -1;
        assert_eq!((driver.cuDeviceGetAttribute(&mut value, which, 0), value), (0, expected));
    }
    assert_eq!(driver.cuDeviceGetAttribute(&mut count, 0, 0), 1);
}

#[test]
#[ignore = "started by others"]
fn child_without_context() {
    let driver = Driver::open(&standin::library().expect("the one who started this has it"));
    let mut address = 0;
    assert_eq!(driver.cuMemAlloc_v2(&mut address, 16), 3);
    assert_eq!((driver.cuInit(1), driver.cuInit(0)), (1, 0));
    assert_eq!(driver.cuMemAlloc_v2(&mut address, 16), 201);
    assert_eq!(driver.cuCtxSynchronize(), 201);
    let mut context = null_mut();
    assert_eq!(driver.cuDevicePrimaryCtxRelease_v2(0), 201);
    assert_eq!(driver.cuDevicePrimaryCtxRetain(&mut context, 2), 0);
    assert_eq!(driver.cuDevicePrimaryCtxRetain(&mut context, 3), 101);
    assert_eq!(driver.cuCtxSetCurrent(context), 0);
    assert_eq!(driver.cuMemAlloc_v2(&mut address, 16), 0);
    // Another thread has no context yet.
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(driver.cuMemFree_v2(address), 201));
    });
    // The last release ends everything.
    assert_eq!(driver.cuDevicePrimaryCtxRelease_v2(2), 0);
    assert_eq!(driver.cuMemFree_v2(address), 201);
    assert_eq!(driver.cuDevicePrimaryCtxRetain(&mut context, 2), 0);
    assert_eq!(driver.cuMemFree_v2(address), 1);
}

#[test]
fn nothing_works_without_a_context() {
    passes("child_without_context", &[("STANDIN_DEVICES", "3")]);
}

#[test]
#[ignore = "started by others"]
fn child_with_switches() {
    let driver = Driver::open(&standin::library().expect("the one who started this has it"));
    let mut version = 0;
    assert_eq!((driver.cuDriverGetVersion(&mut version), version), (0, 11080));
    assert_eq!(driver.cuInit(0), 100);
    assert_eq!(driver.cuCtxSynchronize(), 801);
    println!("hanging");
    driver.cuGetErrorName(0, &mut null());
    unreachable!("it was to hang");
}

#[test]
fn switches_make_calls_fail_and_hang() {
    if standin::library().is_none() {
        return;
    }
    let mut child = child(
        "child_with_switches",
        &[
            ("STANDIN_DEVICES", "0"),
            ("STANDIN_VERSION", "11080"),
            ("STANDIN_FAIL", "cuCtxSynchronize=801,cuMemAlloc_v2=2"),
            ("STANDIN_HANG", "cuGetErrorName"),
        ],
    );
    let lines = BufReader::new(child.stdout.take().expect("it is a pipe")).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.ends_with("hanging")));
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(child.try_wait().expect("the child can be asked").is_none());
    child.kill().expect("the child can be killed");
    child.wait().expect("the child ends");
}

#[test]
fn a_library_may_lack_a_function() {
    let (_guard, Some(folder)) = (alone(), standin::library_without("cuStreamWaitValue32_v2")) else { return };
    let driver = Driver::open(&folder);
    // SAFETY: the function is looked up and not called.
    unsafe {
        assert!(driver.library.get::<unsafe extern "C" fn()>("cuStreamWaitValue32_v2").is_err());
        assert!(driver.library.get::<unsafe extern "C" fn()>("cuStreamWriteValue32_v2").is_ok());
    }
}

#[test]
fn memory_is_checked() {
    let (_guard, Some(folder)) = (alone(), standin::library()) else { return };
    let driver = Driver::ready(&folder);
    let (mut free, mut total, mut after) = (0, 0, 0);
    assert_eq!(driver.cuMemGetInfo_v2(&mut free, &mut total), 0);
    let address = driver.words(1000);
    assert_eq!((driver.cuMemGetInfo_v2(&mut after, &mut total), free - after), (0, 4000));
    assert_eq!(driver.cuMemsetD8Async(address, 1, 4000, null_mut()), 0);
    assert_eq!(driver.cuMemsetD32Async(address + 8, 7, 1, null_mut()), 0);
    assert_eq!(driver.cuMemcpyDtoDAsync_v2(address + 400, address, 16, null_mut()), 0);
    assert_eq!(driver.read(address + 400), [0x01010101, 0x01010101, 7, 0x01010101]);
    let (mut base, mut bytes) = (0, 0);
    assert_eq!(driver.cuMemGetAddressRange_v2(&mut base, &mut bytes, address + 3999), 0);
    assert_eq!((base, bytes), (address, 4000));
    let mut word = 0u32;
    // Beyond the end; nowhere; misaligned; too much; nothing; an address inside.
    assert_eq!(driver.cuMemcpyDtoH_v2((&raw mut word).cast(), address + 3998, 4), 1);
    assert_eq!(driver.cuMemcpyHtoD_v2(4096, (&raw const word).cast(), 4), 1);
    assert_eq!(driver.cuMemsetD32Async(address + 2, 0, 1, null_mut()), 1);
    assert_eq!(driver.cuMemAlloc_v2(&mut base, total + 1), 2);
    assert_eq!(driver.cuMemAlloc_v2(&mut base, 0), 1);
    assert_eq!(driver.cuMemFree_v2(address + 4), 1);
    assert_eq!(driver.cuMemFree_v2(address), 0);
    assert_eq!(driver.cuMemFree_v2(address), 1);
    // The pool's, in the order of a stream.
    let stream = driver.stream(1);
    assert_eq!(driver.cuMemAllocAsync(&mut base, 64, stream), 0);
    assert_eq!(driver.cuMemsetD8Async(base, 3, 64, stream), 0);
    assert_eq!((driver.cuMemFreeAsync(base, stream), driver.cuStreamSynchronize(stream)), (0, 0));
    assert_eq!(driver.cuMemFreeAsync(base, stream), 1);
    // Pinned memory has no address but its own, and device memory none for the host.
    let (pinned, pinned_address) = driver.pinned();
    assert_eq!(std::ptr::from_ref(pinned) as Address, pinned_address);
    assert_eq!(driver.cuMemFreeHost(driver.words(1) as *mut c_void), 1);
    assert_eq!(driver.cuMemFree_v2(pinned_address), 1);
    assert_eq!(driver.cuMemFreeHost(pinned_address as *mut c_void), 0);
}

#[test]
fn a_pool_keeps_what_its_threshold_says() {
    let (_guard, Some(folder)) = (alone(), standin::library()) else { return };
    let driver = Driver::ready(&folder);
    let stream = driver.stream(1);
    let free = || {
        let (mut free, mut total) = (0, 0);
        assert_eq!((driver.cuStreamSynchronize(stream), driver.cuMemGetInfo_v2(&mut free, &mut total)), (0, 0));
        free
    };
    let (mut pool, mut address) = (null_mut(), 0);
    // Of the host, with handles, of no device, with something in what is reserved.
    for (place, reserved, answer) in
        [([1, 0, 2, 0], 0, 1), ([1, 1, 1, 0], 0, 801), ([1, 0, 1, 1], 0, 101), ([1, 0, 1, 0], 1, 1)]
    {
        assert_eq!(
            driver.cuMemPoolCreate(&mut pool, &PoolProperties(place, [0, 0, 0, 0, 0, 0, 0, 0, reserved])),
            answer
        );
    }
    assert_eq!(driver.cuMemPoolCreate(&mut pool, &PoolProperties([1, 0, 1, 0], [0; 9])), 0);
    let begin = free();
    for (threshold, kept) in [(0, 0), (100, 100), (u64::MAX, 1000)] {
        assert_eq!(driver.cuMemPoolSetAttribute(pool, 4, &threshold), 0);
        assert_eq!(driver.cuMemAllocFromPoolAsync(&mut address, 1000, pool, stream), 0);
        assert_eq!(free(), begin - 1000);
        assert_eq!(driver.cuMemFreeAsync(address, stream), 0);
        assert_eq!(free(), begin - kept);
    }
    // What is free in it is taken first.
    assert_eq!(driver.cuMemAllocFromPoolAsync(&mut address, 600, pool, stream), 0);
    assert_eq!(free(), begin - 1000);
    assert_eq!(driver.cuMemPoolTrimTo(pool, 150), 0);
    assert_eq!(free(), begin - 750);
    assert_eq!((driver.cuMemFreeAsync(address, stream), driver.cuMemPoolTrimTo(pool, 0)), (0, 0));
    assert_eq!(free(), begin);
    assert_eq!(driver.cuMemPoolSetAttribute(pool, 3, &1), 1);
    assert_eq!(driver.cuMemAllocFromPoolAsync(&mut address, 600, stream, stream), 1);
}

#[test]
fn modules_are_judged() {
    let (_guard, Some(folder)) = (alone(), standin::library()) else { return };
    let driver = Driver::ready(&folder);
    for (version, target, answer) in
        [("9.0", "sm_90", 222), ("8.8", "sm_100", 209), ("8.0", "sm_", 218), ("x", "", 218)]
    {
        assert_eq!(driver.load(&ptx(version, target)), Err(answer), "{version} {target}");
    }
    assert_eq!(driver.load(c"no code"), Err(218));
    for (version, target) in [("8.8", "sm_90a"), ("6.3", "sm_75")] {
        assert!(driver.load(&ptx(version, target)).is_ok());
    }
    let module = driver.load(&ptx("8.0", "sm_90")).expect("the image is right");
    let mut function = null_mut();
    // Not in the image, though a kernel has that name; a part of a name.
    for name in [c"fold_f32", c"probe_not"] {
        assert_eq!(driver.cuModuleGetFunction(&mut function, module, name.as_ptr()), 500);
    }
    assert_eq!(driver.cuModuleGetFunction(&mut function, module, c"probe_nothing".as_ptr()), 0);
    let mut value = 0;
    assert_eq!((driver.cuFuncGetAttribute(&mut value, 5, function), value), (0, 80));
    // It was compiled for blocks of at most 512 threads.
    let shapes = [(1, 0, 32), (256, 0, 8), (512, 0, 4), (513, 0, 0), (32, 40000, 5), (512, 49153, 0)];
    for (threads, shared, blocks) in shapes {
        let occupancy = driver.cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut value, function, threads, shared);
        assert_eq!((occupancy, value), (0, blocks), "{threads} {shared}");
    }
    assert_eq!(driver.cuFuncSetAttribute(function, 8, 100_000), 0);
    assert_eq!(driver.cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut value, function, 512, 100_000), 0);
    assert_eq!(value, 2);
    assert_eq!(driver.cuModuleUnload(module), 0);
    assert_eq!(driver.launch(function, 1, 1, null_mut(), 0u32), 400);
}

#[test]
fn launches_are_refused_by_their_codes() {
    let (_guard, Some(folder)) = (alone(), standin::library()) else { return };
    let driver = Driver::ready(&folder);
    let nothing = driver.function(c"probe_nothing");
    assert_eq!(driver.launch(nothing, 100, 512, null_mut(), 0u32), 0);
    assert_eq!(driver.launch(nothing, 0, 32, null_mut(), 0u32), 1);
    assert_eq!(driver.launch(nothing, 1, 513, null_mut(), 0u32), 1);
    assert_eq!(driver.launch(null_mut(), 1, 32, null_mut(), 0u32), 400);
    assert_eq!(driver.launch(nothing, 1, 32, nothing, 0u32), 400);
    let mut argument = 0u32;
    let mut parameters = [(&raw mut argument).cast::<c_void>()];
    let mut cooperative = |blocks, shared| {
        let (f, s, p) = (nothing, null_mut(), parameters.as_mut_ptr());
        driver.cuLaunchCooperativeKernel(f, blocks, 1, 1, 512, 1, 1, shared, s, p)
    };
    assert_eq!((cooperative(16, 0), cooperative(17, 0), cooperative(1, 50_000)), (0, 720, 1));
    assert_eq!(driver.cuCtxSynchronize(), 0);
}

#[test]
fn streams_run_at_once_and_keep_their_order() {
    let (_guard, Some(folder)) = (alone(), standin::library()) else { return };
    let driver = Driver::ready(&folder);
    let (first, second) = (driver.stream(1), driver.stream(1));
    let waiting = Waiting::begin(&driver, first);
    let word = driver.words(1);
    assert_eq!(driver.cuMemsetD32Async(word, 5, 1, first), 0);
    assert_eq!((driver.cuStreamQuery(first), driver.cuStreamQuery(second)), (600, 0));
    assert_eq!(driver.read(word), [0]);
    let (begin, end) = (driver.event(), driver.event());
    let mut milliseconds = -1.0;
    assert_eq!(driver.cuEventElapsedTime(&mut milliseconds, begin, end), 400);
    // The second stream waits for the first by an event, so what it does comes after the 5.
    assert_eq!((driver.cuEventRecord(begin, second), driver.cuEventRecord(end, first)), (0, 0));
    assert_eq!((driver.cuStreamWaitEvent(second, end, 0), driver.cuMemsetD32Async(word, 6, 1, second)), (0, 0));
    assert_eq!((driver.cuEventSynchronize(begin), driver.cuEventQuery(end)), (0, 600));
    assert_eq!(driver.cuEventElapsedTime(&mut milliseconds, begin, end), 600);
    assert_eq!(driver.read(word), [0]);
    waiting.end();
    assert_eq!(driver.cuStreamSynchronize(second), 0);
    assert_eq!(driver.read(word), [6]);
    assert_eq!(driver.cuEventElapsedTime(&mut milliseconds, begin, end), 0);
    assert!(milliseconds > 0.0);
    assert_eq!(driver.read(waiting.out), [0]);
    // An event that goes, and a stream that goes with work in its queue.
    assert_eq!((driver.cuEventDestroy_v2(end), driver.cuEventDestroy_v2(end)), (0, 400));
    let waiting = Waiting::begin(&driver, first);
    assert_eq!(driver.cuMemsetD32Async(word, 7, 1, first), 0);
    assert_eq!((driver.cuStreamDestroy_v2(first), driver.cuStreamSynchronize(first)), (0, 400));
    waiting.end();
    while driver.read(word) != [7] {
        std::thread::yield_now();
    }
}

#[test]
fn the_default_stream_synchronises_with_blocking_ones() {
    let (_guard, Some(folder)) = (alone(), standin::library()) else { return };
    let driver = Driver::ready(&folder);
    let (blocking, other, free) = (driver.stream(0), driver.stream(0), driver.stream(1));
    let (word, after) = (driver.words(1), driver.words(1));
    let waiting = Waiting::begin(&driver, blocking);
    assert_eq!(driver.cuMemsetD32Async(word, 1, 1, null_mut()), 0);
    assert_eq!(driver.cuMemsetD32Async(after, 1, 1, other), 0);
    assert_eq!((driver.cuStreamQuery(null_mut()), driver.cuStreamQuery(other)), (600, 600));
    assert_eq!((driver.cuMemsetD32Async(after, 2, 1, free), driver.cuStreamSynchronize(free)), (0, 0));
    waiting.end();
    assert_eq!(driver.cuStreamSynchronize(other), 0);
    assert_eq!(driver.cuStreamQuery(null_mut()), 0);
    assert_eq!((driver.read(word), driver.read(after)), ([1], [1]));
}

#[test]
fn values_are_written_and_waited_for() {
    let (_guard, Some(folder)) = (alone(), standin::library()) else { return };
    let driver = Driver::ready(&folder);
    let (one, two) = (driver.stream(1), driver.stream(1));
    // At least (by the sign of the difference), equal, any bit, not all bits.
    for (flags, value, written) in [(0, 0x8000_0000, 0x8000_0001), (1, 9, 9), (2, 6, 4), (3, !1, 0)] {
        let word = driver.words(2);
        assert_eq!(driver.cuMemsetD32Async(word, if flags == 3 { !0 } else { 0 }, 1, two), 0);
        assert_eq!(driver.cuStreamSynchronize(two), 0);
        let waits = driver.cuStreamWaitValue32_v2(one, word, value, flags);
        assert_eq!((waits, driver.cuMemsetD32Async(word + 4, 1, 1, one)), (0, 0));
        assert_eq!(driver.cuStreamQuery(one), 600);
        assert_eq!(driver.cuStreamWriteValue32_v2(two, word, written, 0), 0);
        assert_eq!(driver.cuStreamSynchronize(one), 0);
        assert_eq!(driver.read(word), [written, 1]);
    }
    let word = driver.words(1);
    assert_eq!(driver.cuStreamWriteValue32_v2(one, word + 2, 0, 0), 1);
    assert_eq!(driver.cuStreamWaitValue32_v2(one, word, 0, 4), 1);
    assert_eq!(driver.cuStreamWaitValue32_v2(one, 64, 0, 0), 1);
}

#[test]
fn captured_work_is_replayed() {
    let (_guard, Some(folder)) = (alone(), standin::library()) else { return };
    let driver = Driver::ready(&folder);
    let (origin, forked) = (driver.stream(1), driver.stream(1));
    let (fork, join) = (driver.event(), driver.event());
    let (epoch, kept, copy) = (driver.words(1), driver.words(8), driver.words(8));
    let flag = driver.words(1);
    let advance = driver.function(c"probe_advance");
    assert_eq!(driver.cuStreamBeginCapture_v2(origin, 0), 0);
    assert_eq!(driver.launch(advance, 1, 32, origin, Advance { epoch, kept, length: 8 }), 0);
    assert_eq!((driver.cuEventRecord(fork, origin), driver.cuStreamWaitEvent(forked, fork, 0)), (0, 0));
    // The two branches answer each other, so they must run at the same time.
    assert_eq!(driver.cuStreamWaitValue32_v2(origin, flag, 1, 1), 0);
    assert_eq!(driver.cuStreamWriteValue32_v2(origin, flag, 0, 0), 0);
    assert_eq!(driver.cuStreamWriteValue32_v2(forked, flag, 1, 0), 0);
    assert_eq!(driver.cuStreamWaitValue32_v2(forked, flag, 0, 1), 0);
    assert_eq!((driver.cuEventRecord(join, forked), driver.cuStreamWaitEvent(origin, join, 0)), (0, 0));
    assert_eq!(driver.cuMemcpyDtoDAsync_v2(copy, kept, 32, origin), 0);
    let (mut graph, mut exec, mut nodes) = (null_mut(), null_mut(), 0);
    assert_eq!(driver.cuStreamEndCapture(origin, &mut graph), 0);
    assert_eq!((driver.cuGraphGetNodes(graph, null_mut(), &mut nodes), nodes), (0, 6));
    assert_eq!(driver.read(epoch), [0]);
    assert_eq!((driver.cuGraphInstantiateWithFlags(&mut exec, graph, 0), driver.cuGraphDestroy(graph)), (0, 0));
    for _ in 0..100 {
        assert_eq!(driver.cuGraphLaunch(exec, origin), 0);
        assert_eq!(driver.launch(advance, 1, 32, origin, Advance { epoch, kept, length: 8 }), 0);
    }
    assert_eq!(driver.cuStreamSynchronize(origin), 0);
    assert_eq!(driver.read(epoch), [200]);
    assert_eq!(driver.read(copy), [193, 194, 195, 196, 197, 198, 199, 192]);
    assert_eq!((driver.cuGraphExecDestroy(exec), driver.cuGraphLaunch(exec, origin)), (0, 400));
}

#[test]
fn captures_are_protected() {
    let (_guard, Some(folder)) = (alone(), standin::library()) else { return };
    let driver = Driver::ready(&folder);
    let (origin, other, blocking) = (driver.stream(1), driver.stream(1), driver.stream(0));
    let (event, outside) = (driver.event(), driver.event());
    let word = driver.words(1);
    assert_eq!((driver.cuEventRecord(outside, other), driver.cuStreamSynchronize(other)), (0, 0));
    // What must not be done while capturing, what it answers, and that the capture is lost by it.
    type Fault<'a> = (i32, &'a dyn Fn() -> i32);
    let faults: [Fault; 5] = [
        (900, &|| driver.cuMemAlloc_v2(&mut 0, 16)),
        (900, &|| driver.cuMemAllocAsync(&mut 0, 16, origin)),
        (900, &|| driver.cuStreamSynchronize(origin)),
        (900, &|| driver.cuCtxSynchronize()),
        (905, &|| driver.cuStreamWaitEvent(origin, outside, 0)),
    ];
    let mut graph = null_mut();
    for (answer, fault) in faults {
        assert_eq!(driver.cuStreamBeginCapture_v2(origin, 0), 0);
        assert_eq!(fault(), answer);
        assert_eq!(driver.cuMemsetD32Async(word, 1, 1, origin), 901);
        assert_eq!((driver.cuStreamEndCapture(origin, &mut graph), graph), (901, null_mut()));
    }
    assert_eq!(driver.cuStreamEndCapture(origin, &mut graph), 401);
    assert_eq!(driver.cuStreamBeginCapture_v2(null_mut(), 0), 900);
    // The default stream would have to wait for what does not run.
    assert_eq!(driver.cuStreamBeginCapture_v2(blocking, 2), 0);
    assert_eq!(driver.cuMemsetD32Async(word, 1, 1, null_mut()), 906);
    assert_eq!(driver.cuStreamEndCapture(blocking, &mut graph), 901);
    // A branch that is not joined, and an event that is no point in time.
    assert_eq!((driver.cuStreamBeginCapture_v2(origin, 0), driver.cuEventRecord(event, origin)), (0, 0));
    assert_eq!(driver.cuEventQuery(event), 907);
    assert_eq!((driver.cuStreamWaitEvent(other, event, 0), driver.cuMemsetD32Async(word, 1, 1, other)), (0, 0));
    assert_eq!(driver.cuStreamEndCapture(other, &mut graph), 903);
    assert_eq!(driver.cuStreamEndCapture(origin, &mut graph), 901);
    assert_eq!((driver.cuStreamBeginCapture_v2(origin, 0), driver.cuEventRecord(event, origin)), (0, 0));
    assert_eq!((driver.cuStreamWaitEvent(other, event, 0), driver.cuMemsetD32Async(word, 1, 1, other)), (0, 0));
    assert_eq!(driver.cuStreamEndCapture(origin, &mut graph), 904);
    assert_eq!(driver.read(word), [0]);
}

/// Two kernels on two streams that wait for each other; how many ended late.
fn late_of_two(driver: &Driver) -> u32 {
    let (room, abort) = (driver.words(4), driver.words(1));
    let meet = driver.function(c"probe_meet");
    let patience = if std::env::var_os("STANDIN_ORDER").is_some() { 50_000_000 } else { MINUTE };
    for stream in [driver.stream(1), driver.stream(1)] {
        let arguments = Meet { arrivals: room, ended: room + 4, abort, patience, expected: 2 };
        assert_eq!(driver.launch(meet, 1, 64, stream, arguments), 0);
    }
    assert_eq!(driver.cuCtxSynchronize(), 0);
    driver.read::<4>(room)[3]
}

#[test]
fn kernels_of_two_streams_meet() {
    let (_guard, Some(folder)) = (alone(), standin::library()) else { return };
    assert_eq!(late_of_two(&Driver::ready(&folder)), 0);
}

#[test]
#[ignore = "started by others"]
fn child_with_one_queue() {
    let driver = Driver::ready(&standin::library().expect("the one who started this has it"));
    assert_eq!(late_of_two(&driver), 1);
}

#[test]
fn kernels_of_one_hardware_queue_do_not_meet() {
    passes("child_with_one_queue", &[("STANDIN_ORDER", "1")]);
}

/// Opens memory that the parent exports, and reads it again after the parent has freed it.
#[test]
#[ignore = "started by others"]
fn child_that_imports() {
    let driver = Driver::ready(&standin::library().expect("the one who started this has it"));
    let text = std::env::var("STANDIN_TEST_HANDLE").expect("the one who started this gave it");
    let bytes: Vec<u8> = text.split(' ').map(|byte| byte.parse().expect("a byte")).collect();
    let mut handle = IpcHandle(bytes.try_into().expect("64 bytes"));
    let (mut address, mut again) = (0, 0);
    assert_eq!(driver.cuIpcOpenMemHandle_v2(&mut address, handle, 1), 0);
    assert_eq!(driver.read(address), [11, 22, 33]);
    // The same once more, and once less.
    assert_eq!((driver.cuIpcOpenMemHandle_v2(&mut again, handle, 1), again), (0, address));
    assert_eq!(driver.cuIpcCloseMemHandle(address), 0);
    assert_eq!(driver.cuMemsetD32Async(address + 4, 44, 1, null_mut()), 0);
    assert_eq!(driver.cuStreamSynchronize(null_mut()), 0);
    // What is imported is neither freed nor exported.
    assert_eq!((driver.cuMemFree_v2(address), driver.cuIpcGetMemHandle(&mut handle, address)), (1, 1));
    println!("written");
    std::io::stdin().lines().next().expect("the parent says when").expect("it is text");
    assert_eq!(driver.read(address), [11, 44, 55]);
    assert_eq!((driver.cuIpcCloseMemHandle(address), driver.cuIpcCloseMemHandle(address)), (0, 1));
    let gone = driver.cuIpcOpenMemHandle_v2(&mut again, IpcHandle(handle.0), 1);
    assert_eq!(gone, 1);
}

#[test]
fn memory_is_shared_between_processes() {
    let (_guard, Some(folder)) = (alone(), standin::library()) else { return };
    let driver = Driver::ready(&folder);
    let address = driver.words(3);
    assert_eq!(driver.cuMemcpyHtoD_v2(address, [11u32, 22, 33].as_ptr().cast(), 12), 0);
    let (mut handle, mut inner) = (IpcHandle([0; 64]), IpcHandle([1; 64]));
    assert_eq!(
        (driver.cuIpcGetMemHandle(&mut handle, address), driver.cuIpcGetMemHandle(&mut inner, address + 8)),
        (0, 0)
    );
    assert_eq!(handle.0, inner.0);
    let mut opened = 0;
    assert_eq!(driver.cuIpcOpenMemHandle_v2(&mut opened, handle, 1), 201);
    assert_eq!(driver.cuIpcOpenMemHandle_v2(&mut opened, IpcHandle([7; 64]), 1), 1);
    assert_eq!(driver.cuMemAllocAsync(&mut opened, 16, null_mut()), 0);
    assert_eq!(driver.cuIpcGetMemHandle(&mut inner, opened), 1);
    assert_eq!(driver.cuIpcGetMemHandle(&mut inner, driver.pinned().1), 1);

    let text: Vec<String> = handle.0.iter().map(u8::to_string).collect();
    let mut child = child("child_that_imports", &[("STANDIN_TEST_HANDLE", &text.join(" "))]);
    let mut lines = BufReader::new(child.stdout.take().expect("it is a pipe")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.ends_with("written")));
    assert_eq!(driver.read(address), [11, 44, 33]);
    assert_eq!(driver.cuMemcpyHtoD_v2(address + 8, [55u32].as_ptr().cast(), 4), 0);
    assert_eq!(driver.cuMemFree_v2(address), 0);
    writeln!(child.stdin.take().expect("it is a pipe"), "freed").expect("the child reads");
    let rest: Vec<String> = lines.collect();
    assert!(child.wait().expect("the child ends").success(), "{rest:?}");
}

#[test]
fn the_context_works_after_a_kernel_gave_up() {
    let (_guard, Some(folder)) = (alone(), standin::library()) else { return };
    let driver = Driver::ready(&folder);
    let (counter, abort, begun, out) = (driver.words(1), driver.words(1), driver.words(1), driver.words(4));
    let wait = driver.function(c"probe_wait");
    let arguments = Wait { counter, abort, begun, out, patience: 1_000_000, value: 1 };
    assert_eq!(driver.launch(wait, 2, 64, null_mut(), arguments), 0);
    assert_eq!(driver.cuCtxSynchronize(), 0);
    assert_eq!(driver.read(out), [2]);
    assert_eq!(driver.cuMemFree_v2(counter), 0);
}
