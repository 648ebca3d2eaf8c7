// SPDX-License-Identifier: MPL-2.0
//! What tests on simulated devices have in common.

#![allow(dead_code)] // each test uses its part

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use annulus::driver::{Device, DeviceBuffer, Stream};
use annulus::{Element, Error};

use crate::compiler;

/// Whether the library was built without simulated devices, since this machine has no C++ compiler.
pub fn absent() -> bool {
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
