// SPDX-License-Identifier: MPL-2.0
//! NVIDIA devices, through the driver's own library.
//!
//! | file | subject |
//! |---|---|
//! | `library` `management` | the driver's functions, and those of the management library, found at run time |
//! | `context` | devices, and their primary contexts |
//! | `code` `ptx` | the kernels' code: embedded, loaded, launched; how many blocks are resident |
//! | `first_use` | what the driver makes ready at its first use, made ready when a device is opened |
//! | `memory` `pinned` `hosted` | memory of the device and of the host, and when it may be given back |
//! | `ipc` `peers` | memory of other processes and of other devices |
//! | `stream` `graph` | streams, events, fills; captures |
//! | `blas` | matrix products by cuBLAS |
//! | `borrowed` | a user's own streams and memory |
//!
//! Each call makes the device's context current, asks the driver, and puts back what was current before.
#![allow(unsafe_code)]

mod blas;
mod borrowed;
mod code;
mod context;
mod first_use;
mod graph;
mod hosted;
mod ipc;
mod library;
mod management;
mod memory;
mod peers;
mod pinned;
mod ptx;
mod stream;

use std::ffi::c_void;
use std::ops::Deref;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLockReadGuard};

pub(crate) use self::context::Ordinal;
pub(crate) use self::library::{Driver, Fault, version};
pub(crate) use self::management::{Managed, Management};
pub(crate) use cudarc::driver::sys;

use self::blas::Blas;
use self::code::Code;
use self::context::{Context, Entered};
use self::memory::{Memory, raw};
use self::peers::Peers;
use self::stream::raw_event;
use self::sys::CUdevice_attribute;
use super::backend::{
    Address, Backend, EventId, Failure, Function, FunctionId, GraphId, Grid, Handle, HostFunction, MemoryKind, Product,
    Products, ProductsId, StreamId, Whole,
};
use super::capabilities::{Capabilities, Platform};
use super::device::Core;
use crate::error::{Error, Result as Outcome};

/// One device.
pub(super) struct Cuda {
    context: Context,
    capabilities: Capabilities,
    code: Code,
    memory: Memory,
    peers: Peers,
    blas: Blas,
}

/// A device with its context current, on which something is being enqueued.
struct Enqueuing<'a> {
    driver: Entered,
    _running: RwLockReadGuard<'a, ()>,
}

impl Deref for Enqueuing<'_> {
    type Target = Entered;

    fn deref(&self) -> &Entered {
        &self.driver
    }
}

/// How many devices the driver shows to this process.
pub(super) fn count() -> Outcome<usize> {
    Ok(Driver::get()?.devices()?)
}

/// The device of that number, opened once, for ever.
pub(super) fn device(index: usize) -> Outcome<Arc<Core>> {
    static OPENED: OnceLock<Vec<Mutex<Option<Arc<Core>>>>> = OnceLock::new();
    let driver = Driver::get()?;
    let count = driver.devices()?;
    let opened = OPENED.get_or_init(|| (0..count).map(|_| Mutex::default()).collect());
    let place = opened.get(index).ok_or_else(|| {
        Error::invalid(format!(
            "there is no CUDA device {index}: the driver shows {count}, numbered from 0 on; see whether \
             CUDA_VISIBLE_DEVICES hides it"
        ))
    })?;
    let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(core) = &*place {
        return Ok(core.clone());
    }
    let device = Cuda::open(driver, index).map_err(|failure| {
        let sentence = format!("CUDA device {index}, opening it: {failure}");
        match failure.code {
            context::NOT_SUPPORTED | context::NO_BINARY => {
                Error::unsupported(format!("{sentence}; use another device"))
            }
            _ => Error::System(format!("{sentence}; see what else uses the device, and the driver's own log").into()),
        }
    })?;
    Ok(place.insert(Core::new(Box::new(device))).clone())
}

impl Cuda {
    /// Opens a device: makes its context, loads all code, pins some memory. To be called once for each: what it makes
    /// stays for good.
    pub fn open(driver: &'static Driver, index: usize) -> Result<Cuda, Failure> {
        let ordinal = Ordinal::new(driver, index)?;
        let capabilities = capabilities(ordinal, index)?;
        let context = Context::retain(ordinal)?;
        let code = Code::load(&context)?;
        let _ = first_use::fills_and_copies(&context);
        let memory = Memory::new(&context)?;
        let peers = Peers::new(&context, index)?;
        Ok(Cuda { context, capabilities, code, memory, peers, blas: Blas::default() })
    }

    fn enqueuing(&self) -> Result<Enqueuing<'_>, Failure> {
        let running = self.memory.enqueuing();
        Ok(Enqueuing { driver: self.context.enter()?, _running: running })
    }
}

fn capabilities(ordinal: Ordinal, index: usize) -> Result<Capabilities, Fault> {
    Ok(Capabilities {
        platform: Platform::Cuda,
        index,
        identity: ordinal.identity()?,
        name: ordinal.name()?,
        multiprocessors: ordinal.multiprocessors()?,
        warp: ordinal.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_WARP_SIZE)?,
        threads_per_block: ordinal.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?,
        shared_per_block: ordinal
            .attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        memory: ordinal.memory()?,
    })
}

// SAFETY: Allocations of the driver are aligned to 256 bytes, and so are blocks of pinned memory; handles of what lives
// are unique. Streams are CUDA's, which do what is enqueued in order, and an event of CUDA has passed when all work before
// it has been done; what that wrote is seen by whatever waited for the event.
unsafe impl Backend for Cuda {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn peer(&self, identity: [u8; 16]) -> Option<usize> {
        self.peers.find(identity)
    }

    fn reaches(&self, other: usize) -> Result<bool, Failure> {
        self.peers.reaches(&self.context, other)
    }

    fn enable_peer(&self, other: usize) -> Result<(), Failure> {
        self.peers.enable(&self.context, other)
    }

    fn allocate(&self, bytes: usize, kind: MemoryKind) -> Result<Address, Failure> {
        self.memory.allocate(&self.context.enter()?, bytes, kind)
    }

    unsafe fn free(&self, address: Address, kind: MemoryKind) -> Result<(), Failure> {
        // SAFETY: the caller's promise.
        unsafe { self.memory.free(&self.context.enter()?, address, kind) }
    }

    unsafe fn export(&self, address: Address) -> Result<(Handle, u64), Failure> {
        if let Some(handle) = self.memory.export_hosted(address) {
            return Ok((handle, 0));
        }
        // SAFETY: the caller's promise.
        unsafe { ipc::export(&self.context.enter()?, address) }
    }

    fn import(&self, handle: &Handle, kind: MemoryKind) -> Result<(Address, usize), Failure> {
        let driver = self.context.enter()?;
        match kind {
            MemoryKind::Hosted => self.memory.import_hosted(&driver, handle),
            _ => ipc::import(&driver, handle),
        }
    }

    fn inspect(&self, address: Address) -> Result<Whole, Failure> {
        ipc::inspect(&self.context.enter()?, address)
    }

    fn create_stream(&self) -> Result<StreamId, Failure> {
        let stream = stream::create(&self.context.enter()?)?;
        self.memory.begin(stream);
        Ok(stream)
    }

    unsafe fn destroy_stream(&self, stream: StreamId) {
        if let Ok(driver) = self.context.enter() {
            self.memory.retire(&driver, stream);
        }
    }

    unsafe fn synchronize_stream(&self, stream: StreamId) -> Result<(), Failure> {
        let driver = self.context.enter()?;
        // SAFETY: the caller's promise.
        unsafe { driver.cuStreamSynchronize(raw(stream)) }?;
        self.memory.give_back_if_idle(&driver);
        Ok(())
    }

    fn create_event(&self, timed: bool) -> Result<EventId, Failure> {
        Ok(stream::create_event(&self.context.enter()?, timed)?)
    }

    unsafe fn destroy_event(&self, event: EventId) {
        if let Ok(driver) = self.context.enter() {
            // An event that is refused is lost; there is nobody to tell.
            // SAFETY: the caller's promise.
            let _ = unsafe { driver.cuEventDestroy_v2(raw_event(event)) };
        }
    }

    unsafe fn record_event(&self, event: EventId, stream: StreamId) -> Result<(), Failure> {
        // SAFETY: the caller's promise.
        Ok(unsafe { self.context.enter()?.cuEventRecord(raw_event(event), raw(stream)) }?)
    }

    unsafe fn wait_event(&self, stream: StreamId, event: EventId) -> Result<(), Failure> {
        // SAFETY: the caller's promise.
        Ok(unsafe { self.enqueuing()?.cuStreamWaitEvent(raw(stream), raw_event(event), 0) }?)
    }

    unsafe fn synchronize_event(&self, event: EventId) -> Result<(), Failure> {
        // SAFETY: the caller's promise.
        Ok(unsafe { self.context.enter()?.cuEventSynchronize(raw_event(event)) }?)
    }

    unsafe fn has_passed(&self, event: EventId) -> Result<bool, Failure> {
        // SAFETY: the caller's promise.
        unsafe { stream::has_passed(&self.context.enter()?, event) }
    }

    unsafe fn nanoseconds(&self, from: EventId, to: EventId) -> Result<f64, Failure> {
        // SAFETY: the caller's promise.
        unsafe { stream::nanoseconds(&self.context.enter()?, from, to) }
    }

    unsafe fn copy(&self, to: Address, from: Address, bytes: usize, stream: StreamId) -> Result<(), Failure> {
        // SAFETY: the caller's promise; addresses of the host and of devices are of one kind for this function.
        Ok(unsafe { self.enqueuing()?.cuMemcpyAsync(to, from, bytes, raw(stream)) }?)
    }

    unsafe fn copy_between(
        &self,
        to: (usize, Address),
        from: (usize, Address),
        bytes: usize,
        stream: StreamId,
    ) -> Result<(), Failure> {
        let [target, source] =
            [self.peers.context(&self.context, to.0)?.raw, self.peers.context(&self.context, from.0)?.raw];
        // SAFETY: the caller's promise; both contexts live for good.
        Ok(unsafe { self.enqueuing()?.cuMemcpyPeerAsync(to.1, target, from.1, source, bytes, raw(stream)) }?)
    }

    unsafe fn fill(
        &self,
        to: Address,
        pattern: u64,
        width: usize,
        count: usize,
        stream: StreamId,
    ) -> Result<(), Failure> {
        // SAFETY: the caller's promise.
        Ok(unsafe { stream::fill(&self.enqueuing()?.driver, to, pattern, width, count, stream) }?)
    }

    unsafe fn call_host(&self, function: HostFunction, data: *mut c_void, stream: StreamId) -> Result<(), Failure> {
        // SAFETY: the caller's promise.
        Ok(unsafe { self.enqueuing()?.cuLaunchHostFunc(raw(stream), Some(function), data) }?)
    }

    fn function(&self, name: &str) -> Result<Option<Function>, Failure> {
        Ok(self.code.find(name))
    }

    unsafe fn resident_blocks(&self, function: FunctionId, threads: u32, shared: u32) -> Result<u32, Failure> {
        // SAFETY: the caller's promise.
        unsafe { self.code.resident_blocks(&self.context.enter()?, function, threads, shared) }
    }

    unsafe fn launch(
        &self,
        function: FunctionId,
        grid: Grid,
        together: bool,
        argument: &[u8],
        stream: StreamId,
    ) -> Result<(), Failure> {
        // SAFETY: the caller's promise.
        unsafe { self.code.launch(&self.enqueuing()?.driver, function, grid, together, argument, stream) }
    }

    fn products(&self) -> Result<Products, String> {
        self.blas.begin(&self.context.enter().map_err(|fault| fault.to_string())?)
    }

    fn end_products(&self, id: ProductsId) {
        self.blas.end(id);
    }

    unsafe fn multiply(
        &self,
        id: ProductsId,
        product: &Product,
        workspace: Address,
        stream: StreamId,
    ) -> Result<(), Failure> {
        // SAFETY: the caller's promise.
        unsafe { self.blas.multiply(&self.enqueuing()?.driver, id, product, workspace, stream) }
    }

    unsafe fn begin_capture(&self, stream: StreamId) -> Result<(), Failure> {
        let driver = self.enqueuing()?;
        self.memory.captures(stream, true);
        // SAFETY: the caller's promise.
        let begun = unsafe { graph::begin(&driver, stream) };
        if begun.is_err() {
            self.memory.captures(stream, false);
        }
        Ok(begun?)
    }

    unsafe fn end_capture(&self, stream: StreamId) -> Result<GraphId, Failure> {
        let driver = self.enqueuing()?;
        // SAFETY: the caller's promise.
        let graph = unsafe { graph::end(&driver, stream) };
        self.memory.captures(stream, false);
        Ok(graph?)
    }

    unsafe fn launch_graph(&self, graph: GraphId, stream: StreamId) -> Result<(), Failure> {
        // SAFETY: the caller's promise.
        Ok(unsafe { self.enqueuing()?.cuGraphLaunch(graph::raw_graph(graph), raw(stream)) }?)
    }

    unsafe fn destroy_graph(&self, graph: GraphId) {
        if let Ok(driver) = self.context.enter() {
            // As with events.
            // SAFETY: the caller's promise.
            let _ = unsafe { driver.cuGraphExecDestroy(graph::raw_graph(graph)) };
        }
    }
}
