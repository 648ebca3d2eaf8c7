// SPDX-License-Identifier: MPL-2.0
//! What `annulus doctor` finds out about a machine.

pub mod devices;
#[cfg(all(feature = "cuda", target_os = "linux"))]
pub mod gpu;
