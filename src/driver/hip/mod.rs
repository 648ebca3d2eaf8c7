// SPDX-License-Identifier: MPL-2.0
//! AMD devices, through HIP: what is theirs alone. The rest is `gpu`. **This has never run on AMD's hardware**: its tests
//! execute it over a stand-in for the library.
//!
//! | file | subject |
//! |---|---|
//! | `sys` | the library's functions; the only file that names `hip_sys` |
//! | `table` | which of them `gpu` calls, for what |
//! | `objects` | the kernels' code, embedded or in a folder |
//!
//! The library is linked, so a program that was built with it does not start without it. Its functions are nearly CUDA's.
//! Where they are not:
//!
//! - There are no contexts; each thread has a device, which a call sets and puts back.
//! - Kernels that run see each other's stores to another device's memory, or another process's, only if that is
//!   *fine-grained*. Flags, arenas and all that peers map are; so is pinned memory. Memory of the device alone is not.
//! - An event releases what was written to its device alone, unless it is made to release to the system: ours are, since
//!   another device may wait for them.
//! - To free waits for all that runs on the device, as in CUDA: `gpu` retires memory.
//! - Cards without a number of their own share a UUID, so an identity is of that and of the place on the bus.
//! - A handle of another process's memory is opened with a flag that is 1 since HIP 6 and was 0 before; each version
//!   refuses the other's. Opened twice, it may come to two addresses.
//! - Pinned memory that was mapped before (`register`) may have another address on the device; that is refused.
//! - Nothing makes a graph ready on the device before its first launch.
//! - Functions of the host want `hipLaunchHostFunc`, which HIP 5.2 has not; what it had before cannot be captured. So it is
//!   looked for when it is needed, and an error says that it is missing.
//! - A launch has less than 2^32 threads; all shapes of ours are below that.
//! - `hipGetDeviceProperties`, `hipPointerGetAttributes` and `hipMemoryType` are not used: their layouts and numbers have
//!   changed under the same names. So somebody else's memory and streams are taken of CUDA alone.

mod objects;
mod sys;
mod table;

use std::sync::Arc;

pub(crate) use self::sys::{Hip, version};

use super::device::Core;
use super::gpu::{self, Opened};
use crate::error::Result;

/// How many devices HIP shows to this process.
pub(super) fn count() -> Result<usize> {
    Ok(gpu::count(Hip::get()?)?)
}

/// The device of that number, opened once, for ever.
pub(super) fn device(index: usize) -> Result<Arc<Core>> {
    static OPENED: Opened = Opened::new();
    OPENED.device(Hip::get()?, index)
}
