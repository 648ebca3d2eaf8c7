// SPDX-License-Identifier: MPL-2.0
//! What a maker's library answers when it fails.
//!
//! The libraries have many numbers of their own; those that mean something here are the same in both, as the compiler
//! checks beside each library's functions. Any other is only shown.

use std::fmt;

use super::super::backend::Failure;
use crate::error::Error;

/// The numbers that mean something.
pub(crate) mod number {
    #[cfg(feature = "hip")]
    pub(crate) const INVALID_VALUE: u32 = 1;
    pub(crate) const NO_DEVICE: u32 = 100;
    pub(crate) const INVALID_DEVICE: u32 = 101;
    /// Also what a process gets that opens a handle of its own.
    pub(crate) const INVALID_CONTEXT: u32 = 201;
    /// Where memory of another process would be, memory of it is mapped that it has freed.
    pub(crate) const ALREADY_MAPPED: u32 = 208;
    pub(crate) const NO_BINARY: u32 = 209;
    pub(crate) const NOT_READY: u32 = 600;
    pub(crate) const PEER_ACCESS_ALREADY_ENABLED: u32 = 704;
    pub(crate) const TOO_MANY_BLOCKS: u32 = 720;
    pub(crate) const NOT_SUPPORTED: u32 = 801;
}

/// What a function of the library answered when it failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The function.
    pub call: &'static str,
    /// The number it answered.
    pub code: u32,
    /// That number's name, if the library has one.
    pub name: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answers {} ({})", self.call, self.name, self.code)
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Error::System(fault.to_string().into())
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Failure { call: fault.call, code: fault.code as i32, meaning: fault.name }
    }
}

/// What was refused here and not by the library, for a reason that it has a number for.
pub(super) fn refused(call: &'static str, code: u32, meaning: impl Into<String>) -> Failure {
    Failure { call, code: code as i32, meaning: meaning.into() }
}
