// SPDX-License-Identifier: MPL-2.0
//! Everything in one pass over memory that all ranks address: rank r does part r of the work for everyone.
//!
//! All-reduce of four ranks; each input is four parts, and rank 1's work is drawn:
//!
//! ```text
//!             input                        output
//!   rank 0   [ . │ b0│ . │ . ]           [ . │ b │ . │ . ]
//!   rank 1   [ . │ b1│ . │ . ]  ──fold─▶ [ . │ b │ . │ . ]     b = ((b0 + b1) + b2) + b3
//!   rank 2   [ . │ b2│ . │ . ]           [ . │ b │ . │ . ]
//!   rank 3   [ . │ b3│ . │ . ]           [ . │ b │ . │ . ]
//! ```
//!
//! - Steps: one after the entry, then the exit: each rank tells all others that it has finished with their buffers and
//!   waits to hear the same, since a buffer belongs to its user again when the call returns. Two rounds with the entry.
//! - Elements moved by a rank, of a length N over n ranks: all-reduce reads N (N/n from each rank) and writes N;
//!   reduce-scatter reads N and writes N/n; all-gather reads N/n and writes N, N being all parts; broadcast reads N/n
//!   and writes N. A ring moves no less.
//! - Fold order: 0, 1, .., n-1 in every element.
//! - In place: a rank writes exactly where it has read, and no other rank reads or writes there.
//! - Chosen: wherever every rank's buffers are addressable by all (threads; allocated memory), above the size that the
//!   entry record carries.

use super::{Access, Buffer, Collective, Layout, Place, Program, Resources, Schedule};

/// The algorithms of this file.
#[derive(Debug, Clone, Copy)]
pub struct Direct {
    collective: Collective,
}

/// Rank r folds part r of all inputs and stores it to all outputs.
pub fn all_reduce() -> Direct {
    Direct { collective: Collective::AllReduce }
}

/// Rank r folds its part of all inputs into its output.
pub fn reduce_scatter() -> Direct {
    Direct { collective: Collective::ReduceScatter }
}

/// Rank r copies its input to all outputs.
pub fn all_gather() -> Direct {
    Direct { collective: Collective::AllGather }
}

/// Rank r copies part r of the root's input to all outputs: every core moves its share.
pub fn broadcast() -> Direct {
    Direct { collective: Collective::Broadcast }
}

impl Schedule for Direct {
    fn name(&self) -> &str {
        "direct"
    }

    fn collective(&self) -> Collective {
        self.collective
    }

    fn access(&self) -> Access {
        Access::Direct
    }

    fn resources(&self, _: &Layout) -> Resources {
        Resources { flags: 1, advance: 1, ..Resources::default() }
    }

    fn program(&self, rank: usize, layout: &Layout) -> Program {
        let ranks = 0..layout.world();
        let part = layout.chunk(self.collective, rank);
        let input = |r, offset| Place::new(r, Buffer::Input, offset);
        let output = |r, offset| Place::new(r, Buffer::Output, offset);

        let mut program = Program::new();
        match self.collective {
            Collective::AllReduce => program.fold(
                ranks.clone().map(|r| input(r, part.start)),
                ranks.map(|r| output(r, part.start)),
                part.len(),
            ),
            Collective::ReduceScatter => {
                program.fold(ranks.map(|r| input(r, part.start)), [output(rank, 0)], part.len());
            }
            Collective::AllGather => {
                let needs = |&r: &usize| !(layout.is_in_place() && r == rank);
                program.copy(input(rank, 0), ranks.filter(needs).map(|r| output(r, part.start)), part.len());
            }
            Collective::Broadcast => {
                let root = layout.root();
                let needs = |&r: &usize| !(layout.is_in_place() && r == root);
                program.copy(input(root, part.start), ranks.filter(needs).map(|r| output(r, part.start)), part.len());
            }
            Collective::Barrier => {}
        }
        program.signal(0, layout.others(rank), 1, 0);
        for other in layout.others(rank) {
            program.wait(other, 0, 1, 0);
        }
        program
    }
}
