// SPDX-License-Identifier: MPL-2.0
//! How ranks meet, before they share anything: an all-gather of bytes.
//!
//! Everything else that ranks which are processes need of each other (descriptors, memory, settings that must agree) is
//! built on this one operation, so that a world can be started from anything that can move a few bytes.
//!
//! [`Environment`] is what launchers say to a rank, and [`SocketRendezvous`] the form that needs nothing else.

mod environment;
#[cfg(target_os = "linux")]
mod socket;

use std::time::Instant;

pub use self::environment::Environment;
#[cfg(target_os = "linux")]
pub use self::socket::SocketRendezvous;
use crate::error::Result;

/// An all-gather of bytes among the ranks of one host.
///
/// To start a world over something of your own (MPI, a file, a TCP store), implement this:
///
/// ```
/// use std::time::Instant;
/// use annulus::Result;
/// use annulus::transport::rendezvous::Rendezvous;
///
/// /// A world of one, which meets nobody.
/// struct Alone;
///
/// impl Rendezvous for Alone {
///     fn rank(&self) -> usize { 0 }
///     fn world_size(&self) -> usize { 1 }
///     fn local_rank(&self) -> usize { 0 }
///     fn all_gather(&mut self, bytes: &[u8], _deadline: Instant) -> Result<Vec<Vec<u8>>> {
///         Ok(vec![bytes.to_vec()])
///     }
/// }
/// ```
pub trait Rendezvous {
    /// This process's rank, less than [`Rendezvous::world_size`] and different on every process.
    fn rank(&self) -> usize;

    /// The number of ranks, at least one and the same on every process.
    fn world_size(&self) -> usize;

    /// This process's number on its host: what it chooses its device by.
    fn local_rank(&self) -> usize;

    /// Gives every rank's `bytes` to every rank: the result's entry `r` is what rank `r` passed.
    ///
    /// It is called several times, by all ranks, each time with a few KiB at most, whose number may differ from rank to
    /// rank and be zero. A call must not return successfully on any rank before all ranks have entered it.
    ///
    /// # Errors
    ///
    /// [`Timeout`](crate::Error::Timeout) at the deadline, naming the ranks that are missing if that can be known;
    /// [`RankLost`](crate::Error::RankLost) for a rank that has ended. After an error the rendezvous is not used again.
    /// It should never wait beyond the deadline, nor panic.
    fn all_gather(&mut self, bytes: &[u8], deadline: Instant) -> Result<Vec<Vec<u8>>>;
}
