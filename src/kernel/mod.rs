// SPDX-License-Identifier: MPL-2.0
//! The device kernels as a caller sees them: their names, their arguments, and in which shape they are launched.
//!
//! It is the mirror of `kernels/*.cu` and `kernels/*.h`, word for word; a test compares sizes and offsets with those of
//! the C++ side. Nothing here launches or allocates. Addresses are those of the device that runs the kernel.

mod arena;
mod arguments;
mod name;
mod shape;
pub mod training;

pub use arena::{Arena, Called, LAUNCHES, PIECES, Pad, Place, Report, STATE_BYTES, Said, Sent, Stamps, WORDS};
pub use arguments::{
    Collective, Convert, Flags, Fold, FoldPartials, MARKS, MESSAGES, Mark, Message, Messages, Relay, SOURCES, operation,
};
pub use name::Kernel;
pub use shape::{ALWAYS_STAGED, BLOCKS, FLAGS, RANKS, Shape};
