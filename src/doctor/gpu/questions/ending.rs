// SPDX-License-Identifier: MPL-2.0
//! Whether a kernel that waits in vain ends by its deadline and by an abort word in the host's memory, and whether the
//! context still works afterwards. Every later question relies on it.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

use super::super::answer::{Answers, time};
use super::super::card::{Card, PinnedMemory, Shape, Stream};
use super::super::kernels::{Ended, Kernels};
use crate::error::{Error, Result};

/// A kernel that waits, seen from the host.
pub(super) struct Waiting<'a> {
    pub stream: Stream<'a>,
    abort: PinnedMemory,
    out: PinnedMemory,
}

impl<'a> Waiting<'a> {
    /// Launches it and waits until it runs.
    pub fn start(card: &'a Card, kernels: &Kernels, patience: Duration) -> Result<Self> {
        let stream = card.stream()?;
        let counter = card.words(1)?;
        let abort = card.allocate_pinned(4096)?;
        let begun = card.allocate_pinned(4096)?;
        let out = card.allocate_pinned(4096)?;
        kernels.wait(&stream, &counter, &abort, &begun, &out, patience)?;
        let launched = Instant::now();
        // Acquire: pairs with the kernel's release store; nothing else is read by it.
        while begun.words()[0].load(Acquire) == 0 {
            if launched.elapsed() > patience + Duration::from_secs(2) {
                return Err(Error::system("launching a kernel that says when it runs", "it does not run"));
            }
            std::hint::spin_loop();
        }
        Ok(Waiting { stream, abort, out })
    }

    /// The word that ends it.
    pub fn abort_word(&self) -> &AtomicU32 {
        &self.abort.words()[0]
    }

    /// Ends it by the abort word; why it ended, how long it ran by its own clock, and nanoseconds until the host knew.
    pub fn abort(&self) -> Result<(Option<Ended>, f64, f64)> {
        let begun = Instant::now();
        // Release: nothing is published with it, but the word must not wait for anything later.
        self.abort_word().store(1, Release);
        let (ended, ran) = self.end()?;
        Ok((ended, ran, begun.elapsed().as_nanos() as f64))
    }

    /// Waits for its end; why it ended, and how long it ran by its own clock.
    pub fn end(&self) -> Result<(Option<Ended>, f64)> {
        self.stream.synchronize()?;
        // Acquire: the stream was waited for, which orders what its kernels wrote.
        let words = self.out.long_words();
        Ok((Ended::from_word(words[0].load(Acquire)), words[1].load(Acquire) as f64))
    }
}

pub(super) fn answer(answers: &Answers) -> Result<()> {
    let card = Card::open()?;
    let kernels = Kernels::load(&card)?;

    const PATIENCE: Duration = Duration::from_millis(50);
    let (ended, ran) = Waiting::start(&card, &kernels, PATIENCE)?.end()?;
    answers.settle(
        "a waiting kernel with a deadline of 50 ms",
        format!("ends {}, {} after its begin", by(ended), time(ran)),
        "a kernel's wait ends at its deadline",
        ended == Some(Ended::Late),
    )?;

    let waiting = Waiting::start(&card, &kernels, Duration::from_secs(5))?;
    std::thread::sleep(Duration::from_millis(20));
    let (ended, ran, latency) = waiting.abort()?;
    answers.settle(
        "a waiting kernel, aborted after 20 ms",
        format!(
            "ends {}, {} after its begin; the host knows {} after it wrote the word",
            by(ended),
            time(ran),
            time(latency)
        ),
        "a kernel's wait ends by an abort word in the host's memory",
        ended == Some(Ended::Aborted),
    )?;

    let stream = card.stream()?;
    let (one, two, sum) = (card.words(1000)?, card.words(1000)?, card.words(1000)?);
    one.write(&[1.5_f32; 1000])?;
    two.write(&[2.25_f32; 1000])?;
    kernels.fold(&stream, Shape::new(2, 128), false, &[&one, &two], &sum, 1000)?;
    stream.synchronize()?;
    let right = sum.read::<f32>(1000)? == [3.75; 1000];
    answers.settle(
        "a fold in the same context afterwards",
        if right { "right" } else { "WRONG" },
        "the context works after kernels that gave up",
        right,
    )
}

fn by(ended: Option<Ended>) -> &'static str {
    match ended {
        Some(Ended::Late) => "by the deadline",
        Some(Ended::Aborted) => "by the abort word",
        Some(Ended::Reached) => "although nobody raised the counter",
        None => "without saying why",
    }
}
