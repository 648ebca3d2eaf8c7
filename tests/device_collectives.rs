// SPDX-License-Identifier: MPL-2.0
//! Collectives on device memory, on simulated devices, and on CUDA over the stand-in for its driver: bits, faults, graphs,
//! streams.
//!
//! Ranks are threads and processes; what needs several devices is run in a process of its own (`ranks`).

#![cfg(all(feature = "sim", target_os = "linux"))]

#[macro_use]
mod types;

#[path = "device_collectives/bits.rs"]
mod bits;
mod compiler;
#[path = "device_collectives/deaths.rs"]
mod deaths;
#[path = "device_collectives/failures.rs"]
mod failures;
#[path = "device_collectives/life.rs"]
mod life;
#[path = "device_collectives/order.rs"]
mod order;
mod ranks;
#[path = "device_collectives/records.rs"]
mod records;
mod simulated;
#[path = "standin/mod.rs"]
mod standin;

use std::sync::{Mutex, PoisonError};

use annulus::driver::Stream;
use annulus::{Communicator, DeviceCommunicator};

use simulated::{absent, block, count, is_cuda, on_the_stand_in, open, upload, variables};

#[test]
fn all_of_it_on_cuda_over_the_stand_in() {
    on_the_stand_in("all_of_it_on_cuda_over_the_stand_in");
}

/// Runs `body` on `ranks` threads. One such world at a time has the devices to itself: launches of two worlds could
/// each take room that the other needs to go on.
fn threads(ranks: usize, body: impl Fn(Communicator) + Sync) {
    static ROOM: Mutex<()> = Mutex::new(());
    let _room = ROOM.lock().unwrap_or_else(PoisonError::into_inner);
    ranks::threads(ranks, body);
}

/// Runs `body` on `ranks` processes and on as many threads.
fn everywhere(ranks: usize, name: &str, body: impl Fn(Communicator) + Sync) {
    ranks::processes(ranks, name, &body);
    threads(ranks, &body);
}

/// The rank's communicator on its device, device `rank` modulo how many there are, and a stream.
fn on(comm: &Communicator) -> (DeviceCommunicator, Stream) {
    let device = open(comm.rank() % count()).unwrap();
    let gpus = comm.on(&device).unwrap();
    let stream = device.stream().unwrap();
    (gpus, stream)
}
