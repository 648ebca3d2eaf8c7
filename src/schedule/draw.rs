// SPDX-License-Identifier: MPL-2.0
//! A schedule as text: what it is, whether it is right, and each rank's steps.
//!
//! A place is written `rank:buffer[elements]`: `2:input[4..8]` is elements 4 to 7 of rank 2's input, `0-3:input[4..8]`
//! the same of each rank from 0 to 3, and `1:slot0[0..4]` lies in slot 0 of rank 1. In a loop, `+4` after the elements
//! is how far they move with each turn, and `1+2` is a flag's value of 1 that grows by 2 with each turn. Sources are
//! folded in the order in which they are written.

use std::fmt::{self, Write};

use super::cost::Moved;
use super::{Access, Buffer, Entry, Fault, Layout, Place, Resources, Schedule, Step, verify};
use crate::element::{Bracketing, FoldOrder};

/// Draws a schedule for a layout, and says whether [`verify`](fn@verify) proves it.
pub fn draw(schedule: &dyn Schedule, layout: &Layout) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = Drawing { schedule, layout }.write(&mut text);
    text
}

struct Drawing<'a> {
    schedule: &'a dyn Schedule,
    layout: &'a Layout,
}

impl Drawing<'_> {
    fn write(&self, out: &mut String) -> fmt::Result {
        let Drawing { schedule, layout } = *self;
        let verified = verify(schedule, layout);
        if let Err(Fault::Declaration(sentence)) = &verified {
            // Lengths and programs for what cannot be mean nothing.
            return writeln!(out, "{} by {}\nWRONG       {sentence}", schedule.collective(), schedule.name());
        }
        self.title(out)?;
        match &verified {
            Ok(verified) => writeln!(out, "proved      {} rounds, hash {:016x}", verified.rounds(), verified.hash())?,
            Err(fault) => writeln!(out, "WRONG       {fault}")?,
        }
        let resources = schedule.resources(layout);
        writeln!(out, "needs       {}", needs(resources))?;
        writeln!(out, "notation    rank:buffer[elements]; +n: further by n with each turn of a loop")?;
        for rank in 0..layout.world() {
            let program = schedule.program(rank, layout);
            writeln!(out, "\nrank {rank}: {}", Moved::of(rank, &program.steps))?;
            for (index, step) in program.steps.iter().enumerate() {
                match step {
                    Step::Repeat { segments, body } => {
                        writeln!(out, "{index:>6}    repeat {segments} times")?;
                        for (inner, step) in body.iter().enumerate() {
                            writeln!(out, "{:>8}    {}", format!("{index}.{inner}"), line(step, true))?;
                        }
                    }
                    step => writeln!(out, "{index:>6}    {}", line(step, false))?,
                }
            }
        }
        Ok(())
    }

    fn title(&self, out: &mut String) -> fmt::Result {
        let Drawing { schedule, layout } = *self;
        let (collective, world) = (schedule.collective(), layout.world());
        let place = if layout.is_in_place() { "in place" } else { "out of place" };
        let counts: Vec<String> = (0..world).map(|rank| layout.count(rank).to_string()).collect();
        let counts = match counts.iter().all(|count| *count == counts[0]) {
            true => counts[0].clone(),
            false => counts.join(", "),
        };
        write!(out, "{collective} by {}: {world} ranks, count {counts}, {place}", schedule.name())?;
        if collective.has_root() {
            write!(out, ", root {}", layout.root())?;
        }
        writeln!(out)?;
        let access = match schedule.access() {
            Access::Direct => "direct: ranks read and write each other's buffers",
            Access::Read => "read: ranks read each other's buffers",
            Access::Staged => "staged: ranks share scratch alone",
        };
        writeln!(out, "access      {access}")?;
        let entry = match schedule.entry() {
            Entry::Barrier => "a barrier, then the program",
            Entry::Carries => "the program's own signals and waits; slots lie in the entry records",
        };
        writeln!(out, "entry       {entry}")?;
        if collective.folds() {
            let order = schedule.fold_order();
            write!(out, "fold order  {}", order.name())?;
            let chunks = match order {
                FoldOrder::Rank | FoldOrder::Tree => 1,
                FoldOrder::Ring | FoldOrder::Given(_) => world.min(4),
            };
            for chunk in 0..chunks {
                let bracketing = bracketing(&order.bracketing(chunk, world));
                write!(out, "{} {bracketing}", if chunk == 0 { ":" } else { " |" })?;
            }
            writeln!(out, "{}", if chunks > 1 && chunks < world { " | .." } else { "" })?;
        }
        Ok(())
    }
}

fn bracketing(order: &Bracketing) -> String {
    match order {
        Bracketing::Leaf(rank) => rank.to_string(),
        Bracketing::Fold(children) => {
            let texts = children.iter().map(|child| match child {
                Bracketing::Leaf(rank) => rank.to_string(),
                fold => format!("({})", bracketing(fold)),
            });
            texts.collect::<Vec<_>>().join(" ")
        }
    }
}

fn needs(resources: Resources) -> String {
    let Resources { scratch, slot, partial, depth, flags, advance } = resources;
    let mut parts = Vec::new();
    if scratch > 0 {
        parts.push(format!("{scratch} elements of scratch"));
    }
    if slot > 0 {
        parts.push(format!("{depth} slots of {slot} elements"));
    }
    if partial > 0 {
        parts.push(format!("{depth} partials of {partial} accumulators"));
    }
    if flags > 0 {
        let plural = if flags == 1 { "flag" } else { "flags" };
        parts.push(format!("{flags} {plural} advancing by {advance}"));
    }
    match parts.is_empty() {
        true => "nothing".into(),
        false => format!("{} a rank", parts.join(", ")),
    }
}

/// A step, as it stands in a loop or outside.
fn line(step: &Step, in_loop: bool) -> String {
    let value = |value: i64, stride: i64| match in_loop && stride != 0 {
        true => format!("{value}{stride:+}"),
        false => value.to_string(),
    };
    match step {
        Step::Copy { from, to, len } => {
            format!("copy    {}  ->  {}", places(&[*from], *len, in_loop), places(to, *len, in_loop))
        }
        Step::Fold { from, to, len } => {
            format!("fold    {}  ->  {}", places(from, *len, in_loop), places(to, *len, in_loop))
        }
        Step::Signal { flag, to, value: v, stride } => {
            let to: Vec<String> = to.iter().map(usize::to_string).collect();
            format!("signal  flag {flag} is {}, to {}", value(*v, *stride), to.join(" "))
        }
        Step::Wait { rank, flag, value: v, stride } => {
            format!("wait    flag {flag} of {rank} reaches {}", value(*v, *stride))
        }
        Step::Repeat { segments, body } => format!("repeat {segments} times {} steps", body.len()),
    }
}

/// Places, those of neighbouring ranks together.
fn places(places: &[Place], len: usize, in_loop: bool) -> String {
    let mut texts = Vec::new();
    let mut rest = places;
    while let Some(first) = rest.first() {
        let alike = |(index, place): &(usize, &Place)| **place == Place { rank: first.rank + index, ..*first };
        let run = rest.iter().enumerate().take_while(alike).count();
        let ranks = match run {
            1 => first.rank.to_string(),
            _ => format!("{}-{}", first.rank, first.rank + run - 1),
        };
        let buffer = match first.buffer {
            Buffer::Input => "input".into(),
            Buffer::Output => "output".into(),
            Buffer::Scratch => "scratch".into(),
            Buffer::Slot(index) => format!("slot{index}"),
            Buffer::Partial(index) => format!("partial{index}"),
        };
        let moving = if in_loop && first.stride != 0 { format!("+{}", first.stride) } else { String::new() };
        let elements = first.offset..first.offset.saturating_add(len);
        texts.push(format!("{ranks}:{buffer}[{elements:?}]{moving}"));
        rest = &rest[run..];
    }
    texts.join(" ")
}
