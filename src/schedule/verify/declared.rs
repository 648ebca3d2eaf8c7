// SPDX-License-Identifier: MPL-2.0
//! A schedule's answers for one layout, gathered and checked for what can be seen without running them.

use super::Fault;
use crate::element::{Bracketing, FoldOrder};
use crate::schedule::{Access, Collective, Entry, Layout, Program, Resources, Schedule, Step};

/// More ranks than this are refused: the proof's clocks take a number for each pair of ranks.
const MOST_RANKS: usize = 1024;

/// More slots than this are refused: each needs a call of its own in the proof.
const MOST_SLOTS: usize = 1024;

/// More steps than this in all calls of all ranks are refused, before they take minutes.
const MOST_STEPS: usize = 1 << 26;

/// Flags that advance by more than this a call are refused. A flag need not advance by more than there are steps that raise
/// it; and at a call each microsecond, flags of 64 bits that advance by so much last for weeks.
const MOST_ADVANCE: u64 = MOST_STEPS as u64;

/// Everything a schedule says about one layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Declared {
    pub(super) name: String,
    pub(super) collective: Collective,
    pub(super) layout: Layout,
    pub(super) access: Access,
    pub(super) entry: Entry,
    pub(super) order: FoldOrder,
    pub(super) resources: Resources,
    pub(super) programs: Box<[Program]>,
}

fn refuse<T>(sentence: String) -> Result<T, Fault> {
    Err(Fault::Declaration(sentence))
}

impl Declared {
    pub(super) fn new(schedule: &dyn Schedule, layout: &Layout) -> Result<Self, Fault> {
        let collective = schedule.collective();
        check_layout(collective, layout)?;
        let declared = Declared {
            name: schedule.name().to_owned(),
            collective,
            layout: layout.clone(),
            access: schedule.access(),
            entry: schedule.entry(),
            order: schedule.fold_order(),
            resources: schedule.resources(layout),
            programs: (0..layout.world()).map(|rank| schedule.program(rank, layout)).collect(),
        };
        if collective.folds() {
            check_order(collective, &declared.order, layout.world())?;
        }
        declared.check_resources()?;
        declared.check_loops()?;
        declared.check_advance()?;
        Ok(declared)
    }

    /// How many calls back to back show every way in which slots and flags are used again.
    pub(super) fn calls(&self) -> usize {
        self.resources.depth.max(1) + 1
    }

    fn check_resources(&self) -> Result<(), Fault> {
        let Resources { scratch, slot, partial, depth, .. } = self.resources;
        if depth == 0 && (slot > 0 || partial > 0) {
            return refuse("slots or partials are declared with a depth of 0; declare a depth of at least 1".into());
        }
        if depth > MOST_SLOTS {
            return refuse(format!("a depth of {depth} is too much to prove (at most {MOST_SLOTS})"));
        }
        let rotating = slot.checked_add(partial).and_then(|each| each.checked_mul(depth));
        let all = rotating.and_then(|rotating| rotating.checked_add(scratch));
        if all.is_none_or(|all| all > isize::MAX as usize) {
            return refuse(format!("the declared resources ({:?}) exceed any memory", self.resources));
        }
        Ok(())
    }

    fn check_advance(&self) -> Result<(), Fault> {
        let advance = self.resources.advance;
        if advance > MOST_ADVANCE {
            return refuse(format!(
                "an advance of {advance} a call would exhaust flags of 64 bits; declare the largest value that a flag \
                 reaches (at most {MOST_ADVANCE})"
            ));
        }
        Ok(())
    }

    fn check_loops(&self) -> Result<(), Fault> {
        let mut all = 0usize;
        for (rank, program) in self.programs.iter().enumerate() {
            for (index, step) in program.steps.iter().enumerate() {
                all = all.saturating_add(match step {
                    Step::Repeat { segments, body } => {
                        if body.iter().any(|step| matches!(step, Step::Repeat { .. })) {
                            return refuse(format!(
                                "rank {rank}, step {index}: a Repeat holds another; they do not nest"
                            ));
                        }
                        segments.saturating_mul(body.len().max(1))
                    }
                    _ => 1,
                });
            }
        }
        if all.saturating_mul(self.calls()) > MOST_STEPS {
            return refuse(format!(
                "{} calls of {all} steps are too many to prove (at most {MOST_STEPS}); use longer segments",
                self.calls()
            ));
        }
        Ok(())
    }
}

fn check_layout(collective: Collective, layout: &Layout) -> Result<(), Fault> {
    let world = layout.world();
    if world > MOST_RANKS {
        return refuse(format!("{world} ranks are too many to prove (at most {MOST_RANKS})"));
    }
    if layout.root() >= world {
        return refuse(format!("the root is rank {}, but the ranks are 0 to {}", layout.root(), world - 1));
    }
    if layout.largest().checked_mul(world).is_none_or(|total| total > isize::MAX as usize) {
        return refuse(format!("{world} ranks with up to {} elements each exceed any memory", layout.largest()));
    }
    if layout.is_matrix() && collective != Collective::AllToAll {
        return refuse(format!("{collective} takes one count a rank; a matrix of counts is for all_to_all"));
    }
    if collective == Collective::AllToAll && layout.is_in_place() {
        let pairs = (0..world).flat_map(|from| (0..from).map(move |to| (from, to)));
        if let Some((from, to)) = pairs.into_iter().find(|&(from, to)| layout.pair(from, to) != layout.pair(to, from)) {
            return refuse(format!(
                "in an all_to_all in place ranks swap parts, but rank {to} has {} elements for rank {from} and rank \
                 {from} has {} for rank {to}; give both the same, or use two buffers",
                layout.pair(to, from),
                layout.pair(from, to)
            ));
        }
    }
    if !collective.has_parts() && collective != Collective::Barrier {
        let count = layout.count(0);
        if let Some(rank) = (0..world).find(|&rank| layout.count(rank) != count) {
            return refuse(format!(
                "{collective} takes one length on all ranks, but rank 0 has {count} elements and rank {rank} has {}",
                layout.count(rank)
            ));
        }
    }
    Ok(())
}

/// Every chunk's bracketing must fold each rank exactly once.
fn check_order(collective: Collective, order: &FoldOrder, world: usize) -> Result<(), Fault> {
    if collective.is_scan() && *order != FoldOrder::Rank {
        return refuse(format!("{collective} folds in the order of the ranks alone; declare the fold order rank"));
    }
    let FoldOrder::Given(entries) = order else { return Ok(()) };
    if entries.is_empty() {
        return refuse("the given fold order has no entries".into());
    }
    for (index, entry) in entries.iter().enumerate() {
        let mut ranks = Bracketing::leaves(entry);
        ranks.sort_unstable();
        if !ranks.into_iter().eq(0..world) {
            return refuse(format!("entry {index} of the given fold order does not fold each of {world} ranks once"));
        }
    }
    Ok(())
}
