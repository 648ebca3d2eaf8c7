// SPDX-License-Identifier: MPL-2.0
//! How long a flag travels between two kernels and between a kernel and the host, what a look at a flag and at an abort
//! word in the host's memory costs, and how the clock steps by which kernels know their deadlines.

use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

use super::super::answer::{Answers, median, time};
use super::super::card::{Card, Memory};
use super::super::kernels::{Ended, Kernels, Rally, Scope, Sides};
use crate::error::Result;

const ROUNDS: u32 = 1000;
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn answer(answers: &Answers) -> Result<()> {
    let card = Card::open()?;
    let kernels = Kernels::load(&card)?;
    card.warm()?;
    // One that fails is no reason not to ask the next.
    let parts = [on_the_card, with_the_host, looking, clocks];
    parts.map(|part| part(answers, &card, &kernels)).into_iter().collect()
}

/// Nanoseconds a round, if all were played.
fn a_round(out: &[u64], sides: &[usize]) -> Option<f64> {
    sides.iter().all(|side| Ended::from_word(out[2 * side]) == Some(Ended::Reached)).then(|| {
        let nanoseconds = sides.iter().map(|side| out[2 * side + 1]).max().unwrap_or(0);
        nanoseconds as f64 / f64::from(ROUNDS)
    })
}

fn on_the_card(answers: &Answers, card: &Card, kernels: &Kernels) -> Result<()> {
    let streams = [card.stream()?, card.stream()?];
    for scope in [Scope::System, Scope::Device] {
        for together in [true, false] {
            let mut times = Vec::new();
            for _ in 0..5 {
                let (serves, returns, out) = (card.words(1)?, card.words(1)?, card.allocate(64)?);
                let abort = card.allocate_pinned(4096)?;
                let counters: [&dyn Memory; 2] = [&serves, &returns];
                let rally =
                    |sides| Rally { sides, rounds: ROUNDS, scope, patience: PATIENCE, abort: &abort, out: &out };
                if together {
                    kernels.ping(&streams[0], counters, &rally(Sides::Both))?;
                } else {
                    kernels.ping(&streams[0], counters, &rally(Sides::Serves))?;
                    kernels.ping(&streams[1], counters, &rally(Sides::Returns))?;
                }
                card.synchronize()?;
                times.extend(a_round(&out.read(4)?, &[0, 1]));
            }
            let scope = match scope {
                Scope::System => "system",
                Scope::Device => "device",
            };
            let place = if together { "two blocks of one launch" } else { "two kernels on two streams" };
            let answer = match times.is_empty() {
                true => "they do not answer each other".into(),
                false => format!("{} a round trip", time(median(times))),
            };
            answers.say(format!("a flag of {scope} scope in device memory, {place}"), answer)?;
        }
    }
    Ok(())
}

fn with_the_host(answers: &Answers, card: &Card, kernels: &Kernels) -> Result<()> {
    let stream = card.stream()?;
    let mut times = Vec::new();
    for _ in 0..5 {
        let (serves, returns) = (card.allocate_pinned(4096)?, card.allocate_pinned(4096)?);
        let (abort, out) = (card.allocate_pinned(4096)?, card.allocate(64)?);
        let rally = Rally {
            sides: Sides::Serves,
            rounds: ROUNDS,
            scope: Scope::System,
            patience: PATIENCE,
            abort: &abort,
            out: &out,
        };
        kernels.ping(&stream, [&serves, &returns], &rally)?;
        let begun = Instant::now();
        let (theirs, mine) = (&serves.words()[0], &returns.words()[0]);
        for round in 1..=ROUNDS {
            // Acquire and release: the flag of each side is all that is passed on.
            while theirs.load(Acquire) < round && begun.elapsed() < PATIENCE {
                std::hint::spin_loop();
            }
            mine.store(round, Release);
        }
        card.synchronize()?;
        times.extend(a_round(&out.read(4)?, &[0]));
    }
    let answer = match times.is_empty() {
        true => "they do not answer each other".into(),
        false => format!("{} a round trip", time(median(times))),
    };
    answers.say("a flag of system scope in pinned memory, a kernel and the host", answer)
}

fn looking(answers: &Answers, card: &Card, kernels: &Kernels) -> Result<()> {
    const LOOKS: u32 = 20_000;
    let stream = card.stream()?;
    let (counter, abort, out) = (card.words(1)?, card.allocate_pinned(4096)?, card.allocate(64)?);
    let a_look = |gate: u32| -> Result<(f64, f64)> {
        let mut times = Vec::new();
        let mut cycles = Vec::new();
        for _ in 0..5 {
            kernels.poll(&stream, &counter, &abort, &out, LOOKS, gate)?;
            stream.synchronize()?;
            let out = out.read::<u64>(2)?;
            times.push(out[0] as f64 / f64::from(LOOKS));
            cycles.push(out[1] as f64 / f64::from(LOOKS));
        }
        Ok((median(times), median(cycles)))
    };
    let (alone, cycles) = a_look(0)?;
    answers.say("a look at a counter in device memory", format!("{}, {cycles:.0} cycles", time(alone)))?;
    let (ungated, _) = a_look(1)?;
    answers.say("and at a mapped abort word, with every look", format!("{} more", time(ungated - alone)))?;
    for gate in [8, 64, 512] {
        let (gated, _) = a_look(gate)?;
        let more = gated - alone;
        answers.settle(
            format!("and at a mapped abort word, with every {gate}th look"),
            format!("{} more, {:.0} times cheaper than with every look", time(more), (ungated - alone) / more.max(0.1)),
            "a gated look at a mapped word is at least ten times cheaper",
            gate < 64 || more * 10.0 <= ungated - alone,
        )?;
    }
    Ok(())
}

fn clocks(answers: &Answers, card: &Card, kernels: &Kernels) -> Result<()> {
    let stream = card.stream()?;
    let out = card.allocate(64)?;
    kernels.ticks(&stream, &out, 100_000)?;
    stream.synchronize()?;
    let out = out.read::<u64>(4)?;
    let [smallest, steps, nanoseconds, cycles] = [out[0], out[1].max(1), out[2].max(1), out[3]];
    answers.say(
        "the clock by which kernels know their deadlines",
        format!(
            "steps by {} at the least and {} in the mean; {:.0} MHz by the multiprocessor's",
            time(smallest as f64),
            time(nanoseconds as f64 / steps as f64),
            cycles as f64 * 1e3 / nanoseconds as f64
        ),
    )
}
