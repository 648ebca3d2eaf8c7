// SPDX-License-Identifier: MPL-2.0
//! What a stream does for a program: its steps in their order, with signals and waits that follow one another in one
//! launch. Pure: what is enqueued (`copies`) and what is explained (`explain`) are the same.

use super::super::loaded::Loaded;
use crate::error::{Error, Result};
use crate::kernel::{MARKS, Mark, SOURCES};
use crate::schedule::{Place, Step};

/// Whether kernels take all steps of a program: what they can name, and values of flags that lie within the call.
pub(super) fn check(loaded: &Loaded, world: usize) -> Result<()> {
    let refused = |why: String| Err(Error::invalid(format!("the schedule {} on devices: {why}", loaded.name)));
    let within = |value: i64, stride: i64, last: usize| {
        let ends = [Some(value), stride.checked_mul(last as i64).and_then(|more| more.checked_add(value))];
        ends.iter().all(|end| end.is_some_and(|end| end <= 0 || end as u64 <= loaded.resources.advance))
    };
    let each = |step: &Step, last: usize| match step {
        Step::Fold { from, to, .. } if from.len().max(to.len()) > SOURCES => {
            refused(format!("it folds {} places to {}; kernels take {SOURCES} of each", from.len(), to.len()))
        }
        Step::Signal { value, stride, to, .. }
            if !within(*value, *stride, last) || to.iter().any(|to| *to >= world) =>
        {
            refused("it raises a flag beyond its declared advance, or for a rank that there is not".into())
        }
        Step::Wait { value, stride, .. } if !within(*value, *stride, last) => {
            refused("it awaits a flag beyond its declared advance".into())
        }
        _ => Ok(()),
    };
    loaded.steps.iter().try_for_each(|step| match step {
        Step::Repeat { segments, body } => body.iter().try_for_each(|step| each(step, segments.saturating_sub(1))),
        step => each(step, 0),
    })
}

/// Flags that one launch raises, and then awaits.
#[derive(Default)]
pub(super) struct Flags {
    pub raised: Vec<Mark>,
    pub awaited: Vec<Mark>,
}

impl Flags {
    pub fn is_empty(&self) -> bool {
        self.raised.is_empty() && self.awaited.is_empty()
    }

    fn is_full(&self) -> bool {
        self.raised.len() + self.awaited.len() == MARKS
    }
}

/// One operation of a stream, in turn `segment` of its loop. Of a copy or fold, `len` is not 0.
pub(super) enum Operation<'a> {
    Flags(&'a Flags),
    Copy { from: &'a Place, to: &'a [Place], segment: usize, len: usize },
    Fold { from: &'a [Place], to: &'a [Place], segment: usize, len: usize },
}

/// Hands all operations of a program to `each`, in their order; what is left to be raised and awaited at the end, which
/// is for the launch that ends the call.
pub(super) fn operations(loaded: &Loaded, each: impl FnMut(Operation<'_>) -> Result<()>) -> Result<Flags> {
    let mut walk = Walk { advance: loaded.resources.advance, flags: Flags::default(), each };
    for step in &loaded.steps {
        match step {
            Step::Repeat { segments, body } => {
                (0..*segments).try_for_each(|segment| body.iter().try_for_each(|step| walk.step(step, segment)))?
            }
            step => walk.step(step, 0)?,
        }
    }
    Ok(walk.flags)
}

struct Walk<F> {
    /// By how much flags advance in the call.
    advance: u64,
    /// Of the next launch.
    flags: Flags,
    each: F,
}

impl<F: FnMut(Operation<'_>) -> Result<()>> Walk<F> {
    fn step(&mut self, step: &Step, segment: usize) -> Result<()> {
        match step {
            Step::Copy { len: 0, .. } | Step::Fold { len: 0, .. } => Ok(()),
            Step::Copy { from, to, len } => {
                self.meet()?;
                (self.each)(Operation::Copy { from, to, segment, len: *len })
            }
            Step::Fold { from, to, len } => {
                self.meet()?;
                (self.each)(Operation::Fold { from, to, segment, len: *len })
            }
            Step::Signal { flag, to, value, stride } => {
                let before_end = self.before_end(*value, *stride, segment);
                to.iter().try_for_each(|to| self.raise(Mark { rank: *to as u32, flag: *flag, before_end }))
            }
            Step::Wait { rank, flag, value, stride } => {
                let before_end = self.before_end(*value, *stride, segment);
                // At the call's begin nothing is awaited.
                if before_end == self.advance {
                    return Ok(());
                }
                if self.flags.is_full() {
                    self.meet()?;
                }
                self.flags.awaited.push(Mark { rank: *rank as u32, flag: *flag, before_end });
                Ok(())
            }
            // Refused when the program was loaded.
            Step::Repeat { .. } => Ok(()),
        }
    }

    /// How much a flag's value lacks to that at the end of the call.
    fn before_end(&self, value: i64, stride: i64, segment: usize) -> u64 {
        let value = value.saturating_add(stride.saturating_mul(segment as i64)).max(0);
        self.advance.saturating_sub(value as u64)
    }

    fn raise(&mut self, mark: Mark) -> Result<()> {
        // Raises come first in a launch.
        if !self.flags.awaited.is_empty() || self.flags.is_full() {
            self.meet()?;
        }
        // Threads raise flags in no order: of one flag, the last value alone.
        match self.flags.raised.iter_mut().find(|other| (other.rank, other.flag) == (mark.rank, mark.flag)) {
            Some(other) => other.before_end = mark.before_end,
            None => self.flags.raised.push(mark),
        }
        Ok(())
    }

    /// Raises what is to be raised, and waits for what is awaited.
    fn meet(&mut self) -> Result<()> {
        if self.flags.is_empty() {
            return Ok(());
        }
        (self.each)(Operation::Flags(&std::mem::take(&mut self.flags)))
    }
}
