// SPDX-License-Identifier: MPL-2.0
//! A message on its way, or that has failed, in words.
//!
//! A rank leaves in its pad which message it is in, with each other rank and in each direction (`kernels/pad.h`), where it
//! stays once the message has failed. So each of the two can say what both had said, in the host's words.

use std::mem::offset_of;

use super::super::descriptor::{Descriptor, message_mismatch};
use super::fault::eventually;
use super::join::Members;
use super::messages::Contents;
use crate::error::Error;
use crate::kernel::{Pad, RANKS, Report, Said};

/// The phase of a report of who sends, and of who receives.
const GIVING: u32 = 5;
const TAKING: u32 = 6;

/// The message of that number from one rank to another, of which `own` is one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delivery {
    own: usize,
    from: usize,
    to: usize,
    number: u64,
}

impl Delivery {
    /// The message that a report of this rank is about, if it is about one.
    pub fn of(members: &Members, report: &Report) -> Option<Delivery> {
        // The other rank: the one that differs, where there is one.
        let bits = [report.differing, report.missing, report.deserted].into_iter().find(|bits| *bits != 0)?;
        let (own, other) = (members.rank, bits.trailing_zeros() as usize);
        let (way, from, to) = match report.phase {
            GIVING => (0, own, other),
            TAKING => (1, other, own),
            _ => return None,
        };
        // Only block 0 has counted them all, and it may come after the one that has failed.
        let said = eventually(|| Some(members.said(own)[way][other]).filter(|said| said.contents != 0));
        let number = said.map_or(u64::from(report.calls), |said| said.number);
        Some(Delivery { own, from, to, number })
    }

    /// The message that this rank is in with another, if it is in one.
    pub fn with(members: &Members, other: usize) -> Option<Delivery> {
        let own = members.rank;
        let [sent, received] = members.said(own);
        let is_in = |said: &Said| said.contents != 0;
        let to = Some(sent[other]).filter(is_in).map(|said| (own, other, said.number));
        let from = Some(received[other]).filter(is_in).map(|said| (other, own, said.number));
        to.or(from).map(|(from, to, number)| Delivery { own, from, to, number })
    }

    pub fn title(&self) -> String {
        let Delivery { from, to, number, .. } = self;
        format!("message {number} from rank {from} to rank {to}")
    }

    /// What this rank sends or receives, as far as it is known.
    pub fn own(&self, members: &Members) -> Option<String> {
        let Contents { data_type, count, .. } = Contents::of(self.said_by(members, self.own)?.contents)?;
        Some(format!("{count} {data_type}"))
    }

    /// Whether the other rank has come to it.
    pub fn has_come(&self, members: &Members) -> bool {
        self.said_by(members, if self.own == self.from { self.to } else { self.from }).is_some()
    }

    /// The mismatch of what both say.
    pub fn mismatch(&self, members: &Members) -> Error {
        let said = |rank: usize| Contents::of(self.said_by(members, rank)?.contents);
        // A block may have seen it before the first one of the other rank has said anything.
        let both = eventually(|| Some([said(self.from)?, said(self.to)?]));
        let words = |said: Contents| Descriptor::of_message(said.data_type, said.count as usize).words();
        match both {
            Some([sent, received]) if (sent.data_type, sent.count) == (received.data_type, received.count) => {
                let (own, other) = if sent.by_schedule { (self.from, self.to) } else { (self.to, self.from) };
                Error::Mismatch(
                    format!(
                        "{}: on rank {own} it goes as a schedule, on rank {other} by a kernel; set the algorithm alike on \
                         all ranks",
                        self.title()
                    )
                    .into(),
                )
            }
            Some(both) => message_mismatch(self.number, [self.from, self.to], &both.map(words)),
            None => Error::Mismatch(format!("{}: they differ in type or length", self.title()).into()),
        }
    }

    /// What one of the two says of it, if it is in it.
    fn said_by(&self, members: &Members, rank: usize) -> Option<Said> {
        let [sent, received] = members.said(rank);
        let said = if rank == self.from { sent[self.to] } else { received[self.from] };
        Some(said).filter(|said| said.contents != 0 && said.number == self.number)
    }
}

impl Members {
    /// The messages that a rank is in, those that it sends and those that it receives.
    fn said(&self, rank: usize) -> [[Said; RANKS]; 2] {
        self.pad(rank, offset_of!(Pad, said)).unwrap_or_default()
    }
}
