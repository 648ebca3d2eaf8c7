// SPDX-License-Identifier: MPL-2.0
//! Small messages in one round: each rank's contribution travels in its entry record, and every rank folds or copies
//! for itself.
//!
//! All-reduce of four ranks:
//!
//! ```text
//!   rank 0   a0 ──▶ slot ─┐               ┌─▶ fold ──▶ a     every rank copies its input into its own slot,
//!   rank 1   a1 ──▶ slot ─┼── signal and ─┼─▶ fold ──▶ a     signals, waits for all signals,
//!   rank 2   a2 ──▶ slot ─┤   wait, once  ├─▶ fold ──▶ a     and folds all slots in rank order,
//!   rank 3   a3 ──▶ slot ─┘               └─▶ fold ──▶ a     a = ((a0 + a1) + a2) + a3
//! ```
//!
//! - Steps: copy in, signal, wait for each other rank, fold or copy out. The signal is the call's entry: one round (two
//!   above 16 ranks, which enter in groups).
//! - Elements moved by a rank: all-reduce of N reads N from each of n ranks, n times what [`direct`](super::direct)
//!   reads, which costs nothing while N is a few cache lines; reduce-scatter stages all parts and reads its own from
//!   each, and so does all-to-all; all-gather reads every part, and so does a gather's root; broadcast reads the root's
//!   slot, scatter a part of it; rank r of a scan reads r + 1 slots; a reduce's root folds alone.
//! - Fold order: 0, 1, .., n-1 in every element.
//! - Slots: two, used in turn by successive calls. A rank writes slot k mod 2 again in call k + 2, after it has seen
//!   all others' signals of call k + 1, which they gave after their last read of call k. One slot would be too few.
//! - Chosen: for messages that fit the entry record, on any memory.

use super::{Access, Buffer, Collective, Entry, Layout, Place, Program, Resources, Schedule};

/// The algorithms of this file.
#[derive(Debug, Clone, Copy)]
pub struct OneShot {
    collective: Collective,
}

/// Everyone folds all contributions.
pub fn all_reduce() -> OneShot {
    OneShot { collective: Collective::AllReduce }
}

/// Everyone folds its part of all contributions.
pub fn reduce_scatter() -> OneShot {
    OneShot { collective: Collective::ReduceScatter }
}

/// Everyone copies all contributions.
pub fn all_gather() -> OneShot {
    OneShot { collective: Collective::AllGather }
}

/// Everyone copies the root's contribution.
pub fn broadcast() -> OneShot {
    OneShot { collective: Collective::Broadcast }
}

/// The root folds all contributions.
pub fn reduce() -> OneShot {
    OneShot { collective: Collective::Reduce }
}

/// Everyone copies its part of the root's contribution.
pub fn scatter() -> OneShot {
    OneShot { collective: Collective::Scatter }
}

/// The root copies all contributions.
pub fn gather() -> OneShot {
    OneShot { collective: Collective::Gather }
}

/// Everyone copies its part of each contribution.
pub fn all_to_all() -> OneShot {
    OneShot { collective: Collective::AllToAll }
}

/// Rank r folds the contributions of ranks 0 to r.
pub fn scan() -> OneShot {
    OneShot { collective: Collective::Scan }
}

/// Rank r folds the contributions of ranks 0 to r - 1.
pub fn exclusive_scan() -> OneShot {
    OneShot { collective: Collective::ExclusiveScan }
}

impl Schedule for OneShot {
    fn name(&self) -> &str {
        "one_shot"
    }

    fn collective(&self) -> Collective {
        self.collective
    }

    fn access(&self) -> Access {
        Access::Staged
    }

    fn entry(&self) -> Entry {
        Entry::Carries
    }

    fn resources(&self, layout: &Layout) -> Resources {
        let slot = (0..layout.world()).map(|r| layout.input_len(self.collective, r)).max().unwrap_or(0);
        Resources { slot, depth: 2, flags: 1, advance: 1, ..Resources::default() }
    }

    fn program(&self, rank: usize, layout: &Layout) -> Program {
        // One's own is read where it was: the slot is for peers.
        let slot = |r, offset| Place::new(r, if r == rank { Buffer::Input } else { Buffer::Slot(0) }, offset);
        let output = |offset| Place::new(rank, Buffer::Output, offset);

        let mut program = Program::new();
        if self.is_read_by_others(rank, layout) {
            let (input, own) = (Place::new(rank, Buffer::Input, 0), Place::new(rank, Buffer::Slot(0), 0));
            program.copy(input, [own], layout.input_len(self.collective, rank));
        }
        program.signal(0, layout.others(rank), 1, 0);
        for other in layout.others(rank) {
            program.wait(other, 0, 1, 0);
        }
        let root = layout.root();
        // In place, what stays with its rank is where it should be.
        let moves = |&r: &usize| !(layout.is_in_place() && r == rank);
        match self.collective {
            Collective::Reduce | Collective::Gather if rank != root => {}
            Collective::AllReduce | Collective::Reduce => {
                program.fold((0..layout.world()).map(|r| slot(r, 0)), [output(0)], layout.count(rank));
            }
            Collective::Scan => program.fold((0..=rank).map(|r| slot(r, 0)), [output(0)], layout.count(rank)),
            Collective::ExclusiveScan if rank == 0 => {}
            Collective::ExclusiveScan => program.fold((0..rank).map(|r| slot(r, 0)), [output(0)], layout.count(rank)),
            Collective::ReduceScatter => {
                let from = (0..layout.world()).map(|r| slot(r, layout.offset(rank)));
                program.fold(from, [output(0)], layout.count(rank));
            }
            Collective::AllGather | Collective::Gather => {
                for r in (0..layout.world()).filter(moves) {
                    program.copy(slot(r, 0), [output(layout.offset(r))], layout.count(r));
                }
            }
            Collective::AllToAll => {
                for r in (0..layout.world()).filter(moves) {
                    let from = slot(r, layout.input_offset(r, rank));
                    program.copy(from, [output(layout.output_offset(r, rank))], layout.pair(r, rank));
                }
            }
            Collective::Broadcast if moves(&root) => program.copy(slot(root, 0), [output(0)], layout.count(rank)),
            Collective::Scatter if moves(&root) => {
                program.copy(slot(root, layout.offset(rank)), [output(0)], layout.count(rank));
            }
            Collective::Broadcast | Collective::Scatter | Collective::Barrier => {}
        }
        program
    }
}

impl OneShot {
    fn is_read_by_others(&self, rank: usize, layout: &Layout) -> bool {
        let last = layout.world() - 1;
        match self.collective {
            Collective::Reduce | Collective::Gather => rank != layout.root(),
            Collective::Scan | Collective::ExclusiveScan => rank != last,
            _ => last > 0,
        }
    }
}
