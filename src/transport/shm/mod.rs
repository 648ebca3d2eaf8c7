// SPDX-License-Identifier: MPL-2.0
//! What ranks that are processes share, made of what Linux has for it and nothing that a crash could leave behind.
//!
//! - [`segment`]: a rank's memory that its peers map, a sealed memfd; `arena` hands out its pages; `memory` says how
//!   much there is.
//! - [`liveness`]: a descriptor of each rank that becomes readable when the rank is dead.
//!
//! - `lease`: this rank's own segment, to allocate from; `isolation`: taking pages of it out of sharing; `private`:
//!   reading what lies in none; `processes`: the transport made of all this.
//!
//! None of these has a name in any file system: the kernel frees them with their last process.

mod arena;
#[doc(hidden)] // public for tests alone
pub mod descriptors;
mod isolation;
mod lease;
#[doc(hidden)] // public for tests alone
pub mod liveness;
mod memory;
mod private;
mod processes;
#[doc(hidden)] // public for tests alone
pub mod segment;

pub(crate) use lease::Lease;
pub(crate) use private::may_read;
pub(crate) use processes::connect;
