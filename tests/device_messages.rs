// SPDX-License-Identifier: MPL-2.0
//! Messages on device memory, on simulated devices, and on CUDA over the stand-in for its driver: bits, order, failures.
//!
//! Ranks are threads and processes; what needs several devices is run in a process of its own (`ranks`).

#![cfg(all(any(feature = "sim", feature = "cuda"), target_os = "linux"))]

#[macro_use]
mod types;

#[path = "device_messages/bits.rs"]
mod bits;
mod compiler;
#[path = "device_messages/failures.rs"]
mod failures;
#[path = "device_messages/order.rs"]
mod order;
mod ranks;
mod simulated;
#[path = "standin/mod.rs"]
mod standin;
#[path = "simulated/worlds.rs"]
mod worlds;

use simulated::{absent, block, is_simulated, lacks, variables};
use worlds::{everywhere, on, threads};

/// Messages go by a kernel, or as those of schedules.
const ALGORITHMS: [Option<&str>; 2] = [None, Some("schedule:ring")];

#[cfg(feature = "cuda")]
#[test]
fn all_of_it_on_cuda_over_the_stand_in() {
    simulated::on_the_stand_in("cuda", &[]);
}

#[cfg(feature = "hip")]
#[test]
fn all_of_it_on_hip_over_the_stand_in() {
    simulated::on_the_stand_in("hip", &[]);
}
