// SPDX-License-Identifier: MPL-2.0
//! What a kind of device must offer: one object-safe trait of ids, addresses and bytes, below everything that is safe.
//!
//! A backend drives one device. It decides nothing: which operation needs which wait, how long memory must stay and
//! what an error is called in words is for the types above, which are written once. Ids and addresses of one *platform*
//! (all simulated devices of a process, all CUDA devices of a process) are valid on each of its devices.
//!
//! An enqueued operation is done after all that were enqueued on its stream before, and sees what they wrote; enqueuing
//! waits for no operation, as long as no more are outstanding than a driver's queue has room for (`queue`). What a
//! stream did before an event that was recorded on it is seen by whatever waited for the event.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fmt;

use super::capabilities::Capabilities;
use crate::element::DataType;

/// An address on a device; the host's own addresses are such addresses too.
pub(crate) type Address = u64;

/// A stream of a platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct StreamId(pub u64);

/// An event of a platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct EventId(pub u64);

/// A kernel, as one device knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FunctionId(pub u64);

/// Captured work of a device, ready to be launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct GraphId(pub u64);

/// A user of a vendor's matrix products, on one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ProductsId(pub u64);

/// Matrix products by the vendor's own library.
#[derive(Debug)]
pub(crate) struct Products {
    pub id: ProductsId,
    /// The library's name and version.
    pub name: String,
    /// Bytes of device memory that each product is given to work in.
    pub workspace: usize,
}

/// A factor of a product: row-major, or, if it is transposed, column-major.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(
    not(all(feature = "cuda", target_os = "linux")),
    expect(dead_code, reason = "NVIDIA's devices alone have a library of products")
)]
pub(crate) struct Factor {
    pub address: Address,
    /// Elements from a row to the next, or from a column to the next.
    pub step: usize,
    pub transposed: bool,
}

/// A matrix product of one type, f32, f16 or bf16, which is added up in f32. The result is row-major and without gaps.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(
    not(all(feature = "cuda", target_os = "linux")),
    expect(dead_code, reason = "NVIDIA's devices alone have a library of products")
)]
pub(crate) struct Product {
    pub left: Factor,
    pub right: Factor,
    pub to: Address,
    pub data_type: DataType,
    pub rows: usize,
    pub columns: usize,
    /// Columns of the left factor, rows of the right one; not zero, as the others.
    pub inner: usize,
    /// Whether the product is added to what is there.
    pub accumulate: bool,
}

/// What memory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemoryKind {
    /// Of the device; from a pool where it has one. No other device and no other process maps it.
    Local,
    /// Of the device, an allocation of its own: what peers may map, and what may be exported.
    Mappable,
    /// Of the host, where the device addresses it directly.
    Pinned,
    /// Of the host, where every device of the platform addresses it directly, and what may be exported: for devices
    /// that do not reach each other. From [`Backend::import`] too.
    Hosted,
    /// Another process's mappable memory. Comes from [`Backend::import`] alone.
    Imported,
}

/// An allocation that somebody else made.
#[cfg(all(feature = "cuda", target_os = "linux"))]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whole {
    /// The number of its device.
    pub device: usize,
    pub begins: Address,
    pub bytes: usize,
    /// Whether peers may map it, and it may be exported.
    pub mappable: bool,
}

/// The name by which another process of this host finds exported memory.
pub(crate) type Handle = [u8; 64];

/// What is known of a kernel before it is launched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Function {
    pub id: FunctionId,
    /// Bytes of its one argument, where the backend can tell.
    pub argument_bytes: Option<usize>,
}

/// How many blocks, of how many threads, with how much dynamic shared memory.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(
    not(any(annulus_simulated, all(any(feature = "cuda", feature = "hip"), target_os = "linux"))),
    expect(dead_code, reason = "no backend is built that would read it")
)]
pub(crate) struct Grid {
    pub blocks: u32,
    pub threads: u32,
    pub shared: u32,
}

/// A function of the host that a stream calls.
pub(crate) type HostFunction = unsafe extern "C" fn(*mut c_void);

/// What was refused: the call, the number it answered, and what that number means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub call: &'static str,
    pub code: i32,
    pub meaning: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answers {} ({})", self.call, self.meaning, self.code)
    }
}

/// One device, driven. Any thread may call any function at any time; none but those that say so waits.
///
/// # Safety
///
/// The functions do what is said of them: memory is as long and as aligned (256 bytes) as asked for, ids are unique,
/// and an event that has passed says that all work before it has been done.
pub(crate) unsafe trait Backend: Send + Sync {
    /// What the device is.
    fn capabilities(&self) -> &Capabilities;

    /// What has been noticed of kernels that is no failure by itself, since this was asked last.
    fn remark(&self) -> Option<String> {
        None
    }

    /// The number of the device of that identity on this platform; `None` where this process does not see it.
    fn peer(&self, identity: [u8; 16]) -> Option<usize>;

    /// Whether this device can address mappable memory of another of its platform.
    fn reaches(&self, other: usize) -> Result<bool, Failure>;

    /// Lets this device address another's mappable memory from now on. Again is not an error.
    fn enable_peer(&self, other: usize) -> Result<(), Failure>;

    /// Zeroed memory of at least one byte. Not of kind `Imported`.
    fn allocate(&self, bytes: usize, kind: MemoryKind) -> Result<Address, Failure>;

    /// Gives memory back.
    ///
    /// # Safety
    /// The address came from `allocate` or `import` of this device as that kind, was not freed before, and no operation
    /// that uses the memory is still to be done.
    unsafe fn free(&self, address: Address, kind: MemoryKind) -> Result<(), Failure>;

    /// A name for the allocation, of kind `Mappable` or `Hosted`, that holds this address, where in it the address is, and
    /// how many bytes it has, where `import` has to be told.
    ///
    /// # Safety
    /// The memory was allocated on this device and has not been freed.
    unsafe fn export(&self, address: Address) -> Result<(Handle, u64, u64), Failure>;

    /// Maps what another process exported, all of it: where it begins and how many bytes it has, which `export` said.
    /// It becomes memory of that kind: `Imported`, or `Hosted` if it was. Any bytes may be tried as a handle; a process
    /// cannot import its own memory.
    fn import(&self, handle: &Handle, bytes: u64, kind: MemoryKind) -> Result<(Address, usize), Failure>;

    /// Unmaps, before it returns and whatever that waits for, what was imported and has been freed: where `free` keeps it
    /// for later.
    fn close_imports(&self) {}

    /// Whether somebody captures a graph on a stream; it may be somebody else's.
    ///
    /// # Safety
    /// The stream lives.
    unsafe fn is_capturing(&self, _stream: StreamId) -> Result<bool, Failure> {
        Ok(false)
    }

    /// What is known of the allocation that holds this address, which somebody else made on this platform.
    #[cfg(all(feature = "cuda", target_os = "linux"))]
    fn inspect(&self, address: Address) -> Result<Whole, Failure>;

    /// A new stream, which waits for no other. What is enqueued on streams that are not `urgent` does not keep one that is,
    /// as far as the backend can see to that.
    fn create_stream(&self, urgent: bool) -> Result<StreamId, Failure>;

    /// Ends a stream, once what was enqueued on it has been done; does not wait for that.
    ///
    /// # Safety
    /// The stream lives, captures nothing, and is not used again.
    unsafe fn destroy_stream(&self, stream: StreamId);

    /// A stream that somebody else made and ends is used, until it was given back as often as it was borrowed.
    fn borrow_stream(&self, _: StreamId) -> Result<(), Failure> {
        Ok(())
    }

    /// Gives it back. It may be gone then, as soon as its owner likes.
    fn return_stream(&self, _: StreamId) {}

    /// Waits until all that was enqueued has been done, and says whether any of it failed. Refused while it captures.
    ///
    /// # Safety
    /// The stream lives.
    unsafe fn synchronize_stream(&self, stream: StreamId) -> Result<(), Failure>;

    /// A new event, which keeps the time if it is `timed`. It counts as passed until it is recorded.
    fn create_event(&self, timed: bool) -> Result<EventId, Failure>;

    /// # Safety
    /// The event lives and is not used again; waits for it that were enqueued are kept.
    unsafe fn destroy_event(&self, event: EventId);

    /// Makes the event stand for all that has been enqueued on the stream.
    ///
    /// # Safety
    /// Both live, and the stream captures nothing.
    unsafe fn record_event(&self, event: EventId, stream: StreamId) -> Result<(), Failure>;

    /// Makes what is enqueued later wait for the event as it was recorded last.
    ///
    /// # Safety
    /// Both live, are of one platform, and the stream captures nothing.
    unsafe fn wait_event(&self, stream: StreamId, event: EventId) -> Result<(), Failure>;

    /// Waits for the event as it was recorded last, and says whether its stream has failed.
    ///
    /// # Safety
    /// The event lives.
    unsafe fn synchronize_event(&self, event: EventId) -> Result<(), Failure>;

    /// Whether the event, as it was recorded last, has passed.
    ///
    /// # Safety
    /// The event lives.
    unsafe fn has_passed(&self, event: EventId) -> Result<bool, Failure>;

    /// Nanoseconds from one event to another.
    ///
    /// # Safety
    /// Both live, keep the time and have passed.
    unsafe fn nanoseconds(&self, from: EventId, to: EventId) -> Result<f64, Failure>;

    /// Enqueues a copy between memory of this device and of the host, or within either; the ranges do not overlap.
    ///
    /// # Safety
    /// Both ranges are of such memory until the copy has been done. The stream is of this device.
    unsafe fn copy(&self, to: Address, from: Address, bytes: usize, stream: StreamId) -> Result<(), Failure>;

    /// Enqueues a copy from memory of one device to memory of another. This device is one of them and reaches the
    /// other, or reaches both.
    ///
    /// # Safety
    /// As `copy`, with each range on its device.
    unsafe fn copy_between(
        &self,
        to: (usize, Address),
        from: (usize, Address),
        bytes: usize,
        stream: StreamId,
    ) -> Result<(), Failure>;

    /// Enqueues a store of the lowest `width` bytes of `pattern` (1, 2, 4 or 8) `count` times in a row.
    ///
    /// # Safety
    /// The range is of this device until then, and aligned to `width`.
    unsafe fn fill(
        &self,
        to: Address,
        pattern: u64,
        width: usize,
        count: usize,
        stream: StreamId,
    ) -> Result<(), Failure>;

    /// Enqueues a call of a function of the host. It must not call the driver.
    ///
    /// # Safety
    /// The function may be called with `data`, on any thread, until the operation has been done.
    unsafe fn call_host(&self, function: HostFunction, data: *mut c_void, stream: StreamId) -> Result<(), Failure>;

    /// The kernel of that name, ready to be launched without further ado; `None` where there is none.
    fn function(&self, name: &str) -> Result<Option<Function>, Failure>;

    /// How many blocks of this kernel the whole device holds at once, when nothing else runs.
    ///
    /// # Safety
    /// The function is of this device.
    unsafe fn resident_blocks(&self, function: FunctionId, threads: u32, shared: u32) -> Result<u32, Failure>;

    /// Enqueues a kernel with the bytes of its one argument, which are copied. With `together`, the launch is refused
    /// unless all its blocks can be resident at once.
    ///
    /// # Safety
    /// The argument is the kernel's, as long as it takes, and its addresses are of memory as the kernel uses it until
    /// it has ended. The grid is one that the device has room for. The stream is of this device.
    unsafe fn launch(
        &self,
        function: FunctionId,
        grid: Grid,
        together: bool,
        argument: &[u8],
        stream: StreamId,
    ) -> Result<(), Failure>;

    /// Matrix products by the vendor's library, for one user; or why there are none. May wait for what runs.
    fn products(&self) -> Result<Products, String> {
        Err("these devices have no library of products".into())
    }

    /// A user of products asks for no more.
    fn end_products(&self, _: ProductsId) {}

    /// Enqueues a product: the same bits whenever it is enqueued on devices of one model. The first of its extents may wait
    /// for what runs.
    ///
    /// # Safety
    /// The id came from `products` of this device and is asked by nobody else at the same time. All memory is of this
    /// device, and as long as the product takes it to be; nothing else uses the workspace meanwhile. The stream is of this
    /// device.
    unsafe fn multiply(&self, _: ProductsId, _: &Product, _: Address, _: StreamId) -> Result<(), Failure> {
        Err(Failure { call: "multiply", code: -1, meaning: "there is no library of products".into() })
    }

    /// From now on what is enqueued on the stream is recorded and not done.
    ///
    /// # Safety
    /// The stream lives and captures nothing.
    unsafe fn begin_capture(&self, stream: StreamId) -> Result<(), Failure>;

    /// Ends the capture and makes what was recorded ready to be launched. The capture has ended also if that fails.
    ///
    /// # Safety
    /// The stream lives and captures.
    unsafe fn end_capture(&self, stream: StreamId) -> Result<GraphId, Failure>;

    /// Enqueues all that was recorded, in its order.
    ///
    /// # Safety
    /// The graph lives until then, and so does all that the recorded operations use. The stream is of this device.
    unsafe fn launch_graph(&self, graph: GraphId, stream: StreamId) -> Result<(), Failure>;

    /// # Safety
    /// The graph lives, is not used again, and none of its launches is still to be done.
    unsafe fn destroy_graph(&self, graph: GraphId);
}
