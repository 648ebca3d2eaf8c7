// SPDX-License-Identifier: MPL-2.0
//! Collective operations as verified values: all-reduce and its relatives for threads and processes, with bits that are
//! a promise, errors that name ranks, and waiting told apart from moving data.
//!
//! | you want | look at |
//! |---|---|
//! | ranks as threads, in one call | [`run`] |
//! | ranks as processes | [`Communicator::from_env`], `annulus launch` |
//! | the calls | [`Communicator`] |
//! | messages, and communicators of some ranks | [`Communicator::batch`], [`Communicator::split`] |
//! | calls that proceed while you compute | [`Communicator::start_all_reduce_in_place`], [`Communicator::scope`] |
//! | an operation of your own | [`Operator`], [`Communicator::all_reduce_with`] |
//! | an algorithm of your own | [`schedule`], [`schedule::verify()`], [`Communicator::execute`] |
//! | a reference to test against | [`mod@reference`] |
//! | what a call cost, and why | [`Communicator::last_call`], [`Communicator::explain`] |
//! | a trainer | [`tensor`], [`nn`], [`optim`], [`data`], [`ddp`], [`train`]; on devices [`perceptron`] |
//! | a device: NVIDIA's, AMD's, or simulated on the CPU | [`driver::Device`], [`driver::Stream`], [`driver::DeviceBuffer`] |
//! | collectives on device memory | [`Communicator::on`], [`DeviceCommunicator`] |
//! | mistakes in kernels of your own | [`driver::strict`] |
//! | benchmarks of your own | [`bench::Harness`] |
//!
//! ```
//! use annulus::{ReduceOp, run};
//!
//! let sums = run(4, |comm| {
//!     let mut gradients = vec![comm.rank() as f32; 1000];
//!     comm.all_reduce_in_place(&mut gradients, ReduceOp::Sum)?;
//!     Ok(gradients[0])
//! })?;
//! assert_eq!(sums, [6.0; 4]);
//! # Ok::<(), annulus::Error>(())
//! ```
//!
//! # Features
//!
//! | feature | on by default | what it adds |
//! |---|---|---|
//! | `cli` | yes | the `annulus` command, the `launch` module, and what only they depend on |
//! | `cuda` | yes | NVIDIA devices; the driver is looked for when the program runs |
//! | `train` | yes | the trainer: `tensor`, `nn`, `optim`, `data`, `ddp`, `train`, `perceptron` |
//! | `sim` | yes | simulated devices, if there is a C++ compiler when the crate is built |
//! | `hip` | no | AMD devices; HIP is linked |
//! | `proptest` | no | `reference::strategies`, for your own property tests |
//!
//! # Platforms
//!
//! Ranks as threads run everywhere; ranks as processes, and GPUs, on Linux. **No GPU has run it yet**: the code for
//! NVIDIA and AMD devices is executed by its tests over stand-ins for the drivers.
#![deny(unsafe_code)]

pub mod bench;
pub mod communicator;
#[cfg(feature = "train")]
pub mod data;
#[cfg(feature = "train")]
pub mod ddp;
pub mod doctor;
// The trainer alone has devices make matrix products.
#[cfg_attr(not(feature = "train"), allow(dead_code, unused_imports))]
pub mod driver;
pub mod element;
pub mod error;
mod file;
pub mod kernel;
#[cfg(all(feature = "cli", target_os = "linux"))]
pub mod launch;
#[cfg(feature = "train")]
pub mod nn;
#[cfg(feature = "train")]
pub mod optim;
#[cfg(feature = "train")]
pub mod perceptron;
pub mod record;
pub mod reduce;
pub mod reference;
pub mod schedule;
mod sync;
#[cfg(feature = "train")]
pub mod tensor;
#[cfg(feature = "train")]
pub mod train;
pub mod transport;

pub use communicator::{AbortHandle, Communicator, DeviceCommunicator, Operator, Pending, RankFailure, Shared, run};
pub use element::{DataType, Element, FoldOrder, ReduceOp};
pub use error::{Error, Result};
pub use half::{bf16, f16};

// The README's programs are tests.
#[cfg(all(doctest, target_os = "linux"))]
#[doc = include_str!("../README.md")]
struct Readme;
