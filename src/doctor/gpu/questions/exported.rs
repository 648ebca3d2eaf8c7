// SPDX-License-Identifier: MPL-2.0
//! Memory that another process opens: what can be exported, what a handle names, and in which order memory may be
//! closed and freed.

use super::super::answer::Answers;
use super::super::card::Card;
use super::peer::Peer;
use crate::error::Result;

const BYTES: usize = 4 << 20;

pub(super) fn answer(answers: &Answers) -> Result<()> {
    let card = Card::open()?;
    let stream = card.stream()?;
    let numbers: Vec<u32> = (0..BYTES as u32 / 4).collect();
    let mut peer = Peer::start(answers.peer())?;

    let memory = card.allocate(BYTES)?;
    memory.write(&numbers)?;
    let handle = memory.handle(0)?;
    let place = match peer.open(&handle, BYTES)? {
        Ok(place) => place,
        Err(why) => return answers.say("a plain allocation, opened by another process", format!("fails: {why}")),
    };
    let first = said(peer.ask(&format!("read {place}"))?);
    answers.settle(
        "a plain allocation, opened by another process",
        format!("opens; its first word is {first}, as it was written: {}", yes(first == "0")),
        "plain allocations can be exported",
        first == "0",
    )?;

    let offset = BYTES / 2;
    let inside = match memory.handle(offset) {
        Err(fault) => format!("has no handle: {fault}"),
        Ok(inner) => match peer.open(&inner, BYTES / 2)? {
            Err(why) => format!("has a handle, which does not open: {why}"),
            Ok(place) => {
                let first = said(peer.ask(&format!("read {place}"))?);
                let same = if inner == handle { "the same" } else { "another" };
                let _ = peer.ask(&format!("close {place}"))?;
                match first.as_str() {
                    "0" => format!("has {same} handle, which names the beginning of the allocation"),
                    _ => format!("has {same} handle, which names word {first}"),
                }
            }
        },
    };
    answers.settle(
        format!("what lies {} MiB inside an allocation", offset as f64 / f64::from(1 << 20)),
        inside.clone(),
        "a handle names the beginning of its allocation",
        inside.contains("the beginning"),
    )?;

    let (one, two) = (card.allocate(256)?, card.allocate(256)?);
    one.write(&[111_u32])?;
    two.write(&[222_u32])?;
    let (_, length) = two.allocation()?;
    let answer = match peer.open(&two.handle(0)?, 256)? {
        Err(why) => format!("does not open: {why}"),
        Ok(place) => format!(
            "opens, and its first word is {} (it was written 222, its neighbour 111)",
            said(peer.ask(&format!("read {place}"))?)
        ),
    };
    answers.say(format!("the second of two small allocations, said to be {length} bytes long"), answer)?;

    let pooled = match card.allocate_from_pool(BYTES, &stream) {
        Err(fault) => Err(format!("there is none: {fault}")),
        Ok(memory) => memory.handle(0).map(drop).map_err(|fault| format!("is refused: {fault}")),
    };
    answers.settle(
        "memory from the pool",
        pooled.as_ref().err().cloned().unwrap_or_else(|| "has a handle".into()),
        "memory from the pool cannot be exported so",
        pooled.is_err(),
    )?;

    let own = card.open_handle(&handle, BYTES).map(drop);
    answers.settle(
        "opening it in the process that exported it",
        own.as_ref().map_or_else(|fault| format!("is refused: {fault}"), |()| "works".into()),
        "a process cannot open its own memory",
        own.is_err(),
    )?;

    let again = match peer.open(&handle, BYTES)? {
        Err(why) => format!("is refused: {why}"),
        Ok(second) => {
            let closed = said(peer.ask(&format!("close {second}"))?);
            format!(
                "works; after one is closed ({closed}), the other reads {}",
                said(peer.ask(&format!("read {place}"))?)
            )
        }
    };
    answers.say("opening it twice in another process", again)?;

    let freed = card.free(memory);
    let freed = freed.map_or_else(|fault| format!("is refused: {fault}"), |()| "works".into());
    answers.say(
        "freeing it before it is closed",
        format!(
            "{freed}; the other process then reads {}, and closes it: {}",
            said(peer.ask(&format!("read {place}"))?),
            said(peer.ask(&format!("close {place}"))?)
        ),
    )?;
    let late = peer.open(&handle, BYTES)?;
    answers.say(
        "opening it when it was freed",
        late.map_or_else(|why| format!("is refused: {why}"), |_| "works".into()),
    )?;

    let memory = card.allocate(BYTES)?;
    let opened = peer.open(&memory.handle(0)?, BYTES)?;
    let closed = opened.map(|place| peer.ask(&format!("close {place}")));
    let closed = matches!(closed, Ok(Ok(Ok(_))));
    let freed = card.free(memory).is_ok();
    answers.say(
        "closing it before it is freed",
        format!("closing works: {}; freeing works: {}", yes(closed), yes(freed)),
    )?;

    let memory = card.allocate(BYTES)?;
    let opened = peer.open(&memory.handle(0)?, BYTES)?.is_ok();
    peer.kill()?;
    let freed = card.free(memory).is_ok();
    answers.say(
        "freeing it after the process that had opened it was killed",
        format!("it had been opened: {}; freeing works: {}", yes(opened), yes(freed)),
    )
}

fn said(answer: std::result::Result<Vec<String>, String>) -> String {
    match answer {
        Ok(words) if words.is_empty() => "done".into(),
        Ok(words) => words.join(" "),
        Err(why) => format!("({why})"),
    }
}

fn yes(is_so: bool) -> &'static str {
    if is_so { "yes" } else { "NO" }
}
