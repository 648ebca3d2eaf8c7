// SPDX-License-Identifier: MPL-2.0
//! What tests on devices have in common, and the kind of device that they are on: simulated ones, or, in a process that
//! `on_the_stand_in` starts, those of CUDA over the stand-in for its driver. Neither is a GPU.
//!
//! `ANNULUS_TEST_DEVICE=cuda` puts them on the cards that the machine's own driver shows: then they need neither a
//! compiler nor the stand-in, and leave out what takes more cards than there are (benches/gpu.sh).
#![allow(dead_code)] // each test uses its part

use std::process::Command;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use annulus::driver::{Device, DeviceBuffer, Stream};
use annulus::{Element, Error};

use crate::{compiler, standin};

/// The environment variable of a process whose tests are on CUDA: over the stand-in, or on cards.
const KIND: &str = "ANNULUS_TEST_DEVICE";
const STAND_IN: &str = "stand-in";
const CARDS: &str = "cuda";

pub fn is_cuda() -> bool {
    match std::env::var(KIND) {
        Err(_) => false,
        Ok(kind) if kind == STAND_IN || kind == CARDS => true,
        Ok(other) => panic!("{KIND} is {other}; it may be {CARDS}, or is not set"),
    }
}

/// Whether the tests are on real cards.
pub fn is_on_cards() -> bool {
    std::env::var(KIND).is_ok_and(|kind| kind == CARDS)
}

/// Whether there are fewer cards than a test takes, or they cannot be made so that these pairs are out of reach. Other
/// devices are made as they are needed.
pub fn lacks(devices: &str, unreachable: &str) -> bool {
    let lacks =
        is_on_cards() && (!unreachable.is_empty() || devices.parse().is_ok_and(|devices: usize| devices > count()));
    if lacks {
        eprintln!("not tested here: {devices} cards, out of reach: {unreachable:?}");
    }
    lacks
}

/// The device of that number, of the kind that is tested.
pub fn open(index: usize) -> annulus::Result<Device> {
    if is_cuda() { Device::cuda(index) } else { Device::simulated(index) }
}

/// How many there are.
pub fn count() -> usize {
    if is_cuda() { Device::cuda_count() } else { Device::simulated_count() }.unwrap()
}

/// What a device of that number is called.
pub fn called(index: usize) -> String {
    format!("{} device {index}", if is_cuda() { "CUDA" } else { "simulated" })
}

/// What makes devices of one kind so, and those of the other too.
pub fn variables<'a>(of_simulated: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let twin = |name| match name {
        "ANNULUS_SIM_DEVICES" => Some("STANDIN_DEVICES"),
        "ANNULUS_SIM_UNREACHABLE" => Some("STANDIN_UNREACHABLE"),
        _ => None,
    };
    let twins = of_simulated.iter().filter_map(|(name, value)| Some((twin(name)?, *value)));
    of_simulated.iter().copied().chain(twins).collect()
}

/// Runs all tests of this binary again, but the calling one, on CUDA over the stand-in.
pub fn on_the_stand_in(calling: &str) {
    if is_cuda() || cfg!(not(feature = "cuda")) {
        return;
    }
    let Some(library) = standin::library() else { return };
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--skip", calling])
        .env(KIND, STAND_IN)
        .env("LD_LIBRARY_PATH", library)
        .env("STANDIN_MEMORY", "16384")
        // A real library of products could do nothing with it.
        .env("ANNULUS_PRODUCTS", "own")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "over the stand-in for the CUDA driver, no GPU:\n{}", said.concat());
    println!("over the stand-in for the CUDA driver, no GPU:\n{}", said[0]);
}

/// Whether the library was built without simulated devices, since this machine has no C++ compiler.
pub fn absent() -> bool {
    if is_cuda() {
        return false;
    }
    match Device::simulated(0) {
        Err(Error::Unsupported(why)) if compiler::compiler().is_none() => {
            assert!(why.contains("C++ compiler"), "{why}");
            true
        }
        Err(Error::Unsupported(why)) => panic!("{why}"),
        _ => false,
    }
}

/// Blocks a stream by a function of the host, until the sender is used or dropped.
pub fn block(stream: &Stream) -> Sender<()> {
    let (open, gate) = channel();
    let gate: Mutex<Receiver<()>> = Mutex::new(gate);
    let wait = move || gate.lock().unwrap().recv().unwrap_or_default();
    stream.call(wait).unwrap();
    open
}

/// A buffer of the device with these values, once the stream has come to it.
pub fn upload<T: Element>(device: &Device, stream: &Stream, values: &[T]) -> DeviceBuffer<T> {
    let buffer = device.allocate(values.len()).unwrap();
    stream.write(&buffer, values).unwrap();
    buffer
}
