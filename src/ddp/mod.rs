// SPDX-License-Identifier: MPL-2.0
//! Distributed data parallel training: every rank has the whole model, takes its share of each global batch, and the
//! ranks average their gradients. And the proof that this equals one rank, bit for bit.
//!
//! | file | subject |
//! |---|---|
//! | `reducer` | [`Ddp`]: gradients in buckets, averaged while the backward pass still runs |
//! | `times` | where a rank's time went: waiting for others, moving data, moving data behind its own computing |
//! | `recipe` | [`Recipe`]: all that decides the bits of a run |
//! | `one_rank` | the same run by one rank, without communicator, bucket or hook |
//! | `verification` | checksums, and the first place where two sets of parameters differ |
//! | `device` | [`DeviceDdp`]: the same in device memory, and its proof |
//! | `fault` | planted faults, by which tests show that the verification can fail |

pub mod device;
mod fault;
pub mod one_rank;
mod recipe;
mod reducer;
mod times;
mod verification;

pub use device::DeviceDdp;
pub use fault::Fault;
pub use recipe::Recipe;
pub use reducer::{BUCKET_BYTES, Ddp};
pub use times::Times;
pub use verification::{Difference, Named, checksum, first_difference, replica_difference, snapshot};
