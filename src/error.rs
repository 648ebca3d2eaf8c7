// SPDX-License-Identifier: MPL-2.0
//! What can go wrong, as sentences that name the rank, the call and the remedy.
//!
//! | variant | NCCL's word | whose fault |
//! |---|---|---|
//! | [`Error::InvalidArgument`] | `InvalidArgument` | this rank's call alone; nothing was posted, the call may be retried |
//! | [`Error::Mismatch`] | `InvalidUsage` | the ranks called different things; all of them get it |
//! | [`Error::RankLost`] | `RemoteError` | a rank died or left |
//! | [`Error::Timeout`] | `Timeout` | a rank is late; the error names the missing ones |
//! | [`Error::Aborted`] | `Aborted` | somebody called `abort`, or a rank or its operator panicked |
//! | [`Error::Unsupported`] | | this machine or this build cannot do it |
//! | [`Error::System`] | `SystemError` | the operating system refused something |

use std::fmt;
use std::sync::Arc;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a rank is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// It dropped its communicator, returned early or exited by itself.
    Left,
    /// Its process or thread ended without leaving: killed, crashed or panicked.
    Died,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::Left => "left",
            Cause::Died => "died",
        })
    }
}

/// What a call of this crate failed with. Cheap to clone: every later call on a failed communicator returns the first
/// failure again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What one rank can see wrong alone. Nothing was posted and no call number was used: correct it and call again.
    #[error("{0}")]
    InvalidArgument(Arc<str>),
    /// The ranks disagree on a call. Every rank gets this, with every rank's version of the call.
    #[error("{0}")]
    Mismatch(Arc<str>),
    /// A rank is gone; `context` says in which call it was missed.
    #[error("rank {rank} {cause} ({context})")]
    RankLost {
        /// The rank that is gone.
        rank: usize,
        /// Whether it left or died. By which signal is known only to whoever started it.
        cause: Cause,
        /// The call and the phase in which its absence was noticed.
        context: Arc<str>,
    },
    /// The deadline passed; `missing` names the ranks that had not arrived.
    #[error("{context}")]
    Timeout {
        /// The ranks that were waited for; ranks from 256 on are named in `context` alone.
        missing: Vec<usize>,
        /// The sentence: the call, the phase, the ranks and the deadline.
        context: Arc<str>,
    },
    /// The communicator was aborted.
    #[error("{0}")]
    Aborted(Arc<str>),
    /// This machine or this build cannot do what was asked.
    #[error("{0}")]
    Unsupported(Arc<str>),
    /// The operating system refused something the call needs.
    #[error("{0}")]
    System(Arc<str>),
}

impl Error {
    /// An [`Error::InvalidArgument`] with this sentence.
    pub fn invalid(sentence: impl Into<Arc<str>>) -> Self {
        Error::InvalidArgument(sentence.into())
    }

    /// An [`Error::Unsupported`] with this sentence.
    pub fn unsupported(sentence: impl Into<Arc<str>>) -> Self {
        Error::Unsupported(sentence.into())
    }

    /// An [`Error::System`]: what was attempted, and what the system answered.
    pub fn system(attempt: impl fmt::Display, answer: impl fmt::Display) -> Self {
        Error::System(format!("{attempt}: {answer}").into())
    }
}
