// SPDX-License-Identifier: MPL-2.0
//! A user's own algorithm for three ranks: it declares that it folds 0, 2, 1, and does.

use annulus::FoldOrder;
use annulus::schedule::{Access, Buffer, Collective, Layout, Place, Program, Resources, Schedule};

/// Each rank copies its input into its slot, and all fold the slots of ranks 0, 2 and 1.
pub struct ZeroTwoOne;

impl Schedule for ZeroTwoOne {
    fn name(&self) -> &str {
        "zero_two_one"
    }

    fn collective(&self) -> Collective {
        Collective::AllReduce
    }

    fn access(&self) -> Access {
        Access::Staged
    }

    fn fold_order(&self) -> FoldOrder {
        FoldOrder::linear([0, 2, 1])
    }

    fn resources(&self, layout: &Layout) -> Resources {
        Resources { slot: layout.count(0), depth: 1, flags: 1, advance: 1, ..Resources::default() }
    }

    fn program(&self, rank: usize, layout: &Layout) -> Program {
        let len = layout.count(rank);
        let slot = |rank| Place::new(rank, Buffer::Slot(0), 0);
        let mut program = Program::new();
        program.copy(Place::new(rank, Buffer::Input, 0), [slot(rank)], len);
        program.signal(0, layout.others(rank), 1, 0);
        for other in layout.others(rank) {
            program.wait(other, 0, 1, 0);
        }
        program.fold([0, 2, 1].map(slot), [Place::new(rank, Buffer::Output, 0)], len);
        program
    }
}
