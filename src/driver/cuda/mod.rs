// SPDX-License-Identifier: MPL-2.0
//! NVIDIA devices, through the driver's own library: what is theirs alone. The rest is `gpu`.
//!
//! | file | subject |
//! |---|---|
//! | `library` `management` | the driver's functions, and those of the management library, found at run time |
//! | `table` | which of them `gpu` calls, for what |
//! | `ptx` | the kernels' code, embedded |
//! | `blas` | matrix products by cuBLAS |
//! | `borrowed` | a user's own streams and memory |

mod blas;
mod borrowed;
mod library;
mod management;
pub(crate) mod ptx;
mod table;

use std::sync::Arc;

pub(crate) use self::library::{Driver, version};
pub(crate) use self::management::{Managed, Management};
pub(crate) use super::gpu::Fault;
/// The version of cudarc whose streams and memory are taken. It has the bindings for one version of CUDA in a program: whoever
/// depends on it too names the feature `cuda-12020`, or none of its versions.
pub use cudarc;
pub(crate) use cudarc::driver::sys;

use super::device::Core;
use super::gpu::{self, Opened};
use crate::error::Result;

/// How many devices the driver shows to this process.
pub(super) fn count() -> Result<usize> {
    Ok(gpu::count(Driver::get()?)?)
}

/// The device of that number, opened once, for ever.
pub(super) fn device(index: usize) -> Result<Arc<Core>> {
    static OPENED: Opened = Opened::new();
    OPENED.device(Driver::get()?, index)
}
