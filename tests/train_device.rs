// SPDX-License-Identifier: MPL-2.0
//! Training in device memory, on the simulated device, and on CUDA over the stand-in for its driver: several ranks
//! equal one, bit for bit, in every precision; against the CPU within a derived bound; and what goes wrong is noticed.

#![cfg(all(feature = "cli", any(feature = "sim", feature = "cuda"), target_os = "linux"))]

#[path = "train_device/bound.rs"]
mod bound;
#[path = "train_device/command.rs"]
mod command;
mod compiler;
#[path = "train_device/memory.rs"]
mod memory;
#[path = "train_device/precision.rs"]
mod precision;
#[path = "train_device/proof.rs"]
mod proof;
mod simulated;
#[path = "standin/mod.rs"]
mod standin;

use std::sync::{Mutex, MutexGuard, PoisonError};

use annulus::Communicator;
use annulus::train::{self, Choice, Config, Report};

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

/// The kind of device that is tested, as the command knows it.
fn kind() -> &'static str {
    match simulated::kind().as_str() {
        "cuda" => "cuda",
        "hip" => "hip",
        _ => "sim",
    }
}

/// One world at a time has the device to itself: launches of two worlds could each take room that the other needs.
fn room() -> MutexGuard<'static, ()> {
    static ROOM: Mutex<()> = Mutex::new(());
    ROOM.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `body` on `ranks` threads, and returns what it returned.
fn threads<T: Send>(ranks: usize, body: impl Fn(Communicator) -> annulus::Result<T> + Sync) -> Vec<T> {
    let _room = room();
    annulus::run(ranks, body).unwrap()
}

/// What rank 0 reports of this run.
fn report(config: &Config) -> Report {
    let prepared = config.prepare().unwrap();
    threads(config.ranks, |comm| train::run(comm, config, &prepared, &|_| ())).swap_remove(0)
}

/// A run of three steps.
fn small(ranks: usize) -> Config {
    let device = Choice::Devices(kind());
    Config { device, ranks, hidden: vec![12], batch: 8, steps: Some(3), ..Config::default() }
}
