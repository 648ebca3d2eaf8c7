// SPDX-License-Identifier: MPL-2.0
//! The questions that the design of GPU collectives rests on, put to a card: `annulus doctor --gpu`.
//!
//! A question is a file of `questions/`, asked in a process of its own that is killed at its deadline and left behind if
//! it cannot even be killed, so that a wrong guess about a card hangs nothing. Its kernels end by themselves besides
//! (`kernels/probe.cu`). A survey asks them all, one after the other, and ends within [`LONGEST`].
//!
//! | file | what is in it |
//! |---|---|
//! | `survey` | processes and deadlines |
//! | `answer` | answers, and how they travel |
//! | `card` | the card, as questions use it |
//! | `kernels` | the kernels' code, arguments and launches |
//! | `questions/` | the questions |

mod answer;
mod card;
mod kernels;
mod questions;
mod survey;

pub use answer::{Answer, Recalled};
pub use questions::{Question, all};
pub use survey::{LONGEST, Survey};

use std::process::Command;

use answer::{Answers, Line};

use crate::driver::cuda::Driver;
use crate::error::{Error, Result};

/// Asks one question, in this process, and writes the answers to standard output as [`Survey`] reads them: what
/// `annulus doctor --gpu --ask NAME` does. `peer` makes the command whose process calls [`answer_as_peer`], for questions
/// about two processes.
///
/// # Errors
///
/// `InvalidArgument` if there is no question of that name, `System` if nobody reads the answers. What keeps a question
/// from being answered is itself an answer.
pub fn ask(name: &str, peer: impl Fn() -> Command) -> Result<()> {
    let Some(question) = all().iter().find(|question| question.name == name) else {
        let names: Vec<&str> = all().iter().map(|question| question.name).collect();
        return Err(Error::invalid(format!("there is no question {name}; there are {}", names.join(", "))));
    };
    if let Err(absent) = Driver::get() {
        return Line::Absent(absent.to_string()).say();
    }
    match question.ask(&Answers::of(question.name, &peer)) {
        Ok(()) => Ok(()),
        Err(error) => Line::Failed(error.to_string()).say(),
    }
}

/// The other process of a question about two: told what to do on standard input, it answers on standard output: what
/// `annulus doctor --gpu --peer` does.
///
/// # Errors
///
/// Those of the device, and `System` if nobody talks to it.
pub fn answer_as_peer() -> Result<()> {
    questions::peer::serve()
}
