// SPDX-License-Identifier: MPL-2.0
//! Collectives on device memory, on simulated devices, and on CUDA over the stand-in for its driver: bits, faults, graphs,
//! streams.
//!
//! Ranks are threads and processes; what needs several devices is run in a process of its own (`ranks`).

#![cfg(all(any(feature = "sim", feature = "cuda"), target_os = "linux"))]

#[macro_use]
mod types;

#[path = "device_collectives/bits.rs"]
mod bits;
#[path = "simulated/calls.rs"]
mod calls;
mod compiler;
#[path = "device_collectives/deaths.rs"]
mod deaths;
#[path = "device_collectives/failures.rs"]
mod failures;
#[path = "device_collectives/hosted.rs"]
mod hosted;
#[path = "device_collectives/leaving.rs"]
mod leaving;
#[path = "device_collectives/life.rs"]
mod life;
#[path = "device_collectives/order.rs"]
mod order;
mod ranks;
#[path = "device_collectives/records.rs"]
mod records;
#[path = "simulated/replays.rs"]
mod replays;
mod simulated;
#[path = "standin/mod.rs"]
mod standin;
#[path = "simulated/worlds.rs"]
mod worlds;

use simulated::{absent, block, is_on_cards, is_simulated, lacks, upload, variables};
use worlds::{everywhere, on, threads};

/// What a call fails with in which somebody is missed: as its stream ends, or at once, where another rank has missed that
/// one before this rank came to the call.
fn failure(enqueued: annulus::Result<()>, stream: &annulus::driver::Stream) -> annulus::Error {
    enqueued.and_then(|()| stream.synchronize()).unwrap_err()
}

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
