// SPDX-License-Identifier: MPL-2.0
//! The collectives in which the root stages, or the others do for it: broadcast, scatter, gather.

use super::{Call, PROGRESS};
use crate::schedule::segments::{len_in, marks, repeat, turns};
use crate::schedule::{Collective, Program};

impl Call<'_> {
    pub(super) fn broadcast(&self) -> Program {
        let (rank, root, len) = (self.rank, self.layout.root(), self.layout.count(self.rank));
        let (turns, depth) = (turns(len, self.segment), self.depth);
        // The first slots are free, and nobody waits for room after the last ones.
        let role = if rank == root { depth } else { turns.saturating_sub(depth) };
        let marks = marks(len, self.segment).into_iter().chain([role]);
        let mut program = Program::new();
        repeat(&mut program, turns, marks, |turn| {
            let mut body = Program::new();
            let segment = len_in(turn, len, self.segment);
            if rank == root {
                for other in self.layout.others(rank).filter(|_| turn >= depth) {
                    body.wait(other, PROGRESS, (turn - depth) as i64 + 1, 1);
                }
                let own = (!self.layout.is_in_place()).then(|| self.output(0, turn, 0));
                body.copy(self.input(0, turn, 0), own.into_iter().chain([self.slot(rank, turn, 0)]), segment);
                body.signal(PROGRESS, self.layout.others(rank), turn as i64 + 1, 1);
            } else {
                body.wait(root, PROGRESS, turn as i64 + 1, 1);
                body.copy(self.slot(root, turn, 0), [self.output(0, turn, 0)], segment);
                if turn + depth < turns {
                    body.signal(PROGRESS, [root], turn as i64 + 1, 1);
                }
            }
            body
        });
        program
    }
    pub(super) fn scatter(&self) -> Program {
        let (rank, layout, root, depth) = (self.rank, self.layout, self.layout.root(), self.depth);
        let len = |turn, r| len_in(turn, layout.count(r), self.segment);
        let turns_of = |r| turns(layout.count(r), self.segment);
        let mut program = Program::new();
        if rank != root {
            let last = turns_of(rank).saturating_sub(depth);
            repeat(
                &mut program,
                turns_of(rank),
                marks(layout.count(rank), self.segment).into_iter().chain([last]),
                |turn| {
                    let mut body = Program::new();
                    body.wait(root, PROGRESS, turn as i64 + 1, 1);
                    body.copy(self.slot(root, turn, rank * self.segment), [self.output(0, turn, 0)], len(turn, rank));
                    body.signal(PROGRESS, (turn < last).then_some(root), turn as i64 + 1, 1);
                    body
                },
            );
            return program;
        }
        let marks = (0..layout.world()).flat_map(|r| marks(layout.count(r), self.segment)).chain([depth]);
        repeat(&mut program, turns(layout.largest(), self.segment), marks, |turn| {
            let mut body = Program::new();
            for other in layout.others(root) {
                if (depth..turns_of(other)).contains(&turn) {
                    body.wait(other, PROGRESS, (turn - depth) as i64 + 1, 1);
                }
                let to = self.slot(root, turn, other * self.segment);
                body.copy(self.input(layout.offset(other), turn, 0), [to], len(turn, other));
            }
            body.signal(PROGRESS, layout.others(root), turn as i64 + 1, 1);
            if !layout.is_in_place() {
                body.copy(self.input(layout.offset(root), turn, 0), [self.output(0, turn, 0)], len(turn, root));
            }
            body
        });
        program
    }

    /// Gather, or reduce by the root alone, which folds what the others stage.
    pub(super) fn gather(&self, collective: Collective) -> Program {
        let (rank, layout, root, depth) = (self.rank, self.layout, self.layout.root(), self.depth);
        let len = |turn, r| len_in(turn, layout.count(r), self.segment);
        let turns_of = |r| turns(layout.count(r), self.segment);
        let mut program = Program::new();
        if rank != root {
            let marks = marks(layout.count(rank), self.segment).into_iter().chain([depth]);
            repeat(&mut program, turns_of(rank), marks, |turn| {
                let mut body = Program::new();
                if turn >= depth {
                    body.wait(root, PROGRESS, (turn - depth) as i64 + 1, 1);
                }
                body.copy(self.input(0, turn, 0), [self.slot(rank, turn, 0)], len(turn, rank));
                body.signal(PROGRESS, [root], turn as i64 + 1, 1);
                body
            });
            return program;
        }
        // Those that will use the slot again wait for the root.
        let waiting = |turn, r| turn + depth < turns_of(r);
        let lasts = (0..layout.world()).map(|r| turns_of(r).saturating_sub(depth));
        let marks = (0..layout.world()).flat_map(|r| marks(layout.count(r), self.segment)).chain(lasts);
        repeat(&mut program, turns(layout.largest(), self.segment), marks, |turn| {
            let own = self.input(0, turn, 0);
            let slot = |other| self.slot(other, turn, 0);
            let mut body = Program::new();
            for other in layout.others(root).filter(|&other| turn < turns_of(other)) {
                body.wait(other, PROGRESS, turn as i64 + 1, 1);
                if !collective.folds() {
                    body.copy(slot(other), [self.output(layout.offset(other), turn, 0)], len(turn, other));
                }
            }
            if collective.folds() {
                let from = (0..layout.world()).map(|r| if r == root { own } else { slot(r) });
                body.fold(from, [self.output(0, turn, 0)], len(turn, root));
            }
            body.signal(PROGRESS, layout.others(root).filter(|&other| waiting(turn, other)), turn as i64 + 1, 1);
            if !collective.folds() && !layout.is_in_place() {
                body.copy(own, [self.output(layout.offset(root), turn, 0)], len(turn, root));
            }
            body
        });
        program
    }
}
