// SPDX-License-Identifier: MPL-2.0
//! Two processes whose kernels wait for each other on one card, by flags in memory that one of them exports. Without
//! the multi-process service a card gives processes turns; how slow is that?

use std::time::Duration;

use super::super::answer::{Answers, time};
use super::super::card::{Card, Memory};
use super::super::kernels::{Ended, Kernels, Rally, Scope, Sides};
use super::peer::Peer;
use crate::error::Result;

pub(super) fn answer(answers: &Answers) -> Result<()> {
    const ROUNDS: u32 = 200;
    const PATIENCE: Duration = Duration::from_secs(3);
    let card = Card::open()?;
    let kernels = Kernels::load(&card)?;
    let (serves, returns) = (card.allocate(2 << 20)?, card.allocate(2 << 20)?);
    let mut peer = Peer::start(answers.peer())?;
    let mut places = Vec::new();
    for memory in [&serves, &returns] {
        match peer.open(&memory.handle(0)?, memory.bytes())? {
            Ok(place) => places.push(place),
            Err(why) => return answers.say("memory of one process, opened by the other", format!("fails: {why}")),
        }
    }
    let (stream, abort, out) = (card.stream()?, card.allocate_pinned(4096)?, card.allocate(64)?);
    let rally = Rally {
        sides: Sides::Serves,
        rounds: ROUNDS,
        scope: Scope::System,
        patience: PATIENCE,
        abort: &abort,
        out: &out,
    };
    peer.tell(&format!("ping {} {} {ROUNDS} {}", places[0], places[1], PATIENCE.as_millis()))?;
    kernels.ping(&stream, [&serves, &returns], &rally)?;
    stream.synchronize()?;
    let theirs = peer.answer()?;
    let out = out.read::<u64>(2)?;
    let ended = Ended::from_word(out[0]);
    let rounds = returns.read::<u32>(1)?.first().copied().unwrap_or(0);
    let each = out[1] as f64 / f64::from(rounds.max(1));
    let answer = match (ended, &theirs) {
        (Some(Ended::Reached), Ok(_)) => format!("{} a round trip", time(each)),
        (_, Err(why)) => format!("the other process fails: {why}"),
        _ => format!("{rounds} of {ROUNDS} round trips within {} s", PATIENCE.as_secs()),
    };
    answers.settle(
        "a flag in exported memory, kernels of two processes",
        answer,
        "without the multi-process service, a round trip between processes takes milliseconds",
        each > 5e5,
    )
}
