// SPDX-License-Identifier: MPL-2.0
//! Schedules on device memory, done by copies, folds and flags, on simulated devices, and on CUDA and HIP over the stand-in
//! for their drivers: bits, one's own schedules, graphs, failures.

#![cfg(all(any(feature = "sim", feature = "cuda"), target_os = "linux"))]

#[macro_use]
mod types;

#[path = "device_schedules/bits.rs"]
mod bits;
mod butterfly;
#[path = "simulated/calls.rs"]
mod calls;
mod compiler;
#[path = "device_schedules/explained.rs"]
mod explained;
#[path = "device_schedules/failures.rs"]
mod failures;
#[path = "device_schedules/order.rs"]
mod order;
#[path = "device_schedules/own.rs"]
mod own;
mod programs;
mod ranks;
#[path = "simulated/replays.rs"]
mod replays;
mod simulated;
#[path = "standin/mod.rs"]
mod standin;
#[path = "simulated/worlds.rs"]
mod worlds;

use simulated::{absent, is_on_cards, lacks, upload};
use worlds::{everywhere, on, threads};

/// What is done over the stand-in: `some`, or everything.
#[cfg(any(feature = "cuda", feature = "hip"))]
fn of_the_stand_in(some: &'static [&'static str]) -> &'static [&'static str] {
    if ranks::full() { &[] } else { some }
}

#[cfg(feature = "cuda")]
#[test]
fn some_of_it_on_cuda_over_the_stand_in() {
    simulated::on_the_stand_in("cuda", of_the_stand_in(&["several_devices", "explained", "failures", "order", "own"]));
}

#[cfg(feature = "hip")]
#[test]
fn some_of_it_on_hip_over_the_stand_in() {
    simulated::on_the_stand_in("hip", of_the_stand_in(&["failures", "order", "own"]));
}
