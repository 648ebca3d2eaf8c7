// SPDX-License-Identifier: MPL-2.0
//! Which calls wait for a kernel that runs. A kernel that waits for its peer must not be kept from it by a call of the
//! peer's that waits for the kernel: such calls have to be made before the first wait.

use std::time::{Duration, Instant};

use super::super::answer::{Answers, time};
use super::super::card::{Card, Shape, Stream};
use super::super::kernels::{Ended, Kernels, code};
use super::ending::Waiting;
use crate::error::Result;

/// How long the kernel waits if the call under test does not return before.
const PATIENCE: Duration = Duration::from_millis(300);

pub(super) fn answer(answers: &Answers) -> Result<()> {
    let card = Card::open()?;
    let kernels = Kernels::load(&card)?;
    let mode = match card.loading_mode()? {
        1 => "at once",
        2 => "when used",
        _ => "in a way without a name",
    };
    answers.say("code is loaded", mode)?;

    let during = During { answers, card: &card, kernels: &kernels };
    let other = card.stream()?;
    let shape = Shape::new(1, 32);
    // `nothing` of this module has run; that of the next one is loaded and has not.
    kernels.nothing(&other, shape)?;
    other.synchronize()?;
    during.ask("launching a kernel that has run before, and waiting for it", || {
        kernels.nothing(&other, shape)?;
        Ok(other.synchronize()?)
    })?;
    let loaded = card.load(code(&card, "probe")?)?;
    let mut found = None;
    during.ask("finding a kernel in a module that is loaded", || {
        found = Some(loaded.function("probe_nothing")?);
        Ok(())
    })?;
    if let Some(found) = found {
        during.ask("launching a kernel for the first time, and waiting for it", || {
            Kernels::launch_nothing(&found, &other, shape)?;
            Ok(other.synchronize()?)
        })?;
    }
    during.ask("loading a module", || card.load(code(&card, "fold")?).map(drop))?;
    during.ask("creating a stream", || Ok(card.stream().map(drop)?))?;
    during.ask("creating an event", || Ok(card.event(true).map(drop)?))?;
    let mut memory = None;
    during.ask("allocating device memory", || {
        memory = Some(card.allocate_as_it_is(1 << 20)?);
        Ok(())
    })?;
    if let Some(memory) = &memory {
        during.ask("filling device memory, and waiting for that", || {
            memory.fill(0, &other)?;
            Ok(other.synchronize()?)
        })?;
    }
    if let Some(memory) = &memory {
        during.ask("reading device memory", || Ok(memory.read::<u32>(1).map(drop)?))?;
        during.ask("exporting device memory", || Ok(memory.handle(0).map(drop)?))?;
    }
    if let Some(memory) = memory {
        during.ask("freeing device memory", || Ok(card.free_at_once(memory)?))?;
    }
    during.ask("allocating from the memory pool", || Ok(card.allocate_from_pool(1 << 20, &other).map(drop)?))?;
    during.ask("allocating pinned memory", || Ok(card.allocate_pinned(1 << 20).map(drop)?))?;
    much(&during, &other)?;
    other.begin_capture()?;
    kernels.nothing(&other, shape)?;
    let graph = other.end_capture()?;
    during.ask("instantiating a graph, launching it, and waiting for it", || {
        graph.instantiate()?.launch(&other)?;
        Ok(other.synchronize()?)
    })
}

/// Makes calls while a kernel runs.
struct During<'a> {
    answers: &'a Answers<'a>,
    card: &'a Card,
    kernels: &'a Kernels<'a>,
}

impl During<'_> {
    fn ask(&self, what: &str, call: impl FnOnce() -> Result<()>) -> Result<()> {
        let waiting = Waiting::start(self.card, self.kernels, PATIENCE)?;
        let begun = Instant::now();
        let result = call();
        let took = begun.elapsed();
        let (ended, _, _) = waiting.abort()?;
        // It may have ended before the call returned without the call having waited for it; not by its deadline.
        let waited = ended == Some(Ended::Late);
        let answer = match (&result, waited) {
            (Err(error), _) => format!("fails: {error}"),
            (Ok(()), false) => format!("returns after {}, the kernel still running", time(took.as_nanos() as f64)),
            (Ok(()), true) => format!("WAITS FOR THE KERNEL: returns after {}", time(took.as_nanos() as f64)),
        };
        self.answers.say(what, answer)
    }
}

/// The same of more memory than a driver may have at hand.
fn much(during: &During, other: &Stream) -> Result<()> {
    const MUCH: usize = 256 << 20;
    let card = during.card;
    during.ask("allocating 256 MiB of device memory", || Ok(card.allocate_as_it_is(MUCH).map(drop)?))?;
    let mut memory = None;
    during.ask("allocating 256 MiB from the memory pool", || {
        memory = Some(card.allocate_from_pool_as_it_is(MUCH, other)?);
        Ok(())
    })?;
    // What is free in the pool may go back to the device when the host waits for any stream.
    let third = card.stream()?;
    if let Some(memory) = memory {
        during.ask("freeing 256 MiB to the memory pool, and waiting for that stream and for another", || {
            card.free_to_pool(memory, other)?;
            other.synchronize()?;
            Ok(third.synchronize()?)
        })?;
    }
    during.ask("allocating 64 MiB of pinned memory", || Ok(card.allocate_pinned(64 << 20).map(drop)?))
}
