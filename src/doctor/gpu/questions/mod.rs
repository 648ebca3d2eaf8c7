// SPDX-License-Identifier: MPL-2.0
//! The questions, in the order in which they are asked: what most depends on comes first, what might upset a card last.

mod card;
mod copies;
mod ending;
mod exported;
mod flags;
mod graphs;
mod launch_queue;
mod loading;
mod one_launch;
pub(super) mod peer;
mod priorities;
mod processes;
mod ptx;
mod resident;
mod stream_operations;
mod streams;

use std::time::Duration;

use super::answer::Answers;
use crate::error::Result;

/// Something to find out about a card.
#[derive(Debug)]
pub struct Question {
    /// Its name.
    pub name: &'static str,
    /// What it asks.
    pub asks: &'static str,
    /// How long it may take.
    pub deadline: Duration,
    /// Environment variables under which it is asked: drivers read them when they start.
    pub variables: &'static [(&'static str, &'static str)],
    answer: fn(&Answers) -> Result<()>,
}

impl Question {
    pub(super) fn ask(&self, answers: &Answers) -> Result<()> {
        (self.answer)(answers)
    }
}

/// Compiled code is neither taken from a cache nor left in one, where loading it is what is asked about.
const NO_CACHE: (&str, &str) = ("CUDA_CACHE_DISABLE", "1");

const fn question(
    name: &'static str,
    asks: &'static str,
    variables: &'static [(&'static str, &'static str)],
    answer: fn(&Answers) -> Result<()>,
) -> Question {
    Question { name, asks, deadline: Duration::from_secs(20), variables, answer }
}

/// Every question.
pub fn all() -> &'static [Question] {
    const ALL: &[Question] = &[
        question("card", "what the card and its driver are", &[], card::answer),
        question("ptx", "which embedded code loads, and how quickly", &[NO_CACHE], ptx::answer),
        question("ending", "whether waiting kernels end by deadline and by abort word", &[], ending::answer),
        question("resident", "how many blocks are resident at once", &[], resident::answer),
        question("one-launch", "whether blocks of one launch wait for one another", &[], one_launch::answer),
        question("streams", "whether kernels on several streams run together", &[], streams::answer),
        question(
            "streams-32",
            "the same with 32 hardware queues",
            &[("CUDA_DEVICE_MAX_CONNECTIONS", "32")],
            streams::answer,
        ),
        question("priorities", "whether streams wait for kernels on others", &[], priorities::answer),
        question("flags", "how long flags travel, and what looking at them costs", &[], flags::answer),
        question("stream-operations", "events and stream memory operations", &[], stream_operations::answer),
        question("graphs", "launches, eager and from graphs", &[], graphs::answer),
        question("fold", "the fold against copies", &[], copies::answer),
        question("ipc", "memory that another process opens", &[], exported::answer),
        question(
            "lazy-loading",
            "what waits for a running kernel, code being loaded when used",
            &[NO_CACHE, ("CUDA_MODULE_LOADING", "LAZY")],
            loading::answer,
        ),
        question(
            "eager-loading",
            "what waits for a running kernel, code being loaded at once",
            &[NO_CACHE, ("CUDA_MODULE_LOADING", "EAGER")],
            loading::answer,
        ),
        question("launch-queue", "how much can be enqueued behind a kernel that waits", &[], launch_queue::answer),
        question(
            "launch-queue-4x",
            "the same with launch queues of four times the length",
            &[("CUDA_SCALE_LAUNCH_QUEUES", "4x")],
            launch_queue::answer,
        ),
        question("processes", "two processes that wait for each other on one card", &[], processes::answer),
    ];
    ALL
}
