// SPDX-License-Identifier: MPL-2.0
//! All questions, one after the other, each in a process of its own with a deadline.
//!
//! A process that passes its deadline is killed, with all it has started, and then given a moment to go; one that a
//! driver keeps from going is left behind. It dies with the survey's process at the latest, if it can die at all.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::answer::{Answer, Line};
use super::questions::{self, Question};
use crate::error::{Error, Result};

/// The longest that a survey takes, whatever a card does.
pub const LONGEST: Duration = Duration::from_secs(290);

/// How long a killed process has to go.
const GRACE: Duration = Duration::from_secs(2);

/// What is put to the card, and how long it may take.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    deadline: Option<Duration>,
    within: Option<Duration>,
    only: Vec<String>,
}

/// How a question's process ended.
enum Ended {
    Answered,
    Absent(String),
    /// It did not answer all it was asked; why.
    Short(String),
}

impl Survey {
    /// All questions, each with its own deadline.
    pub fn new() -> Self {
        Survey::default()
    }

    /// No question may take longer than this.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// All questions together may not take longer than this; a process that has to be killed may take a few seconds more.
    #[must_use]
    pub fn within(mut self, within: Duration) -> Self {
        self.within = Some(within);
        self
    }

    /// Only the questions of these names; all, if there are none.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if a question of that name does not exist.
    pub fn only(mut self, names: &[String]) -> Result<Self> {
        let known: Vec<&str> = questions::all().iter().map(|question| question.name).collect();
        if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
            return Err(Error::invalid(format!("there is no question {name}; there are {}", known.join(", "))));
        }
        self.only = names.to_vec();
        Ok(self)
    }

    /// Asks. `process` makes the command that asks the question of that name (see [`ask`](super::ask)); each answer is
    /// passed on as soon as it is there. Returns the names of the questions that were not answered to their end, each of
    /// which has an answer that says why.
    ///
    /// # Errors
    ///
    /// `Unsupported` if there is no GPU, with what was looked for; `System` if processes cannot be started.
    pub fn run(
        &self,
        process: impl Fn(&str) -> Command,
        mut answered: impl FnMut(Answer),
    ) -> Result<Vec<&'static str>> {
        let longest = LONGEST - 2 * GRACE;
        let until = Instant::now() + self.within.map_or(longest, |within| within.min(longest));
        let is_wanted =
            |question: &&Question| self.only.is_empty() || self.only.iter().any(|name| name == question.name);
        let mut short = Vec::new();
        for question in questions::all().iter().filter(is_wanted) {
            let left = until.saturating_duration_since(Instant::now());
            let deadline = self.deadline.unwrap_or(question.deadline).min(left);
            let ended = match deadline.is_zero() {
                true => Ended::Short("not asked: the time for all questions is up".into()),
                false => one(question, process(question.name), deadline, &mut answered)?,
            };
            match ended {
                Ended::Answered => {}
                Ended::Absent(why) => return Err(Error::unsupported(why)),
                Ended::Short(answer) => {
                    short.push(question.name);
                    let (question, asked) = (question.name.to_string(), question.asks.to_string());
                    answered(Answer { question, asked, answer, recalled: None });
                }
            }
        }
        Ok(short)
    }
}

/// Asks one question and passes its answers on.
fn one(
    question: &Question,
    mut command: Command,
    deadline: Duration,
    answered: &mut impl FnMut(Answer),
) -> Result<Ended> {
    command
        .envs(question.variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .process_group(0);
    let mut child = command
        .spawn()
        .map_err(|error| Error::system(format!("starting the process of question {}", question.name), error))?;
    let begun = Instant::now();
    let (sender, lines) = mpsc::channel();
    if let Some(out) = child.stdout.take() {
        // It ends with the last process that can write to the pipe, and is left behind with one that cannot be killed.
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(|line| line.ok()) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
    }
    let mut ended = Ended::Answered;
    loop {
        match lines.recv_timeout(deadline.saturating_sub(begun.elapsed())) {
            Ok(line) => match Line::read(&line) {
                Some(Line::Answer(answer)) => answered(answer),
                Some(Line::Absent(why)) => ended = Ended::Absent(why),
                Some(Line::Failed(why)) => ended = Ended::Short(format!("not answered to the end: {why}")),
                None => {}
            },
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                let gone = kill(&mut child);
                let left = if gone { "" } else { ", and does not go even so: the driver holds it" };
                let seconds = deadline.as_secs_f64();
                return Ok(Ended::Short(format!(
                    "no more answers within {seconds:.0} s: its process was killed{left}"
                )));
            }
        }
    }
    // Whoever has closed the pipe is about to end.
    match wait(&mut child, GRACE) {
        Some(status) if status.success() => Ok(ended),
        Some(status) => match ended {
            Ended::Answered => Ok(Ended::Short(format!("not answered to the end: its process ended by {status}"))),
            short => Ok(short),
        },
        None => {
            kill(&mut child);
            Ok(Ended::Short("its process did not end by itself, and was killed".into()))
        }
    }
}

/// Kills a process and what it has started; whether it is gone.
fn kill(child: &mut Child) -> bool {
    // Until it has been waited for, nothing else can get its number.
    let _ = rustix::process::kill_process_group(Pid::from_child(child), Signal::KILL);
    wait(child, GRACE).is_some()
}

fn wait(child: &mut Child, patience: Duration) -> Option<std::process::ExitStatus> {
    let until = Instant::now() + patience;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Err(_) => return None,
            Ok(None) if Instant::now() > until => return None,
            Ok(None) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}
