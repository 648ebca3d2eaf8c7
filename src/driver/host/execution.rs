// SPDX-License-Identifier: MPL-2.0
//! Kernels, executed: the Rust side of `kernels/host/foreign.cpp`, and launches of both kinds of processors.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char, c_void};

use rustix::io::Errno;

use super::super::backend::{Failure, Grid};
use super::refused;
use super::strict::{self, Strict};

/// What there is to know of a kernel before it is launched.
#[repr(C)]
struct Found {
    kernel: *const c_void,
    argument_bytes: usize,
    argument_alignment: usize,
    file: *const c_char,
}

/// What a processor has.
#[repr(C)]
pub(super) struct Model {
    pub multiprocessors: u32,
    pub warp: u32,
    pub threads_per_block: u32,
    pub shared_per_block: u32,
}

/// How a launch ended: the worst end of a block (`Ended` of `kernels/host/block.h`), which block that was, and how many
/// of its threads were missing.
#[repr(C)]
struct Outcome {
    ended: u32,
    block: u32,
    absent: u32,
}

unsafe extern "C" {
    fn annulus_host_find(name: *const c_char) -> Found;
    fn annulus_host_device() -> *mut c_void;
    fn annulus_host_model(device: *const c_void) -> Model;
    fn annulus_host_resident(device: *const c_void, threads: u32, shared: u32) -> u32;
    fn annulus_host_run(
        device: *mut c_void,
        kernel: *const c_void,
        arguments: *const c_void,
        blocks: u32,
        threads: u32,
        shared: u32,
    ) -> Outcome;
}

/// The most alignment that a kernel's argument may ask for.
pub(super) const ALIGNMENT: usize = 16;

/// The kernel of that name: what it is known by, and the bytes of its argument.
pub(super) fn find(name: &CStr) -> Option<(u64, usize)> {
    // SAFETY: the name ends with a zero; the list of kernels is complete before main begins, and only read.
    let found = unsafe { annulus_host_find(name.as_ptr()) };
    let fits = !found.kernel.is_null() && found.argument_alignment <= ALIGNMENT;
    fits.then_some((found.kernel as u64, found.argument_bytes))
}

/// The file of the kernel of that name, as its compiler was told.
pub(super) fn file_of(name: &CStr) -> Option<String> {
    // SAFETY: as above.
    let file = unsafe { annulus_host_find(name.as_ptr()) }.file;
    // SAFETY: a file that is not null is a string of the program's own.
    (!file.is_null()).then(|| unsafe { CStr::from_ptr(file) }.to_string_lossy().into_owned())
}

/// What executes kernels as quickly as it can, and has room for so many blocks. It lives for ever.
pub(super) struct Quick(*mut c_void);

// SAFETY: any number of threads may run kernels on a device (device.h), and it is never destroyed.
unsafe impl Send for Quick {}
// SAFETY: as above.
unsafe impl Sync for Quick {}

impl Quick {
    pub fn new() -> Self {
        // SAFETY: takes nothing.
        Quick(unsafe { annulus_host_device() })
    }

    pub fn model(&self) -> Model {
        // SAFETY: the device lives.
        unsafe { annulus_host_model(self.0) }
    }
}

/// What runs the kernels of one device.
pub(super) enum Processor {
    Quick(Quick),
    Strict(Strict),
}

impl Processor {
    /// The kernel of that name: what it is known by, and the bytes of its argument.
    pub fn find(&self, name: &CStr) -> Result<Option<(u64, usize)>, Failure> {
        match self {
            Processor::Quick(_) => Ok(find(name)),
            Processor::Strict(_) => strict::find(name),
        }
    }

    /// How many blocks of this shape it has room for.
    pub fn resident(&self, threads: u32, shared: u32) -> u32 {
        match self {
            // SAFETY: the device lives.
            Processor::Quick(Quick(device)) => unsafe { annulus_host_resident(*device, threads, shared) },
            Processor::Strict(strict) => strict.resident(threads, shared),
        }
    }
}

/// A kernel with its argument, ready to run any number of times.
pub(super) struct Launch {
    kernel: u64,
    grid: Grid,
    argument: Box<[Chunk]>,
}

/// A part of an argument, as aligned as arguments are. Kernels get its address, and only read it.
#[repr(C, align(16))]
struct Chunk(UnsafeCell<[u8; ALIGNMENT]>);

// SAFETY: nobody writes to the chunks of a launch.
unsafe impl Sync for Chunk {}

impl Launch {
    pub fn new(kernel: u64, grid: Grid, argument: &[u8]) -> Self {
        let chunk = |bytes: &[u8]| {
            let mut chunk = [0; ALIGNMENT];
            chunk[..bytes.len()].copy_from_slice(bytes);
            Chunk(UnsafeCell::new(chunk))
        };
        Launch { kernel, grid, argument: argument.chunks(ALIGNMENT).map(chunk).collect() }
    }

    /// Runs it to its end. `number` counts the launches of its stream.
    ///
    /// # Safety
    /// The kernel is one that the processor found, the argument is one that it takes, and its memory is there until the
    /// end. The processor has room for such blocks.
    pub unsafe fn run(&self, processor: &Processor, number: u64) -> Result<(), Failure> {
        let argument = self.argument.as_ptr().cast();
        let device = match processor {
            Processor::Quick(Quick(device)) => *device,
            // SAFETY: as the caller promises.
            Processor::Strict(strict) => return unsafe { strict.run(self.kernel, self.grid, argument, number) },
        };
        let Grid { blocks, threads, shared } = self.grid;
        let kernel = self.kernel as *const c_void;
        // SAFETY: the device lives; the rest is the caller's promise.
        let outcome = unsafe { annulus_host_run(device, kernel, argument, blocks, threads, shared) };
        let Outcome { ended, block, absent } = outcome;
        let (errno, meaning) = match ended {
            0 => return Ok(()),
            1 => (Errno::PROTO, format!("in block {block}, {absent} threads ended without a barrier others waited at")),
            2 => (Errno::DEADLK, format!("block {block} was given up: {absent} threads never came to a barrier")),
            _ => (Errno::NOMEM, format!("block {block} was given up: no memory for the stacks of its threads")),
        };
        Err(refused("a kernel", errno, meaning))
    }
}
