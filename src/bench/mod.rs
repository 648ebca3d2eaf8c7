// SPDX-License-Identifier: MPL-2.0
//! Measuring collectives: the sweep and the table of `annulus bench`, and a harness for one's own criterion benches.
//!
//! | file | subject |
//! |---|---|
//! | `subject` | what is called: a collective, or messages |
//! | `sweep` `check` | what is measured: sizes, modes, memory, algorithm; and what cannot be |
//! | `measure` | how: the loop around the public calls, and nothing between the clock's readings but them |
//! | `on_host` `on_device` | who makes these calls: on host memory, or on a stream of a device |
//! | `payload` `buffers` | what is sent and what must come of it, and where it lies |
//! | `measurement` `table` `machine` | what came of it: numbers, nccl-tests' table, on which machine |
//! | `tune` | the numbers by which algorithms are chosen on a machine |
//! | `results` `series` `axis` `plot` | what came of it and of earlier sweeps, drawn (with the feature `cli`) |
//! | `affinity` | ranks on cores of their own |
//! | `harness` | ranks that stay, for criterion |

mod affinity;
#[cfg(feature = "cli")]
mod axis;
mod buffers;
mod check;
mod harness;
mod machine;
mod measure;
mod measurement;
mod on_device;
mod on_host;
mod payload;
#[cfg(feature = "cli")]
mod plot;
#[cfg(feature = "cli")]
mod results;
#[cfg(feature = "cli")]
mod series;
mod subject;
mod sweep;
mod table;
mod tune;

pub use affinity::pin;
pub use harness::Harness;
pub use machine::Machine;
pub use measurement::Measurement;
#[cfg(feature = "cli")]
pub use plot::{Plot, svg};
#[cfg(feature = "cli")]
pub use results::Results;
pub use subject::Subject;
pub use sweep::{Memory, Modes, Sweep};
pub use table::Table;
pub use tune::Tuning;
