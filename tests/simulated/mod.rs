// SPDX-License-Identifier: MPL-2.0
//! What tests on devices have in common, and the kind of device that they are on: simulated ones, or, in a process that
//! `on_the_stand_in` starts, those of CUDA or HIP over the stand-in for the driver. None is a GPU.
//!
//! `ANNULUS_TEST_DEVICE=cuda` puts them on the cards that the machine's own driver shows, and so does `=hip`: then they need
//! neither a compiler nor the stand-in, and leave out what takes more cards than there are (benches/gpu.sh).
#![allow(dead_code)] // each test uses its part

use std::process::Command;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use annulus::driver::{Device, DeviceBuffer, Stream};
use annulus::{Element, Error};

use crate::{compiler, standin};

/// The environment variable of a process whose tests are on CUDA or on HIP: over the stand-in, or on cards.
const KIND: &str = "ANNULUS_TEST_DEVICE";
const STAND_IN: &str = "stand-in ";

/// `sim`, `cuda` or `hip`.
pub fn kind() -> String {
    let kind = std::env::var(KIND).unwrap_or_else(|_| "sim".into());
    match kind.trim_start_matches(STAND_IN) {
        known @ ("sim" | "cuda" | "hip") => known.into(),
        _ => panic!("{KIND} is {kind}; it may be cuda or hip, or is not set"),
    }
}

pub fn is_simulated() -> bool {
    kind() == "sim"
}

/// Whether the tests are on real cards.
pub fn is_on_cards() -> bool {
    !is_simulated() && std::env::var(KIND).is_ok_and(|kind| !kind.starts_with(STAND_IN))
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
    match kind().as_str() {
        "cuda" => Device::cuda(index),
        "hip" => Device::hip(index),
        _ => Device::simulated(index),
    }
}

/// How many there are.
pub fn count() -> usize {
    match kind().as_str() {
        "cuda" => Device::cuda_count(),
        "hip" => Device::hip_count(),
        _ => Device::simulated_count(),
    }
    .unwrap()
}

/// What a device of that number is called.
pub fn called(index: usize) -> String {
    let platform = match kind().as_str() {
        "cuda" => "CUDA",
        "hip" => "HIP",
        _ => "simulated",
    };
    format!("{platform} device {index}")
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

/// Runs tests of this binary again, but those that do this, on that kind of device over the stand-in: all whose names
/// have one of these in them.
pub fn on_the_stand_in(kind: &str, tests: &[&str]) {
    if !is_simulated() {
        return;
    }
    let Some(library) = standin::library() else { return };
    let output = Command::new(std::env::current_exe().unwrap())
        .args(tests)
        .args(["--skip", "over_the_stand_in"])
        .env(KIND, format!("{STAND_IN}{kind}"))
        .env("LD_LIBRARY_PATH", library)
        .env("ANNULUS_HIP_CODE", standin::bundles(&["gfx90a"]))
        .env("STANDIN_MEMORY", "16384")
        // Ranks that share a card leave some of them alone.
        .env("STANDIN_MULTIPROCESSORS", "8")
        // As it must be where ranks share a card; where it is not, a timeout says so (`tests/cuda.rs`).
        .env("CUDA_DEVICE_MAX_CONNECTIONS", "32")
        .env("STANDIN_LENT", "1")
        // A real library of products could do nothing with it.
        .env("ANNULUS_PRODUCTS", "own")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{kind} over the stand-in, no GPU:\n{}", said.concat());
    println!("{kind} over the stand-in, no GPU:\n{}", said[0]);
}

/// Whether the library was built without simulated devices, since this machine has no C++ compiler.
pub fn absent() -> bool {
    if !is_simulated() {
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
