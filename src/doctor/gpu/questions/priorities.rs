// SPDX-License-Identifier: MPL-2.0
//! Whether what is enqueued on a stream waits for kernels that wait on others, of which there are more than a card has
//! queues: on an ordinary stream, and on one of the highest priority, on which the library also copies while calls wait.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use super::super::answer::{Answers, time};
use super::super::card::{Card, DeviceMemory, Event, PinnedMemory, Stream};
use super::super::kernels::Kernels;
use crate::driver::cuda::Fault;
use crate::error::{Error, Result};

/// What is not done for so long waits.
const PATIENCE: Duration = Duration::from_millis(300);

/// The streams that are blocked, at the most.
const STREAMS: usize = 64;

pub(super) fn answer(answers: &Answers) -> Result<()> {
    let card = Card::open()?;
    let kernels = Kernels::load(&card)?;
    let blocked = Blocked::new(&card)?;
    let queues = std::env::var("CUDA_DEVICE_MAX_CONNECTIONS").unwrap_or_else(|_| "8 (the default)".into());
    answers.say("hardware queues asked for", queues)?;
    let (ordinary, urgent) = (card.stream()?, card.urgent_stream()?);
    let copy_in = || card.copy(&blocked.memory, &blocked.pinned, &urgent);
    let copy_out = || card.copy(&blocked.pinned, &blocked.memory, &urgent);
    let fill = |stream| blocked.memory.fill(1, stream);
    // What is used first may have to be made ready, which is another question.
    [fill(&ordinary), fill(&urgent), copy_in(), copy_out()].into_iter().collect::<Result<(), _>>()?;
    ordinary.synchronize()?;
    urgent.synchronize()?;
    for count in [1, 8, 16, 32, STREAMS] {
        let asked = |kind| format!("a fill on {kind}, while kernels wait on {count} others");
        let (answer, _) = blocked.attempt(&kernels, count, &ordinary, || fill(&ordinary))?;
        answers.say(asked("an ordinary stream"), answer)?;
        let (answer, waited) = blocked.attempt(&kernels, count, &urgent, || fill(&urgent))?;
        answers.settle(
            asked("a stream of the highest priority"),
            answer,
            "streams of the highest priority have queues of their own",
            !waited,
        )?;
    }
    // The engines that copy have queues too, of which the documentation says less.
    let there_and_back = || copy_in().and_then(|()| copy_out());
    let (answer, waited) = blocked.attempt(&kernels, STREAMS, &urgent, there_and_back)?;
    answers.settle(
        format!(
            "copies from and to the host on a stream of the highest priority, while kernels wait on {STREAMS} others"
        ),
        answer,
        "copies on streams of the highest priority do not wait for kernels on others",
        !waited,
    )?;
    Ok(())
}

/// Streams that are blocked by kernels, each with an event behind it. All that takes is there before any waits.
struct Blocked<'a> {
    streams: Vec<(Stream<'a>, Event<'a>)>,
    counter: DeviceMemory<'a>,
    memory: DeviceMemory<'a>,
    pinned: PinnedMemory,
    abort: PinnedMemory,
    begun: PinnedMemory,
    out: PinnedMemory,
}

impl<'a> Blocked<'a> {
    fn new(card: &'a Card) -> Result<Self> {
        let stream = |_| Ok((card.stream()?, card.event(false)?));
        Ok(Blocked {
            streams: (0..STREAMS).map(stream).collect::<Result<_, Fault>>()?,
            counter: card.words(1)?,
            memory: card.words(1 << 10)?,
            pinned: card.allocate_pinned(4096)?,
            abort: card.allocate_pinned(4096)?,
            begun: card.allocate_pinned(4096)?,
            out: card.allocate_pinned(4096)?,
        })
    }

    /// Enqueues something on `stream` while kernels wait on `count` of these: how that went, and whether it waited for them.
    fn attempt(
        &self,
        kernels: &Kernels,
        count: usize,
        stream: &Stream,
        enqueue: impl FnOnce() -> std::result::Result<(), Fault>,
    ) -> Result<(String, bool)> {
        let (abort, begun) = (&self.abort.words()[0], &self.begun.words()[0]);
        // Relaxed: nothing runs that would read them; launches publish them.
        [abort, begun].iter().for_each(|word| word.store(0, Relaxed));
        for (stream, event) in &self.streams[..count] {
            kernels.wait(stream, &self.counter, &self.abort, &self.begun, &self.out, 10 * PATIENCE)?;
            event.record(stream)?;
        }
        let launched = Instant::now();
        // Acquire: pairs with the kernel's release store; nothing else is read by it.
        while begun.load(Acquire) == 0 {
            if launched.elapsed() > 10 * PATIENCE {
                return Err(Error::system("launching a kernel that says when it runs", "it does not run"));
            }
            std::hint::spin_loop();
        }
        let (say, said) = channel();
        let begun = Instant::now();
        let (done, waited) = thread::scope(|threads| {
            // It never calls the driver, so it lets the kernels go whatever waits.
            let watcher = threads.spawn(move || {
                let waited = said.recv_timeout(PATIENCE).is_err();
                // Release: nothing is published with it, but the word must not wait for anything later.
                abort.store(1, Release);
                waited
            });
            let done = enqueue().and_then(|()| stream.synchronize());
            let took = begun.elapsed();
            // It may have given up.
            let _ = say.send(());
            (done.map(|()| time(took.as_nanos() as f64)), watcher.join())
        });
        self.streams[..count].iter().try_for_each(|(stream, _)| stream.synchronize())?;
        let waited = waited.map_err(|_| Error::system("watching kernels that wait", "the thread panicked"))?;
        let how =
            if waited { "WAITS FOR A KERNEL: is done after" } else { "is done, the kernels still waiting, after" };
        Ok((format!("{how} {}", done?), waited))
    }
}
