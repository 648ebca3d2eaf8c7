// SPDX-License-Identifier: MPL-2.0
//! Ranks around a socket: rank 0 listens at an abstract Unix name, the others connect to it, and rounds of all-gather
//! of bytes and file descriptors go through rank 0.
//!
//! Both the rendezvous by environment and the exchange of descriptors are this, under different names. It is made to be
//! small and to fail well, not to be fast: a world is built once.
//!
//! One connection, seen from rank `r` (packets are in [`packet`]; a socket of type SEQPACKET keeps them whole):
//!
//! ```text
//!   rank r                                rank 0
//!     |--- Hello: rank, world ------------->|  is it of this user, a rank of this world, and the first one?
//!     |<-- Welcome -------------------------|
//!     |                                     |
//!     |--- Part ..: what r gives ---------->|  each round: waits until every rank is here and has given its part,
//!     |<-- Part ..: what all others give ---|  then serves the ranks one after the other
//!     |--- Received ----------------------->|
//! ```
//!
//! - **Every failure is told to everyone.** Whoever fails says so ([`packet::Packet::Failure`], which carries the error
//!   as a value), rank 0 tells all that are connected or come within half a second, and all return the same error.
//! - **Death is noticed at once**, by the kernel closing the socket; one that leaves alive says so first.
//! - **Deadlines are rank 0's to keep**: each rank says how long it will wait, rank 0 acts at the earliest of these,
//!   and the others allow it [`GRACE`] to say which ranks are missing. Only who cannot reach rank 0 times out alone.
//! - **Nobody else matters**: processes of other users are dropped on arrival, and so is anyone who does not say a
//!   proper Hello. Sizes are bounded, so nothing a peer sends can take much memory.
//! - **Few descriptors are in flight at once** (the kernel limits them for each user): rank 0 serves the next rank when
//!   the one before has said that it has received everything.

mod connection;
mod contribution;
mod host;
mod member;
mod packet;

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use self::connection::dup;
pub(crate) use self::contribution::{Contribution, MOST_BYTES, MOST_DESCRIPTORS};
use self::host::Host;
use self::member::Member;
use crate::error::{Error, Result};

/// How much longer than its deadline a rank that is connected waits for rank 0 to tell it who is missing.
const GRACE: Duration = Duration::from_secs(1);

/// What the ranks of one star agree on before they meet.
#[derive(Debug, Clone)]
pub(crate) struct Meeting {
    /// This process's rank, less than `world`.
    pub rank: usize,
    /// The number of ranks.
    pub world: usize,
    /// The abstract name at which rank 0 listens, at most 100 bytes.
    pub name: Vec<u8>,
    /// What is going on, as the subject of error sentences: `the rendezvous of 4 ranks`.
    pub subject: String,
    /// What to do where nobody is found or the name is taken.
    pub remedy: String,
}

/// This rank's end of a star.
#[derive(Debug)]
pub(crate) struct Star {
    meeting: Meeting,
    role: Role,
}

#[derive(Debug)]
enum Role {
    Alone,
    Host(Host),
    Member(Member),
    /// The first failure; every later round returns it again.
    Failed(Error),
}

impl Star {
    /// Takes up this rank's place: rank 0 listens from here on; the others connect in the first round.
    ///
    /// # Errors
    ///
    /// On rank 0, if the name is taken: by another rank 0, which learns of it too, or by something else.
    pub fn begin(meeting: Meeting, deadline: Instant) -> Result<Star> {
        let role = match (meeting.rank, meeting.world) {
            (_, 1) => Role::Alone,
            (0, _) => Role::Host(Host::listen(&meeting, deadline)?),
            _ => Role::Member(Member::default()),
        };
        Ok(Star { meeting, role })
    }

    /// One round: every rank's bytes and descriptors, by rank. This rank's own descriptors come back as duplicates.
    pub fn all_gather(
        &mut self,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
        deadline: Instant,
    ) -> Result<Vec<Contribution>> {
        if bytes.len() > MOST_BYTES || descriptors.len() > MOST_DESCRIPTORS {
            let (count, files) = (bytes.len(), descriptors.len());
            return Err(Error::invalid(format!(
                "{count} bytes and {files} descriptors of one rank: {MOST_BYTES} and {MOST_DESCRIPTORS} can be \
                 exchanged"
            )));
        }
        let own = Contribution { bytes: bytes.to_vec(), descriptors: dup(descriptors)? };
        let gathered = match &mut self.role {
            Role::Alone => Ok(vec![own]),
            Role::Host(host) => host.all_gather(&self.meeting, own, deadline),
            Role::Member(member) => member.all_gather(&self.meeting, own, deadline),
            Role::Failed(error) => Err(error.clone()),
        };
        if let Err(error) = &gathered {
            match &mut self.role {
                Role::Host(host) => host.tell_everyone(error),
                Role::Member(member) => member.tell(error),
                Role::Alone | Role::Failed(_) => (),
            }
            self.role = Role::Failed(error.clone());
        }
        gathered
    }
}

impl Meeting {
    /// The error for ranks that had not come by the deadline.
    fn timeout(&self, missing: Vec<usize>, started: Instant) -> Error {
        let Meeting { rank, subject, remedy, .. } = self;
        let (ranks, seconds) = (ranks(&missing), started.elapsed().as_secs_f64());
        let context = format!("{subject} timed out: rank {rank} waited {seconds:.1} s for {ranks}. {remedy}").into();
        Error::Timeout { missing, context }
    }

    /// The error for a rank that is gone.
    fn lost(&self, rank: usize, cause: crate::error::Cause) -> Error {
        Error::RankLost { rank, cause, context: format!("during {}", self.subject).into() }
    }

    /// The error for a system call that failed.
    fn failed(&self, errno: rustix::io::Errno) -> Error {
        Error::system(format!("rank {} in {}", self.rank, self.subject), connection::answer(errno))
    }

    /// The error for bytes that are not of this protocol.
    fn garbage(&self, from: usize) -> Error {
        let Meeting { rank, subject, .. } = self;
        Error::system(format!("rank {rank} in {subject}"), format!("rank {from} sent what is not of this protocol"))
    }
}

/// `rank 2`, or `ranks 1, 3`.
fn ranks(list: &[usize]) -> String {
    let numbers: Vec<String> = list.iter().map(usize::to_string).collect();
    format!("rank{} {}", if list.len() == 1 { "" } else { "s" }, numbers.join(", "))
}

/// The milliseconds from now to `deadline`, as packets carry them.
fn patience(deadline: Instant) -> u32 {
    deadline.saturating_duration_since(Instant::now()).as_millis().try_into().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
