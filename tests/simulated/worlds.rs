// SPDX-License-Identifier: MPL-2.0
//! Ranks that have the devices to themselves.

use std::sync::{Mutex, PoisonError};

use annulus::driver::Stream;
use annulus::{Communicator, DeviceCommunicator};

use crate::ranks;
use crate::simulated::{count, open};

/// Runs `body` on `ranks` threads. One such world at a time has the devices to itself: launches of two worlds could
/// each take room that the other needs to go on.
pub fn threads(ranks: usize, body: impl Fn(Communicator) + Sync) {
    static ROOM: Mutex<()> = Mutex::new(());
    let _room = ROOM.lock().unwrap_or_else(PoisonError::into_inner);
    ranks::threads(ranks, body);
}

/// Runs `body` on `ranks` threads and, which takes longer on a card, on as many processes.
pub fn everywhere(ranks: usize, name: &str, body: impl Fn(Communicator) + Sync) {
    threads(ranks, &body);
    ranks::processes(ranks, name, &body);
}

/// The rank's communicator on its device, device `rank` modulo how many there are, and a stream.
///
/// What a rank then allocates for itself, or reads at length for the first time, a driver may do only when nothing runs; so
/// ranks meet on the host before a call that could wait for one that is still about it.
pub fn on(comm: &Communicator) -> (DeviceCommunicator, Stream) {
    let device = open(comm.rank() % count()).unwrap();
    let gpus = comm.on(&device).unwrap();
    let stream = device.stream().unwrap();
    (gpus, stream)
}
