// SPDX-License-Identifier: MPL-2.0
//! What is wrong with a schedule, as a sentence that names rank, step and element.

use std::fmt;
use std::ops::Range;

use crate::error::Error;

/// Who did something, and where in which program: call 0 is the first of the calls that [`verify`](super::verify)
/// runs back to back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Site {
    /// The rank.
    pub rank: usize,
    /// Which of the calls.
    pub call: usize,
    /// When in that call.
    pub moment: Moment,
}

/// A moment of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Moment {
    /// The rank's user has filled the buffers and makes the call.
    Begin,
    /// A step outside any loop.
    Step(usize),
    /// A step of a [`Repeat`](super::super::Step::Repeat).
    Turn {
        /// The `Repeat`.
        step: usize,
        /// The step of its body.
        inner: usize,
        /// The turn.
        turn: usize,
    },
    /// The call has returned and the buffers are the user's again.
    End,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Site { rank, call, moment } = self;
        match moment {
            Moment::Begin => write!(f, "rank {rank}'s user before call {call}"),
            Moment::Step(step) => write!(f, "rank {rank}, call {call}, step {step}"),
            Moment::Turn { step, inner, turn } => {
                write!(f, "rank {rank}, call {call}, step {step}.{inner} in turn {turn}")
            }
            Moment::End => write!(f, "rank {rank}'s user after call {call}"),
        }
    }
}

/// Why [`verify`](super::verify) refuses a schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The layout, the declared resources or the declared fold order cannot be.
    #[error("{0}")]
    Declaration(String),
    /// A step that breaks a rule of the language of programs.
    #[error("{site} {rule}")]
    Rule {
        /// The step.
        site: Site,
        /// What it does that it must not.
        rule: String,
    },
    /// A step reaches beyond the end of a buffer.
    #[error("{site} reaches elements {elements:?} of {memory}, which has {len}")]
    Bounds {
        /// The step.
        site: Site,
        /// Whose buffer.
        memory: String,
        /// What the step reaches.
        elements: Range<usize>,
        /// What there is.
        len: usize,
    },
    /// A step reads what nobody has written.
    #[error("{site} reads elements {elements:?} of {memory}, which nobody has written")]
    Undefined {
        /// The step.
        site: Site,
        /// Whose buffer.
        memory: String,
        /// The elements without a value.
        elements: Range<usize>,
    },
    /// Two accesses to the same elements, one of them a write, that may happen in either order.
    #[error("{0}")]
    Race(Box<Race>),
    /// No rank can go on, and some have not ended.
    #[error("no rank can go on: {}", waiting.join("; "))]
    Deadlock {
        /// For each rank that has not ended, where it is and what it waits for.
        waiting: Vec<String>,
    },
    /// Elements end as something else than the collective says.
    #[error("rank {rank}, call {call}: elements {elements:?} of the {buffer} should end as {expected}, and {found}")]
    Wrong {
        /// Whose buffer.
        rank: usize,
        /// Which of the calls.
        call: usize,
        /// `input` or `output`.
        buffer: &'static str,
        /// The elements.
        elements: Range<usize>,
        /// What they should be.
        expected: String,
        /// What they are, and which step left them so.
        found: String,
    },
}

/// Two accesses to the same elements, one of them a write, that no signal orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Race {
    /// One of the two.
    pub earlier: Site,
    /// `reads` or `writes`.
    pub earlier_does: &'static str,
    /// The other.
    pub later: Site,
    /// `reads` or `writes`.
    pub later_does: &'static str,
    /// Whose buffer, as `later` names it.
    pub memory: String,
    /// The elements that both touch, as `later` counts them.
    pub elements: Range<usize>,
}

impl fmt::Display for Race {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Race { earlier, earlier_does, later, later_does, memory, elements } = self;
        write!(f, "{later} {later_does} elements {elements:?} of {memory}, which {earlier} {earlier_does}, ")?;
        f.write_str("and no signal orders the two")
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Error::invalid(format!("the schedule is wrong: {fault}"))
    }
}
