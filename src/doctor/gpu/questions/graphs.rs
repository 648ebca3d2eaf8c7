// SPDX-License-Identifier: MPL-2.0
//! What a launch costs, eager and in a graph, and whether an epoch in device memory advances with every replay.

use std::time::Instant;

use super::super::answer::{Answers, median, time};
use super::super::card::{Card, Shape};
use super::super::kernels::Kernels;
use crate::error::Result;

pub(super) fn answer(answers: &Answers) -> Result<()> {
    let card = Card::open()?;
    let kernels = Kernels::load(&card)?;
    card.warm()?;
    // One that fails is no reason not to ask the next.
    [launches, epochs].map(|part| part(answers, &card, &kernels)).into_iter().collect()
}

fn launches(answers: &Answers, card: &Card, kernels: &Kernels) -> Result<()> {
    const LAUNCHES: u32 = 500;
    const NODES: u32 = 100;
    let stream = card.stream()?;
    let shape = Shape::new(1, 32);
    kernels.nothing(&stream, shape)?;
    stream.synchronize()?;

    let (mut enqueueing, mut running, mut alone) = (Vec::new(), Vec::new(), Vec::new());
    let (first, last) = (card.event(true)?, card.event(true)?);
    for _ in 0..5 {
        let begun = Instant::now();
        first.record(&stream)?;
        for _ in 0..LAUNCHES {
            kernels.nothing(&stream, shape)?;
        }
        last.record(&stream)?;
        enqueueing.push(begun.elapsed().as_nanos() as f64 / f64::from(LAUNCHES));
        last.synchronize()?;
        running.push(last.nanoseconds_since(&first)? / f64::from(LAUNCHES));
        for _ in 0..20 {
            let begun = Instant::now();
            kernels.nothing(&stream, shape)?;
            stream.synchronize()?;
            alone.push(begun.elapsed().as_nanos() as f64);
        }
    }
    answers.say("an empty kernel, launched eagerly", format!("{} of the host's time", time(median(enqueueing))))?;
    answers.say("empty kernels one after the other on a stream", format!("{} each", time(median(running))))?;
    answers.say("an empty kernel until the host knows that it has ended", time(median(alone)))?;

    stream.begin_capture()?;
    for _ in 0..NODES {
        kernels.nothing(&stream, shape)?;
    }
    let graph = stream.end_capture()?;
    let begun = Instant::now();
    let executable = graph.instantiate()?;
    let instantiating = begun.elapsed().as_nanos() as f64;
    executable.launch(&stream)?;
    stream.synchronize()?;
    let (mut enqueueing, mut running) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        first.record(&stream)?;
        let begun = Instant::now();
        executable.launch(&stream)?;
        enqueueing.push(begun.elapsed().as_nanos() as f64);
        last.record(&stream)?;
        last.synchronize()?;
        running.push(last.nanoseconds_since(&first)? / f64::from(NODES));
    }
    answers.say(
        format!("a graph of {NODES} empty kernels"),
        format!(
            "instantiated in {}; launched in {} of the host's time; {} a kernel",
            time(instantiating),
            time(median(enqueueing)),
            time(median(running))
        ),
    )
}

fn epochs(answers: &Answers, card: &Card, kernels: &Kernels) -> Result<()> {
    const REPLAYS: u32 = 1000;
    let stream = card.stream()?;
    let (epoch, kept) = (card.words(1)?, card.words(REPLAYS as usize + 20)?);
    stream.begin_capture()?;
    kernels.advance(&stream, &epoch, &kept)?;
    let executable = stream.end_capture()?.instantiate()?;
    let begun = Instant::now();
    for _ in 0..REPLAYS {
        executable.launch(&stream)?;
    }
    stream.synchronize()?;
    let each = begun.elapsed().as_nanos() as f64 / f64::from(REPLAYS);
    // Eager calls between replays count on.
    for _ in 0..10 {
        kernels.advance(&stream, &epoch, &kept)?;
        executable.launch(&stream)?;
    }
    stream.synchronize()?;
    let reached = epoch.read::<u32>(1)?.first().copied().unwrap_or(0);
    let expected: Vec<u32> = (1..=REPLAYS + 20).collect();
    let right = reached == REPLAYS + 20 && kept.read::<u32>(expected.len())? == expected;
    answers.settle(
        format!("an epoch in device memory, over {REPLAYS} replays and 20 more, every other one eager"),
        format!("{}; {} a replay", if right { "counts every one" } else { "LOSES COUNT" }, time(each)),
        "an epoch in device memory advances with every replay",
        right,
    )
}
