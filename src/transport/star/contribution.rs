// SPDX-License-Identifier: MPL-2.0
//! What one rank gives to one round: sent as a few packets, and put together again.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::io::Errno;

use super::connection::Connection;
use super::packet::{PAYLOAD, Packet};
use super::patience;

/// The most bytes that a rank can give to a round.
pub(crate) const MOST_BYTES: usize = 1 << 20;
/// The most descriptors that a rank can give to a round: what the kernel takes in one message.
pub(crate) const MOST_DESCRIPTORS: usize = 253;

/// What one rank gives to one round.
#[derive(Debug, Default)]
pub(crate) struct Contribution {
    pub bytes: Vec<u8>,
    pub descriptors: Vec<OwnedFd>,
}

impl Contribution {
    /// Sends it as that of rank `source`, waiting until `deadline` where the socket is full.
    pub(super) fn send(&self, to: &Connection, round: u32, source: usize, deadline: Instant) -> Result<(), Errno> {
        let (source, total) = (source as u32, self.bytes.len() as u32);
        let mut descriptors: Vec<BorrowedFd<'_>> = self.descriptors.iter().map(AsFd::as_fd).collect();
        // Empty bytes are one empty piece.
        for start in (0..self.bytes.len().max(1)).step_by(PAYLOAD) {
            let bytes = self.bytes[start..self.bytes.len().min(start + PAYLOAD)].to_vec();
            let part = Packet::Part { round, source, total, patience: patience(deadline), bytes };
            to.send(&part, &descriptors, deadline)?;
            descriptors.clear();
        }
        Ok(())
    }
}

/// A contribution of which some packets may be missing yet.
#[derive(Debug, Default)]
pub(super) struct Arriving {
    gathered: Contribution,
    total: Option<usize>,
}

impl Arriving {
    pub fn complete(&self) -> bool {
        self.total == Some(self.gathered.bytes.len())
    }

    /// Takes the next piece; `None` if it cannot be that.
    pub fn add(&mut self, total: u32, bytes: &[u8], descriptors: Vec<OwnedFd>) -> Option<()> {
        let total = total as usize;
        let fits = total <= MOST_BYTES && self.gathered.bytes.len() + bytes.len() <= total;
        let first = self.total.is_none();
        let next = !bytes.is_empty() && self.total == Some(total) && descriptors.is_empty();
        if !fits || !(first || next) {
            return None;
        }
        self.total = Some(total);
        self.gathered.bytes.extend(bytes);
        self.gathered.descriptors.extend(descriptors);
        Some(())
    }

    /// The whole, ready for the next round.
    pub fn take(&mut self) -> Contribution {
        std::mem::take(self).gathered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_that_cannot_follow_are_refused() {
        let mut arriving = Arriving::default();
        assert!(!arriving.complete());
        assert_eq!(arriving.add(MOST_BYTES as u32 + 1, &[], vec![]), None);
        assert_eq!(arriving.add(1, &[1, 2], vec![]), None);
        assert_eq!(arriving.add(3, &[1, 2], vec![]), Some(()));
        assert_eq!(arriving.add(3, &[], vec![]), None);
        assert_eq!(arriving.add(4, &[3], vec![]), None);
        assert_eq!(arriving.add(3, &[3, 4], vec![]), None);
        assert!(!arriving.complete());
        assert_eq!(arriving.add(3, &[3], vec![]), Some(()));
        assert!(arriving.complete());
        assert_eq!(arriving.add(3, &[4], vec![]), None);
        assert_eq!(arriving.take().bytes, [1, 2, 3]);
        assert_eq!(arriving.add(0, &[], vec![]), Some(()));
        assert!(arriving.complete());
    }
}
