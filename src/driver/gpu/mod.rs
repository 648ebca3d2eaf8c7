// SPDX-License-Identifier: MPL-2.0
//! GPUs of either maker: what NVIDIA's devices and AMD's have in common, which is all but a library of functions.
//!
//! | file | subject |
//! |---|---|
//! | `calls` `fault` | what is asked of a maker's library, and what it answers |
//! | `context` | devices, and a thread's way into one |
//! | `code` `entries` | the kernels' code: loaded, launched; how many blocks are resident; which kernels there are |
//! | `first_use` | what a driver makes ready at its first use, made ready when a device is opened |
//! | `memory` `pool` `pinned` `hosted` `idle` | memory of the device and of the host, and when it may be given back |
//! | `ipc` `peers` | memory of other processes and of other devices |
//! | `stream` `graph` | streams, events, fills; captures |
//!
//! Each call enters the device, asks the library, and puts back what the thread was in before.
#![allow(unsafe_code)]

mod calls;
mod code;
mod context;
#[cfg(feature = "cuda")]
mod entries;
mod fault;
mod first_use;
mod graph;
mod hosted;
mod idle;
mod ipc;
mod memory;
mod peers;
mod pinned;
mod pool;
mod stream;

use std::ffi::c_void;
use std::ops::Deref;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLockReadGuard};

pub(crate) use self::calls::{Attribute, Calls, Multiplies, Object, Place, Unit, table};
pub(crate) use self::context::Ordinal;
#[cfg(feature = "cuda")]
pub(crate) use self::entries::entries;
pub(crate) use self::fault::{Fault, number};

use self::code::Code;
use self::context::{Context, Entered};
use self::memory::{Memory, raw};
use self::peers::Peers;
use self::stream::raw_event;
#[cfg(feature = "cuda")]
use super::backend::Whole;
use super::backend::{
    Address, Backend, EventId, Failure, Function, FunctionId, GraphId, Grid, Handle, HostFunction, MemoryKind, Product,
    Products, ProductsId, StreamId,
};
use super::capabilities::Capabilities;
use super::device::Core;
use crate::error::{Error, Result as Outcome};

/// One device.
struct Gpu {
    context: Context,
    capabilities: Capabilities,
    code: Code,
    memory: Memory,
    peers: Peers,
    products: Option<Box<dyn Multiplies>>,
}

/// A device with its context current, on which something is being enqueued.
struct Enqueuing<'a> {
    driver: Entered,
    /// What is to be recorded behind that, and where.
    behind: Option<(EventId, StreamId)>,
    _running: RwLockReadGuard<'a, ()>,
}

impl Deref for Enqueuing<'_> {
    type Target = Entered;

    fn deref(&self) -> &Entered {
        &self.driver
    }
}

impl Drop for Enqueuing<'_> {
    fn drop(&mut self) {
        if let Some((event, stream)) = self.behind {
            // A driver that refuses has failed altogether.
            // SAFETY: the event lives as long as the stream is borrowed; the stream lives, since something was enqueued.
            let _ = unsafe { self.driver.record_event(raw_event(event), raw(stream)) };
        }
    }
}

/// The devices of a maker's library that have been opened.
pub(super) struct Opened(OnceLock<Vec<Mutex<Option<Arc<Core>>>>>);

impl Opened {
    pub const fn new() -> Self {
        Opened(OnceLock::new())
    }

    /// The device of that number, opened once, for ever.
    pub fn device(&self, library: &'static dyn Calls, index: usize) -> Outcome<Arc<Core>> {
        let platform = library.platform();
        let count = count(library)?;
        let opened = self.0.get_or_init(|| (0..count).map(|_| Mutex::default()).collect());
        let place = opened.get(index).ok_or_else(|| {
            Error::invalid(format!(
                "there is no {platform} device {index}: the driver shows {count}, numbered from 0 on; see whether {} \
                 hides it",
                library.visibility()
            ))
        })?;
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(core) = &*place {
            return Ok(core.clone());
        }
        let device = Gpu::open(library, index).map_err(|failure| {
            let (code, remedy) = (failure.code as u32, library.remedy(failure.code as u32));
            let sentence = format!("{platform} device {index}, opening it: {failure}; {remedy}");
            match code {
                number::NOT_SUPPORTED | number::NO_BINARY => Error::unsupported(sentence),
                _ => Error::System(sentence.into()),
            }
        })?;
        Ok(place.insert(Core::new(Box::new(device))).clone())
    }
}

/// How many devices a library shows to this process.
pub(crate) fn count(library: &dyn Calls) -> Result<usize, Fault> {
    let mut count = 0;
    // SAFETY: the pointer is to an integer of ours.
    unsafe { library.count(&mut count) }?;
    Ok(count.max(0) as usize)
}

impl Gpu {
    /// Makes its context, loads all code, pins some memory. To be called once for each: what it makes
    /// stays for good.
    fn open(library: &'static dyn Calls, index: usize) -> Result<Gpu, Failure> {
        let ordinal = Ordinal::new(library, index)?;
        let capabilities = capabilities(ordinal, index)?;
        let context = Context::retain(ordinal)?;
        let code = Code::load(&context)?;
        let memory = Memory::new(&context)?;
        let _ = first_use::rehearse(&context, &memory);
        let peers = Peers::new(&context, index)?;
        let products = library.products();
        Ok(Gpu { context, capabilities, code, memory, peers, products })
    }

    /// An address of a device, as the library wants it named.
    fn place(&self, (device, address): (usize, Address)) -> Result<(Place, Address), Failure> {
        Ok((self.peers.context(&self.context, device)?.place, address))
    }

    fn enqueuing(&self, stream: StreamId) -> Result<Enqueuing<'_>, Failure> {
        let running = self.memory.enqueuing();
        let behind = self.memory.streams.event_behind(stream).map(|event| (event, stream));
        Ok(Enqueuing { driver: self.context.enter()?, behind, _running: running })
    }
}

fn capabilities(ordinal: Ordinal, index: usize) -> Result<Capabilities, Fault> {
    Ok(Capabilities {
        platform: ordinal.library.platform(),
        index,
        identity: ordinal.identity()?,
        name: ordinal.name()?,
        multiprocessors: ordinal.multiprocessors()?,
        warp: ordinal.attribute(Attribute::Warp)?,
        threads_per_block: ordinal.attribute(Attribute::ThreadsPerBlock)?,
        shared_per_block: ordinal.attribute(Attribute::SharedPerBlock)?,
        memory: ordinal.memory()?,
    })
}

// SAFETY: Allocations of the libraries are aligned to 256 bytes, and so are blocks of pinned memory; handles of what lives
// are unique. Their streams do what is enqueued in order, and an event of theirs has passed when all work before it has
// been done; what that wrote is seen by whatever waited for the event.
unsafe impl Backend for Gpu {
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

    unsafe fn export(&self, address: Address) -> Result<(Handle, u64, u64), Failure> {
        if let Some(handle) = self.memory.export_hosted(address) {
            return Ok((handle, 0, 0));
        }
        // SAFETY: the caller's promise.
        unsafe { ipc::export(&self.context.enter()?, address) }
    }

    fn import(&self, handle: &Handle, bytes: u64, kind: MemoryKind) -> Result<(Address, usize), Failure> {
        let driver = self.context.enter()?;
        match kind {
            MemoryKind::Hosted => self.memory.import_hosted(&driver, handle),
            _ => self.memory.import(&driver, handle, bytes),
        }
    }

    fn close_imports(&self) {
        if let Ok(driver) = self.context.enter() {
            self.memory.close_imports(&driver);
        }
    }

    #[cfg(feature = "cuda")]
    fn inspect(&self, address: Address) -> Result<Whole, Failure> {
        ipc::inspect(&self.context.enter()?, address)
    }

    fn create_stream(&self, urgent: bool) -> Result<StreamId, Failure> {
        let stream = stream::create(&self.context.enter()?, urgent)?;
        self.memory.streams.begin(stream);
        Ok(stream)
    }

    unsafe fn destroy_stream(&self, stream: StreamId) {
        if let Ok(driver) = self.context.enter() {
            self.memory.streams.retire(stream);
            self.memory.give_back_if_idle(&driver);
        }
    }

    fn borrow_stream(&self, stream: StreamId) -> Result<(), Failure> {
        Ok(self.memory.streams.borrow(&self.context.enter()?, stream)?)
    }

    fn return_stream(&self, stream: StreamId) {
        self.memory.streams.give_back(stream);
    }

    unsafe fn synchronize_stream(&self, stream: StreamId) -> Result<(), Failure> {
        let driver = self.context.enter()?;
        // SAFETY: the caller's promise.
        unsafe { driver.synchronize_stream(raw(stream)) }?;
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
            let _ = unsafe { driver.destroy_event(raw_event(event)) };
        }
    }

    unsafe fn record_event(&self, event: EventId, stream: StreamId) -> Result<(), Failure> {
        // SAFETY: the caller's promise.
        Ok(unsafe { self.context.enter()?.record_event(raw_event(event), raw(stream)) }?)
    }

    unsafe fn wait_event(&self, stream: StreamId, event: EventId) -> Result<(), Failure> {
        // SAFETY: the caller's promise.
        Ok(unsafe { self.enqueuing(stream)?.wait_event(raw(stream), raw_event(event)) }?)
    }

    unsafe fn synchronize_event(&self, event: EventId) -> Result<(), Failure> {
        // SAFETY: the caller's promise.
        Ok(unsafe { self.context.enter()?.synchronize_event(raw_event(event)) }?)
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
        Ok(unsafe { self.enqueuing(stream)?.copy(to, from, bytes, raw(stream)) }?)
    }

    unsafe fn copy_between(
        &self,
        to: (usize, Address),
        from: (usize, Address),
        bytes: usize,
        stream: StreamId,
    ) -> Result<(), Failure> {
        let [target, source] = [self.place(to)?, self.place(from)?];
        // SAFETY: the caller's promise; both contexts live for good.
        Ok(unsafe { self.enqueuing(stream)?.copy_between(target, source, bytes, raw(stream)) }?)
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
        Ok(unsafe { stream::fill(&self.enqueuing(stream)?.driver, to, pattern, width, count, stream) }?)
    }

    unsafe fn call_host(&self, function: HostFunction, data: *mut c_void, stream: StreamId) -> Result<(), Failure> {
        // SAFETY: the caller's promise.
        Ok(unsafe { self.enqueuing(stream)?.call_host(raw(stream), function, data) }?)
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
        unsafe { self.code.launch(&self.enqueuing(stream)?.driver, function, grid, together, argument, stream) }
    }

    fn products(&self) -> Result<Products, String> {
        let _entered = self.context.enter().map_err(|fault| fault.to_string())?;
        let none = || "there is no library of products for these devices".to_owned();
        self.products.as_ref().ok_or_else(none)?.begin()
    }

    fn end_products(&self, id: ProductsId) {
        if let Some(products) = &self.products {
            products.end(id);
        }
    }

    unsafe fn multiply(
        &self,
        id: ProductsId,
        product: &Product,
        workspace: Address,
        stream: StreamId,
    ) -> Result<(), Failure> {
        let none = || fault::refused("multiply", number::NOT_SUPPORTED, "there is no library of products");
        let products = self.products.as_ref().ok_or_else(none)?;
        let _enqueuing = self.enqueuing(stream)?;
        // SAFETY: the caller's promise.
        unsafe { products.multiply(id, product, workspace, stream) }
    }

    unsafe fn is_capturing(&self, stream: StreamId) -> Result<bool, Failure> {
        // SAFETY: the caller's promise.
        Ok(unsafe { graph::is_capturing(&self.context.enter()?, stream) }?)
    }

    unsafe fn begin_capture(&self, stream: StreamId) -> Result<(), Failure> {
        let _running = self.memory.enqueuing();
        let driver = self.context.enter()?;
        self.memory.streams.begin_capture(&driver, stream)?;
        // SAFETY: the caller's promise.
        let begun = unsafe { graph::begin(&driver, stream) };
        if begun.is_err() {
            self.memory.streams.end_capture(&driver, stream);
        }
        Ok(begun?)
    }

    unsafe fn end_capture(&self, stream: StreamId) -> Result<GraphId, Failure> {
        let _running = self.memory.enqueuing();
        let driver = self.context.enter()?;
        // SAFETY: the caller's promise.
        let graph = unsafe { graph::end(&driver, stream) };
        self.memory.streams.end_capture(&driver, stream);
        Ok(graph?)
    }

    unsafe fn launch_graph(&self, graph: GraphId, stream: StreamId) -> Result<(), Failure> {
        // SAFETY: the caller's promise.
        Ok(unsafe { self.enqueuing(stream)?.launch_graph(graph::raw_graph(graph), raw(stream)) }?)
    }

    unsafe fn destroy_graph(&self, graph: GraphId) {
        if let Ok(driver) = self.context.enter() {
            // As with events.
            // SAFETY: the caller's promise.
            let _ = unsafe { driver.destroy_executable(graph::raw_graph(graph)) };
        }
    }
}
