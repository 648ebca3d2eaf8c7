// SPDX-License-Identifier: MPL-2.0
//! NVIDIA devices, through the driver's own library.

mod library;

pub(crate) use cudarc::driver::sys;
pub(crate) use library::{Driver, Fault, version};
