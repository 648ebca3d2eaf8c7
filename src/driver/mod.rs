// SPDX-License-Identifier: MPL-2.0
//! Devices, and what is done on them: memory, streams, events, kernels, graphs, memory of other processes.
//!
//! ```no_run
//! use annulus::driver::Device;
//!
//! let device = Device::simulated(0)?;
//! let stream = device.stream()?;
//! let buffer = device.allocate::<f32>(1000)?;
//! stream.fill(&buffer, 1.5)?; // enqueued; returns at once
//! assert_eq!(stream.read(&buffer)?, [1.5; 1000]);
//! # Ok::<(), annulus::Error>(())
//! ```
//!
//! The types here are written once, over one trait that knows ids, addresses and bytes (`backend`); every kind of
//! device implements it. `cuda` (feature `cuda`) drives NVIDIA's, through the driver's own library, looked for
//! when the program runs; `hip` (feature `hip`) AMD's, through HIP, which is linked; both are `gpu` with a table of
//! functions. The simulated device (`host`, feature `sim`) executes the library's kernels on the CPU; a strict
//! one looks at everything that they do, and executes users' kernels too ([`strict`]).
//!
//! To enqueue returns at once while less than about a hundred operations of a device are outstanding; whoever is further
//! ahead waits for some of its own stream's to be done, since drivers' queues end too (`queue`).
//!
//! What is safe here is sound: an enqueued operation holds what it uses until it has been done, and two that use the
//! same elements are in order, whatever their streams, as long as one of them writes. Launching a kernel is unsafe,
//! since what it does with an address is its own affair.
//!
//! Collectives on device memory are [`DeviceCommunicator`](crate::DeviceCommunicator)'s.

mod allocation;
mod backend;
mod buffer;
mod capabilities;
mod copies;
#[cfg(all(feature = "cuda", target_os = "linux"))]
pub(crate) mod cuda;
mod device;
mod event;
mod faults;
#[cfg(all(any(feature = "cuda", feature = "hip"), target_os = "linux"))]
pub(crate) mod gpu;
mod graph;
#[cfg(all(feature = "hip", target_os = "linux"))]
pub(crate) mod hip;
#[cfg(annulus_simulated)]
mod host;
mod ipc;
mod kernel;
#[cfg(any(annulus_simulated, all(any(feature = "cuda", feature = "hip"), target_os = "linux")))]
mod mapping;
mod mark;
mod products;
mod queue;
mod stream;
pub mod strict;
mod words;

pub use buffer::DeviceBuffer;
pub use capabilities::{Capabilities, Platform};
/// The version of cudarc whose streams and memory are taken ([`Stream`] and [`DeviceBuffer`] have `try_from`); a part of
/// this crate's own version.
#[cfg(all(feature = "cuda", target_os = "linux"))]
pub use cuda::cudarc;
pub use device::Device;
pub use event::Event;
pub use faults::FaultWords;
pub use graph::Graph;
pub use ipc::IpcHandle;
pub use kernel::{Kernel, Shape, Use};
pub(crate) use products::{Factor, Products};
pub use stream::Stream;
pub(crate) use stream::WeakStream;
pub use words::Words;
