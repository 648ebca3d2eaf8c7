// SPDX-License-Identifier: MPL-2.0
//! How much can be enqueued behind a kernel that waits before a call of the driver waits too, and who waits then. Ranks
//! that are threads share a queue: whoever would let the kernel go must not be kept from it by what another has enqueued.
//!
//! It ends by itself: where nothing more has been enqueued for a while, a thread that never calls the driver lets the
//! kernel go.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::super::answer::{Answers, time};
use super::super::card::{Card, Shape, Stream};
use super::super::kernels::{Ended, Kernels};
use super::ending::Waiting;
use crate::driver::cuda::Fault;
use crate::error::{Error, Result};

/// How many pairs are tried: more than four times as many as a queue is believed to take.
const MOST: u32 = 3000;
/// Kernels of a graph.
const NODES: u32 = 10;
/// A call that does not return for so long waits.
const STILL: Duration = Duration::from_millis(200);
/// How long the kernel waits if nothing else ends it.
const PATIENCE: Duration = Duration::from_secs(8);

pub(super) fn answer(answers: &Answers) -> Result<()> {
    let card = Card::open()?;
    let kernels = Kernels::load(&card)?;
    let scale = std::env::var("CUDA_SCALE_LAUNCH_QUEUES").unwrap_or_else(|_| "1x (the default)".into());
    answers.say("length of launch queues asked for", scale)?;

    let stream = card.stream()?;
    let shape = Shape::new(1, 32);
    stream.begin_capture()?;
    (0..NODES).try_for_each(|_| kernels.nothing(&stream, shape))?;
    let graph = stream.end_capture()?.instantiate()?;
    // What is launched first may have to be loaded, which is another question.
    kernels.nothing(&stream, shape)?;
    graph.launch(&stream)?;
    stream.synchronize()?;
    let (pairs, seen) = enqueue(&card, &kernels, |stream| kernels.nothing(stream, shape))?;
    answers.settle(
        "launches, each with an event recorded behind it, behind a kernel that waits",
        seen.pairs(),
        "about 500 launches with their events, or more, can be enqueued behind a kernel that waits",
        !seen.is_full || pairs >= 450,
    )?;
    let asked = "a second thread's launch on another stream meanwhile";
    let returned = seen.second.map(|took| format!("returns after {}", time(took.as_nanos() as f64)));
    match (seen.is_full, returned) {
        (true, returned) => answers.settle(
            asked,
            returned.clone().unwrap_or_else(|| "waits too".into()),
            "where a launch queue is full, every thread's launches wait",
            returned.is_none(),
        ),
        (false, Some(returned)) => answers.say(asked, format!("{returned}; no call had to wait")),
        (false, None) => answers.say(asked, "WAITS, although no other call does"),
    }?;
    let (pairs, seen) = enqueue(&card, &kernels, |stream| graph.launch(stream))?;
    answers.settle(
        format!("the same of graphs of {NODES} empty kernels"),
        seen.pairs(),
        "a graph takes no more of a launch queue than as many launches",
        !seen.is_full || (NODES + 1) * pairs >= 900,
    )
}

/// Enqueues pairs of a launch and an event's record behind a kernel that waits: how many returned at once, and what was
/// seen then.
fn enqueue(
    card: &Card,
    kernels: &Kernels,
    launch: impl Fn(&Stream) -> std::result::Result<(), Fault>,
) -> Result<(u32, Seen)> {
    let event = card.event(false)?;
    let second = Second::start()?;
    let waiting = Waiting::start(card, kernels, PATIENCE)?;
    let progress = Progress::default();
    let (enqueued, seen) = thread::scope(|threads| {
        let (progress, let_go) = (&progress, waiting.abort_word());
        let watcher = threads.spawn(move || {
            let seen = watch(progress, &second);
            // Release: nothing is published with it, but the word must not wait for anything later.
            let_go.store(1, Ordering::Release);
            seen
        });
        let enqueued = (0..MOST).try_for_each(|_| -> Result<()> {
            launch(&waiting.stream)?;
            progress.has_returned();
            event.record(&waiting.stream)?;
            progress.has_returned();
            Ok(())
        });
        // Relaxed: the word is all there is to be known.
        progress.is_over.store(true, Ordering::Relaxed);
        (enqueued, watcher.join())
    });
    let (ended, _) = waiting.end()?;
    enqueued?;
    let seen = seen.map_err(|_| Error::system("watching what is enqueued", "the thread panicked"))?;
    if ended != Some(Ended::Aborted) {
        return Err(Error::system("enqueuing behind a kernel that waits", "it ended before it was let go"));
    }

    Ok((seen.calls / 2, seen))
}

/// How far the thread that enqueues has come.
#[derive(Default)]
struct Progress {
    calls: AtomicU32,
    is_over: AtomicBool,
}

impl Progress {
    fn has_returned(&self) {
        // Relaxed: a count that is looked at now and then.
        self.calls.fetch_add(1, Ordering::Relaxed);
    }
}

/// What was seen while the kernel waited.
struct Seen {
    /// Calls that had returned.
    calls: u32,
    /// Whether the next one waited.
    is_full: bool,
    /// How long the second thread's launch took, if it returned.
    second: Option<Duration>,
}

impl Seen {
    fn pairs(&self) -> String {
        let waits = if self.calls.is_multiple_of(2) { "the next launch" } else { "the event's record" };
        match self.is_full {
            true => format!("{} return at once; {waits} waits", self.calls / 2),
            false => format!("more than {MOST}"),
        }
    }
}

/// Looks until nothing more is enqueued, and has the second thread launch something then.
fn watch(progress: &Progress, second: &Second) -> Seen {
    let (mut calls, mut since) = (0, Instant::now());
    // Relaxed: as they are counted.
    while !progress.is_over.load(Ordering::Relaxed) && since.elapsed() < STILL {
        let now = progress.calls.load(Ordering::Relaxed);
        if now != calls {
            (calls, since) = (now, Instant::now());
        }
        thread::sleep(Duration::from_millis(1));
    }
    let is_full = !progress.is_over.load(Ordering::Relaxed);
    Seen { calls, is_full, second: second.launch() }
}

/// A thread that launches a kernel on a stream of its own when it is told to.
struct Second {
    go: Sender<()>,
    returned: Receiver<Duration>,
}

impl Second {
    /// Starts it, and waits until all is ready.
    fn start() -> Result<Second> {
        let (go, told) = channel();
        let (say, returned) = channel();
        let thread = thread::spawn(move || second(&told, &say));
        // It says so once before.
        match returned.recv() {
            Ok(_) => Ok(Second { go, returned }),
            Err(_) => Err(match thread.join() {
                Ok(Err(error)) => error,
                _ => Error::system("starting a second thread", "it does not get ready"),
            }),
        }
    }

    /// Has it launch; how long that took, if it returned.
    fn launch(&self) -> Option<Duration> {
        self.go.send(()).ok().and_then(|()| self.returned.recv_timeout(STILL).ok())
    }
}

fn second(told: &Receiver<()>, say: &Sender<Duration>) -> Result<()> {
    let card = Card::open()?;
    let kernels = Kernels::load(&card)?;
    let (stream, shape) = (card.stream()?, Shape::new(1, 32));
    kernels.nothing(&stream, shape)?;
    stream.synchronize()?;
    let _ = say.send(Duration::ZERO);
    // Whoever asks may have given up.
    while told.recv().is_ok() {
        let begun = Instant::now();
        kernels.nothing(&stream, shape)?;
        let _ = say.send(begun.elapsed());
    }
    Ok(())
}
