// SPDX-License-Identifier: MPL-2.0
//! Answers, and how they get from the process of a question to the one that prints them: as lines of text, each at once,
//! so that a question which is killed in the middle has answered what it had answered.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::Command;

use crate::error::{Error, Result};

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// The question that it belongs to, by name.
    pub question: String,
    /// What exactly was tried.
    pub asked: String,
    /// What came of it, with figures and units.
    pub answer: String,
    /// What was believed before anything was measured, and whether this answer bears it out.
    pub recalled: Option<Recalled>,
}

/// A belief that an answer settles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recalled {
    /// The belief, as a sentence.
    pub fact: String,
    /// Whether it was borne out.
    pub holds: bool,
}

/// What a question's process says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    Answer(Answer),
    /// There is no GPU to ask; why.
    Absent(String),
    /// The question could not be asked to its end; why.
    Failed(String),
}

const SEPARATOR: char = '\t';

impl Line {
    fn fields(&self) -> Vec<&str> {
        match self {
            Line::Answer(Answer { question, asked, answer, recalled: None }) => {
                vec!["answer", question, asked, answer]
            }
            Line::Answer(Answer { question, asked, answer, recalled: Some(Recalled { fact, holds }) }) => {
                vec!["answer", question, asked, answer, if *holds { "holds" } else { "does not hold" }, fact]
            }
            Line::Absent(why) => vec!["absent", why],
            Line::Failed(why) => vec!["failed", why],
        }
    }

    /// As a line of text.
    fn written(&self) -> String {
        let mut text = String::from("annulus");
        for field in self.fields() {
            let field: String = field.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            let _ = write!(text, "{SEPARATOR}{field}");
        }
        text.push('\n');
        text
    }

    /// From a line of text; `None` for what a driver prints of its own accord.
    pub fn read(text: &str) -> Option<Line> {
        let fields: Vec<String> = text.trim_end_matches('\n').split(SEPARATOR).map(str::to_string).collect();
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        let (question, asked, answer, recalled) = match *fields {
            ["annulus", "absent", why] => return Some(Line::Absent(why.into())),
            ["annulus", "failed", why] => return Some(Line::Failed(why.into())),
            ["annulus", "answer", question, asked, answer] => (question, asked, answer, None),
            ["annulus", "answer", question, asked, answer, holds, fact] => {
                (question, asked, answer, Some(Recalled { fact: fact.into(), holds: holds == "holds" }))
            }
            _ => return None,
        };
        Some(Line::Answer(Answer { question: question.into(), asked: asked.into(), answer: answer.into(), recalled }))
    }

    /// Says it to whoever asked.
    pub fn say(&self) -> Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(self.written().as_bytes())
            .and_then(|()| out.flush())
            .map_err(|error| Error::system("writing an answer to standard output", error))
    }
}

/// Where a question puts its answers, and what it may ask for beside the card.
pub(super) struct Answers<'a> {
    question: &'static str,
    peer: &'a dyn Fn() -> Command,
}

impl<'a> Answers<'a> {
    pub fn of(question: &'static str, peer: &'a dyn Fn() -> Command) -> Self {
        Answers { question, peer }
    }

    /// The command that starts this question's other process.
    pub fn peer(&self) -> Command {
        (self.peer)()
    }

    fn line(&self, asked: impl Into<String>, answer: impl Into<String>, recalled: Option<Recalled>) -> Result<()> {
        Line::Answer(Answer { question: self.question.into(), asked: asked.into(), answer: answer.into(), recalled })
            .say()
    }

    /// An answer.
    pub fn say(&self, asked: impl Into<String>, answer: impl Into<String>) -> Result<()> {
        self.line(asked, answer, None)
    }

    /// An answer that settles what was believed.
    pub fn settle(
        &self,
        asked: impl Into<String>,
        answer: impl Into<String>,
        fact: &'static str,
        holds: bool,
    ) -> Result<()> {
        self.line(asked, answer, Some(Recalled { fact: fact.into(), holds }))
    }
}

/// Nanoseconds in the unit in which they are read most easily.
pub(super) fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        t if t < 100.0 => format!("{t:.1} ns"),
        t if t < 1e3 => format!("{t:.0} ns"),
        t if t < 1e6 => format!("{:.2} us", t / 1e3),
        t if t < 1e9 => format!("{:.2} ms", t / 1e6),
        t => format!("{:.2} s", t / 1e9),
    }
}

/// The middle value; 0 of none.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_were_written() {
        let answer = |recalled| Answer {
            question: "fold".into(),
            asked: "f32, 8 sources".into(),
            answer: "3.1 TB/s".into(),
            recalled,
        };
        let recalled = |holds| Some(Recalled { fact: "it is quick".into(), holds });
        for line in [
            Line::Answer(answer(None)),
            Line::Answer(answer(recalled(true))),
            Line::Answer(answer(recalled(false))),
            Line::Absent("there is no driver".into()),
            Line::Failed("cuInit answers CUDA_ERROR_UNKNOWN (999)".into()),
        ] {
            assert_eq!(Line::read(&line.written()), Some(line));
        }
        assert_eq!(Line::read("a driver's own line\n"), None);
        // What cannot be in a line does not break it.
        let line = Line::Failed("one\ttwo\nthree".into());
        assert_eq!(Line::read(&line.written()), Some(Line::Failed("one two three".into())));
    }

    #[test]
    fn times_have_the_unit_they_are_read_in() {
        let times = [0.4, 999.0, 1500.0, 2.5e6, 3e9].map(time);
        assert_eq!(times, ["0.4 ns", "999 ns", "1.50 us", "2.50 ms", "3.00 s"]);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(Vec::new()), 0.0);
    }
}
