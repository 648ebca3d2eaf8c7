// SPDX-License-Identifier: MPL-2.0
//! What the room asks of a maker's library: a table of functions, which `cuda/table` and `hip/table` fill.
//!
//! The functions are C's, with C's arguments and answers, under names of our own; a line of a table says which function of
//! the library does it, and with which of its flags. Where the libraries differ in more than names, the tables say so.
#![allow(unsafe_code)]

use std::borrow::Cow;
use std::ffi::{c_char, c_int, c_void};

use super::super::backend::{Address, Failure, Handle, HostFunction, Product, Products, ProductsId, StreamId};
use super::super::capabilities::Platform;
use super::context::Ordinal;
use super::fault::Fault;

/// A stream, an event, a module, a function or a graph, as the library hands it out.
pub(crate) type Object = *mut c_void;

/// A device.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// Its number, which is all that HIP names it by.
    pub device: c_int,
    /// What CUDA names it by, but for its pools.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "HIP has none"))]
    pub context: Object,
}

/// What is asked of a device, in numbers.
#[derive(Clone, Copy)]
pub(crate) enum Attribute {
    CapabilityMajor,
    CapabilityMinor,
    Multiprocessors,
    Warp,
    ThreadsPerBlock,
    /// Of dynamic shared memory, in bytes.
    SharedPerBlock,
    /// Whether there are any.
    MemoryPools,
}

/// The code of one source file, as a device loads it.
pub(crate) struct Unit {
    /// What it is: `the kernels of fold.cu for sm_75`.
    pub what: String,
    /// It ends with a zero where it is text. What the library goes on reading is not owned here.
    pub image: Cow<'static, [u8]>,
    /// The names of its kernels, and the bytes of each one's argument, where that is known.
    pub kernels: Vec<(&'static str, Option<usize>)>,
}

/// Matrix products by a maker's library, on one device, which is entered in the calling thread.
pub(crate) trait Multiplies: Send + Sync {
    /// For one user; or why there are none.
    fn begin(&self) -> Result<Products, String>;

    /// The user asks for no more.
    fn end(&self, id: ProductsId);

    /// Enqueues a product.
    ///
    /// # Safety
    /// As [`Backend::multiply`](super::super::backend::Backend::multiply).
    unsafe fn multiply(
        &self,
        id: ProductsId,
        product: &Product,
        workspace: Address,
        stream: StreamId,
    ) -> Result<(), Failure>;
}

/// Declares the functions, each of which answers by a number that is looked at.
macro_rules! functions {
    ($($(#[$about:meta])* fn $name:ident($($argument:ident: $type:ty),* $(,)?);)*) => {
        /// A maker's library, loaded and started.
        ///
        /// # Safety
        ///
        /// The functions do what is said of them. Each is safe to call with pointers to what it fills in or reads, with
        /// objects that live, of the place that is entered in this thread, and with addresses of memory that stays until
        /// what was enqueued has been done.
        #[allow(clippy::missing_safety_doc)]
        pub(crate) unsafe trait Calls: Send + Sync {
            /// Whose devices these are.
            fn platform(&self) -> Platform;

            /// The variable by which a user hides devices.
            fn visibility(&self) -> &'static str;

            /// What helps where a device cannot be opened, and the driver answers with this code.
            fn remedy(&self, code: u32) -> &'static str;

            /// The code of all kernels, for a device.
            fn units(&self, ordinal: Ordinal) -> Result<Vec<Unit>, Failure>;

            /// Matrix products on a device; `None` where the maker's library of them is not known here.
            fn products(&self) -> Option<Box<dyn Multiplies>> {
                None
            }

            $($(#[$about])* unsafe fn $name(&self, $($argument: $type),*) -> Result<(), Fault>;)*
        }
    };
}

functions! {
    fn count(count: *mut c_int);
    fn device(device: *mut c_int, index: c_int);
    /// At the most `length` bytes, the last of them a zero.
    fn name(name: *mut c_char, length: c_int, device: c_int);
    /// As `name`: `0000:3B:00.0`.
    fn bus(name: *mut c_char, length: c_int, device: c_int);
    /// The same for every process of this host, and another for every device.
    fn identity(identity: *mut [u8; 16], device: c_int);
    fn total_memory(bytes: *mut usize, device: c_int);
    fn attribute(value: *mut c_int, attribute: Attribute, device: c_int);
    fn can_access_peer(can: *mut c_int, device: c_int, peer: c_int);

    /// What the device has once for a process, where the library has such.
    fn retain_context(context: *mut Object, device: c_int);
    fn release_context(device: c_int);
    /// Makes the place that of this thread's calls; what was before, `leave` gets.
    fn enter(place: Place, before: *mut u64);
    fn leave(before: u64);
    /// Lets the place that is entered address another's memory.
    fn enable_peer(peer: Place);

    fn load_module(module: *mut Object, image: *const c_void);
    fn find_function(function: *mut Object, module: Object, name: *const c_char);
    /// Has the function loaded, and allows it so many bytes of shared memory, its own among them.
    fn prepare_function(function: Object, shared: c_int);
    /// For one multiprocessor.
    fn resident_blocks(blocks: *mut c_int, function: Object, threads: c_int, shared: usize);
    /// The arguments are copied before it returns.
    fn launch(
        function: Object, blocks: u32, threads: u32, shared: u32, stream: Object, arguments: *mut *mut c_void,
    );

    /// One that waits for no other, the default stream included.
    fn create_stream(stream: *mut Object);
    /// The same, of the highest priority that there is.
    fn create_urgent_stream(stream: *mut Object);
    fn destroy_stream(stream: Object);
    /// Answers `NOT_READY` where something is still to be done.
    fn query_stream(stream: Object);
    fn synchronize_stream(stream: Object);
    fn wait_event(stream: Object, event: Object);
    fn call_host(stream: Object, function: HostFunction, data: *mut c_void);

    /// Leaves everybody else in peace: other threads may allocate meanwhile, and so may this one.
    fn begin_capture(stream: Object);
    /// Whether somebody captures on it: zero if not.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "streams are borrowed of CUDA alone"))]
    fn is_capturing(status: *mut c_int, stream: Object);
    fn end_capture(stream: Object, graph: *mut Object);
    fn destroy_graph(graph: Object);
    /// Makes of a graph what can be launched.
    fn instantiate(executable: *mut Object, graph: Object);
    /// Makes it ready on the device too, so that its first launch allocates nothing.
    fn upload(executable: Object, stream: Object);
    fn launch_graph(executable: Object, stream: Object);
    fn destroy_executable(executable: Object);

    fn create_event(event: *mut Object, timed: bool);
    fn destroy_event(event: Object);
    /// Answers `NOT_READY` where it has not passed.
    fn query_event(event: Object);
    fn record_event(event: Object, stream: Object);
    fn synchronize_event(event: Object);
    fn elapsed(milliseconds: *mut f32, from: Object, to: Object);

    /// Memory of the device; if it is `shared`, such that running kernels of several devices and processes see in it what
    /// the others do.
    fn allocate(address: *mut Address, bytes: usize, shared: bool);
    /// Waits for all that runs on the device.
    fn free(address: Address);
    /// One that keeps what is given back to it.
    fn create_pool(pool: *mut Object, device: c_int);
    /// Gives back to the system what is free in it.
    fn trim_pool(pool: Object);
    fn allocate_of_pool(address: *mut Address, bytes: usize, pool: Object, stream: Object);
    fn free_to_pool(address: Address, stream: Object);
    /// Free, and all.
    fn memory(free: *mut usize, total: *mut usize);
    /// Memory of the host that all devices address and see as the host does.
    fn pin(memory: *mut *mut c_void, bytes: usize);
    /// Makes such memory of what is mapped already.
    fn register(memory: *mut c_void, bytes: usize);
    fn unregister(memory: *mut c_void);
    /// Where devices address pinned memory.
    fn device_address(address: *mut Address, memory: *mut c_void);
    /// The allocation that holds an address.
    fn range(base: *mut Address, bytes: *mut usize, address: Address);
    #[cfg(feature = "cuda")]
    /// Of what somebody else allocated: the number of its device, and whether it may be exported.
    fn inspect(device: *mut c_int, exportable: *mut c_int, address: Address);

    /// Addresses of the host and of devices are of one kind here.
    fn copy(to: Address, from: Address, bytes: usize, stream: Object);
    fn copy_between(to: (Place, Address), from: (Place, Address), bytes: usize, stream: Object);
    fn fill_8(to: Address, value: u8, count: usize, stream: Object);
    fn fill_16(to: Address, value: u16, count: usize, stream: Object);
    fn fill_32(to: Address, value: u32, count: usize, stream: Object);

    /// Of an allocation, by where it begins.
    fn export(handle: *mut Handle, address: Address);
    fn open_exported(address: *mut Address, handle: &Handle);
    fn close_exported(address: Address);
}

/// Fills a table: which function of the library does what, with which arguments.
macro_rules! table {
    ($($name:ident($($argument:ident: $type:ty),* $(,)?) = $library:ident($($value:expr),* $(,)?);)*) => {
        $(
            unsafe fn $name(&self, $($argument: $type),*) -> Result<(), Fault> {
                // SAFETY: the caller's promise; the arguments are those of the library's function.
                unsafe { self.$library($($value),*) }
            }
        )*
    };
}

pub(crate) use table;
