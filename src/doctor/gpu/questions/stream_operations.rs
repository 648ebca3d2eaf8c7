// SPDX-License-Identifier: MPL-2.0
//! What it costs to hand work from one stream to another, by events and by stream memory operations, and which of them
//! a graph captures.

use std::cell::Cell;
use std::time::Instant;

use super::super::answer::{Answers, median, time};
use super::super::card::{Card, DeviceMemory, Event, Stream};
use crate::driver::cuda::Fault;
use crate::error::Result;

/// Hand-overs in a chain.
const CHAIN: u32 = 200;

pub(super) fn answer(answers: &Answers) -> Result<()> {
    let card = Card::open()?;
    card.warm()?;
    let streams = [card.stream()?, card.stream()?];
    let (event, counter) = (card.event(false)?, card.words(1)?);

    let enqueued = |what: &str, call: &dyn Fn() -> Result<(), Fault>| {
        let mut times = Vec::new();
        for _ in 0..5 {
            let begun = Instant::now();
            for _ in 0..CHAIN {
                if let Err(fault) = call() {
                    return answers.say(what, format!("refused: {fault}"));
                }
            }
            times.push(begun.elapsed().as_nanos() as f64 / f64::from(CHAIN));
            card.synchronize()?;
        }
        answers.say(what, format!("{} of the host's time", time(median(times))))
    };
    enqueued("recording an event", &|| event.record(&streams[0]))?;
    enqueued("waiting for an event that has passed", &|| streams[0].wait(&event))?;
    enqueued("writing a value", &|| streams[0].write_value(&counter, 1))?;
    enqueued("waiting for a value that is there", &|| streams[0].wait_value(&counter, 1))?;

    let by_events = |turn: u32| {
        let (from, to) = (&streams[(turn % 2) as usize], &streams[((turn + 1) % 2) as usize]);
        let event = card.event(false)?;
        event.record(from)?;
        to.wait(&event)
    };
    answers.say("handing over to another stream by an event", chain(&card, &streams, by_events))?;
    let values = card.words(1)?;
    // The value only grows, from one chain to the next too: nobody can take an old one for what it waits for.
    let value = Cell::new(0);
    let by_values = |turn: u32| {
        let (from, to) = (&streams[(turn % 2) as usize], &streams[((turn + 1) % 2) as usize]);
        value.set(value.get() + 1);
        from.write_value(&values, value.get())?;
        to.wait_value(&values, value.get())
    };
    answers.say("handing over to another stream by a value", chain(&card, &streams, by_values))?;

    let handed = card.event(false)?;
    let back = card.event(false)?;
    captured(answers, "events between two streams", &card, &|stream: &Stream| {
        fork(stream, &streams[1], &handed, &back)
    })?;
    let words = card.words(1)?;
    captured(answers, "writing a value", &card, &|stream: &Stream| stream.write_value(&words, 7))?;
    captured(answers, "waiting for a value", &card, &|stream: &Stream| {
        stream.write_value(&words, 7)?;
        stream.wait_value(&words, 7)
    })?;
    let (from, to) = (card.words(1)?, card.words(1)?);
    captured(answers, "a copy", &card, &|stream: &Stream| from.copy_to(&to, stream))
}

/// How long a hand-over takes on the device, in a chain of them.
fn chain(card: &Card, streams: &[Stream; 2], hand_over: impl Fn(u32) -> Result<(), Fault>) -> String {
    let timed = || -> Result<f64, Fault> {
        let (first, last) = (card.event(true)?, card.event(true)?);
        first.record(&streams[0])?;
        for turn in 0..CHAIN {
            hand_over(turn)?;
        }
        last.record(&streams[(CHAIN % 2) as usize])?;
        card.synchronize()?;
        Ok(last.nanoseconds_since(&first)? / f64::from(CHAIN))
    };
    match (0..3).map(|_| timed()).collect::<Result<Vec<f64>, Fault>>() {
        Ok(times) => format!("{} each, enqueueing included", time(median(times))),
        Err(fault) => format!("refused: {fault}"),
    }
}

/// Another stream waits for this one and this one for it.
fn fork(stream: &Stream, other: &Stream, there: &Event, back: &Event) -> Result<(), Fault> {
    there.record(stream)?;
    other.wait(there)?;
    back.record(other)?;
    stream.wait(back)
}

/// Whether what is enqueued can be captured, made executable, and replayed.
fn captured(answers: &Answers, what: &str, card: &Card, enqueue: &dyn Fn(&Stream) -> Result<(), Fault>) -> Result<()> {
    let stream = card.stream()?;
    let marker: DeviceMemory = card.words(4)?;
    let attempt = || -> Result<usize, (&str, Fault)> {
        stream.begin_capture().map_err(|fault| ("beginning the capture", fault))?;
        let enqueued = marker.fill(1, &stream).and_then(|()| enqueue(&stream));
        let graph = stream.end_capture();
        enqueued.map_err(|fault| ("enqueueing", fault))?;
        let graph = graph.map_err(|fault| ("ending the capture", fault))?;
        let executable = graph.instantiate().map_err(|fault| ("instantiating", fault))?;
        for _ in 0..10 {
            executable.launch(&stream).map_err(|fault| ("launching", fault))?;
        }
        stream.synchronize().map_err(|fault| ("synchronising", fault))?;
        graph.nodes().map_err(|fault| ("counting nodes", fault))
    };
    let answer = match attempt() {
        Ok(nodes) => format!("captured ({nodes} nodes with a fill before it), replayed ten times"),
        Err((step, fault)) => format!("refused when {step}: {fault}"),
    };
    answers.say(format!("graph capture of {what}"), answer)
}
