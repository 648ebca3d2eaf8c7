// SPDX-License-Identifier: MPL-2.0
//! Communicators of processes. Linux only: memfd, futex, pidfd and descriptors over Unix sockets.

use std::time::Instant;

use super::Communicator;
use super::explain::limits;
use crate::error::Result;
use crate::transport::rendezvous::{Rendezvous, SocketRendezvous};
use crate::transport::{default_timeout, shm};

impl Communicator {
    /// Joins the world that the environment describes: as set by `annulus launch`, torchrun, mpirun or srun. All ranks
    /// must be on this host and of one user.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for what is wrong in the environment, `Timeout` naming the ranks that did not come,
    /// `Unsupported` for ranks on several hosts, `System` if the operating system refuses what processes need.
    pub fn from_env() -> Result<Communicator> {
        let mut rendezvous = SocketRendezvous::from_env(Instant::now() + default_timeout()?)?;
        Self::meet(&mut rendezvous)
    }

    /// Joins a world whose ranks meet in one's own way.
    ///
    /// # Errors
    ///
    /// Those of the rendezvous, and `System` if the operating system refuses what processes need.
    pub fn meet(rendezvous: &mut dyn Rendezvous) -> Result<Communicator> {
        let (transport, timeout) = shm::connect(rendezvous, limits()?)?;
        Ok(Communicator::new(transport, rendezvous.local_rank(), timeout))
    }
}
