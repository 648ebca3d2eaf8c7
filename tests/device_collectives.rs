// SPDX-License-Identifier: MPL-2.0
//! Collectives on device memory, on simulated devices: bits, faults, graphs, streams.
//!
//! Ranks are threads and processes; what needs several devices is run in a process of its own (`ranks`).

#![cfg(all(feature = "sim", target_os = "linux"))]

#[macro_use]
mod types;

#[path = "device_collectives/bits.rs"]
mod bits;
mod compiler;
#[path = "device_collectives/failures.rs"]
mod failures;
#[path = "device_collectives/order.rs"]
mod order;
mod ranks;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};

use annulus::driver::{Device, DeviceBuffer, Stream};
use annulus::{Communicator, DeviceCommunicator, Element, Error};

/// Whether the library was built without simulated devices, since this machine has no C++ compiler.
fn absent() -> bool {
    match Device::simulated(0) {
        Err(Error::Unsupported(why)) if compiler::compiler().is_none() => {
            assert!(why.contains("C++ compiler"), "{why}");
            true
        }
        Err(Error::Unsupported(why)) => panic!("{why}"),
        _ => false,
    }
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
    let device = Device::simulated(comm.rank() % Device::simulated_count().unwrap()).unwrap();
    let gpus = comm.on(&device).unwrap();
    let stream = device.stream().unwrap();
    (gpus, stream)
}

/// Blocks a stream by a function of the host, until the sender is used or dropped.
fn block(stream: &Stream) -> Sender<()> {
    let (open, gate) = channel();
    let gate: Mutex<Receiver<()>> = Mutex::new(gate);
    let wait = move || gate.lock().unwrap().recv().unwrap_or_default();
    stream.call(wait).unwrap();
    open
}

fn upload<T: Element>(device: &Device, stream: &Stream, values: &[T]) -> DeviceBuffer<T> {
    let buffer = device.allocate(values.len()).unwrap();
    stream.write(&buffer, values).unwrap();
    buffer
}
