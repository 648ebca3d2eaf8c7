// SPDX-License-Identifier: MPL-2.0
//! What a rank can see wrong alone in what it is asked for, on the host and on devices: a root or a peer that does not
//! exist, a buffer too many or too few, lengths that do not fit together.

use crate::error::{Error, Result};

/// Who was asked for what.
#[derive(Clone, Copy)]
pub(super) struct Asker<'a> {
    /// The call's name.
    pub name: &'a str,
    pub rank: usize,
    pub world: usize,
}

impl Asker<'_> {
    /// The call is refused for that reason.
    pub fn refuse<T>(self, why: impl std::fmt::Display) -> Result<T> {
        let Asker { name, rank, .. } = self;
        Err(Error::invalid(format!("{name} on rank {rank}: {why}")))
    }

    /// The root, if there is such a rank.
    pub fn checked_root(self, root: usize) -> Result<usize> {
        match root < self.world {
            true => Ok(root),
            false => self.refuse(format_args!("there is no rank {root} to be the root among {} ranks", self.world)),
        }
    }

    /// Checks that there is a rank to send to, or to receive from.
    pub fn check_peer(self, peer: usize) -> Result<()> {
        match peer < self.world {
            true => Ok(()),
            false => self.refuse(format_args!("there is no rank {peer}; the ranks are 0 to {}", self.world - 1)),
        }
    }

    /// Refuses a message by itself to this rank, or from it.
    pub fn refuse_itself<T>(self) -> Result<T> {
        self.refuse("this rank cannot wait for itself; use send_recv, or a batch with both the send and the receive")
    }

    /// Refuses a batch in which this rank's messages to itself do not fit together.
    pub fn refuse_own<T>(self, sent: usize, received: usize) -> Result<T> {
        self.refuse(format_args!(
            "this rank sends {sent} messages to itself and receives {received}, which must be as many, of the same types \
             and lengths"
        ))
    }

    /// Checks that this rank has passed a buffer if it must, and none if others do: `what` is its name.
    pub fn check_passed(self, what: &str, root: usize, needed: bool, passed: bool) -> Result<()> {
        match (needed, passed) {
            (true, false) => self.refuse(format_args!("the root must pass {what}")),
            (false, true) => self.refuse(format_args!("only the root, rank {root}, passes {what}; pass None")),
            _ => Ok(()),
        }
    }

    /// One of the world's equal parts of so many elements.
    pub fn part_of(self, elements: usize) -> Result<usize> {
        let world = self.world;
        match elements.is_multiple_of(world) {
            true => Ok(elements / world),
            false => self
                .refuse(format_args!("{elements} elements cannot be {world} equal parts; pass a multiple of {world}")),
        }
    }

    /// Refuses buffers of these lengths; `parts` are how often the count goes into each.
    #[cold]
    pub fn refuse_lengths<T>(self, sent: usize, received: usize, parts: (usize, usize)) -> Result<T> {
        match parts {
            (n, m) if n == m => {
                self.refuse(format_args!("send has {sent} elements and recv {received}; they must be equal"))
            }
            (1, n) => self
                .refuse(format_args!("recv has {received} elements and send {sent}; recv must hold {n} times as many")),
            (n, _) => self
                .refuse(format_args!("send has {sent} elements and recv {received}; send must hold {n} times as many")),
        }
    }
}
