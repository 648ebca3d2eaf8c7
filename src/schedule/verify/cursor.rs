// SPDX-License-Identifier: MPL-2.0
//! A position in a program: a step, or in a `Repeat` a turn and a step of its body.

use super::fault::Moment;
use crate::schedule::{Program, Step};

/// The next step to take. It never points at a `Repeat` without turns or steps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor {
    step: usize,
    turn: usize,
    inner: usize,
}

impl Cursor {
    pub(super) fn new(program: &Program) -> Self {
        Cursor::at(0, program)
    }

    /// At the first step from `step` on that does anything.
    fn at(mut step: usize, program: &Program) -> Self {
        while let Some(Step::Repeat { segments, body }) = program.steps.get(step)
            && (*segments == 0 || body.is_empty())
        {
            step += 1;
        }
        Cursor { step, turn: 0, inner: 0 }
    }

    /// The step, its name and its turn; none at the program's end.
    pub(super) fn step<'p>(&self, program: &'p Program) -> Option<(&'p Step, Moment, usize)> {
        let Cursor { step, turn, inner } = *self;
        match program.steps.get(step)? {
            Step::Repeat { body, .. } => Some((&body[inner], Moment::Turn { step, inner, turn }, turn)),
            plain => Some((plain, Moment::Step(step), 0)),
        }
    }

    /// Moves past the step.
    pub(super) fn advance(&mut self, program: &Program) {
        if let Some(Step::Repeat { segments, body }) = program.steps.get(self.step) {
            self.inner += 1;
            if self.inner == body.len() {
                self.inner = 0;
                self.turn += 1;
            }
            if self.turn < *segments {
                return;
            }
        }
        *self = Cursor::at(self.step + 1, program);
    }
}
