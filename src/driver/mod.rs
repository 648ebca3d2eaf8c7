// SPDX-License-Identifier: MPL-2.0
//! What drives devices.
//!
//! So far CUDA's driver library alone, as far as `annulus doctor --gpu` needs it to ask a card how it behaves.

#[cfg(all(feature = "cuda", target_os = "linux"))]
pub(crate) mod cuda;
