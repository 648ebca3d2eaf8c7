// SPDX-License-Identifier: MPL-2.0
//! The fold against copies within the card: bytes read and written in a second.

use super::super::answer::{Answers, median, time};
use super::super::card::{Card, DeviceMemory, Memory, Shape, Stream};
use super::super::kernels::Kernels;
use crate::driver::cuda::Fault;
use crate::error::Result;

pub(super) fn answer(answers: &Answers) -> Result<()> {
    let card = Card::open()?;
    let kernels = Kernels::load(&card)?;
    let stream = card.stream()?;
    // Long enough for a card's caches not to matter, short enough to fit.
    let (_, free) = card.memory()?;
    let bytes = (256 << 20).min(free / 32).next_power_of_two().max(1 << 16);
    let buffers: Vec<DeviceMemory> = (0..9).map(|_| card.allocate(bytes)).collect::<Result<_, Fault>>()?;
    let (sources, to) = buffers.split_at(8);

    card.warm()?;
    let copying = bandwidth(&card, &stream, 2 * bytes, || Ok(sources[0].copy_to(&to[0], &stream)?))?;
    answers.say(
        format!("copies of {} MiB within the card", bytes as f64 / f64::from(1 << 20)),
        format!("{:.0} GB/s read and written", copying),
    )?;
    for bf16 in [false, true] {
        let (name, size, function) = if bf16 { ("bf16", 2, &kernels.fold_bf16) } else { ("f32", 4, &kernels.fold_f32) };
        let elements = bytes / size;
        for (place, source) in sources.iter().enumerate() {
            // Values whose sum is exact in either type, another one in each source.
            let value = (1 + place) as f32;
            let word = if bf16 { (value.to_bits() >> 16) * 0x0001_0001 } else { value.to_bits() };
            source.fill(word, &stream)?;
        }
        for count in [2, 8] {
            let from: Vec<&dyn Memory> = sources[..count].iter().map(|source| source as &dyn Memory).collect();
            let mut best = (0.0, Shape::new(1, 32));
            for threads in [64, 128, 256, 512] {
                let resident = function.occupancy(threads, 0)? * card.multiprocessors()?;
                let lines = (bytes / 16).div_ceil(threads as usize).max(1) as u32;
                for blocks in [resident.min(lines), lines] {
                    let shape = Shape::new(blocks.max(1), threads);
                    let measured = bandwidth(&card, &stream, (count + 1) * bytes, || {
                        kernels.fold(&stream, shape, bf16, &from, &to[0], elements)
                    })?;
                    if measured > best.0 {
                        best = (measured, shape);
                    }
                }
            }
            let sum = (1..=count).sum::<usize>() as f32;
            let expected = if bf16 { (sum.to_bits() >> 16) * 0x0001_0001 } else { sum.to_bits() };
            let right = to[0].read::<u32>(bytes / 4)?.iter().all(|word| *word == expected);
            let (measured, shape) = best;
            answers.say(
                format!("fold of {count} sources, {name}"),
                format!(
                    "{measured:.0} GB/s, {:.2} x the copy's, with {} blocks of {} threads; {}",
                    measured / copying,
                    shape.blocks,
                    shape.threads,
                    if right { "the result is right" } else { "THE RESULT IS WRONG" }
                ),
            )?;
        }
    }
    let first = card.event(true)?;
    let last = card.event(true)?;
    first.record(&stream)?;
    last.record(&stream)?;
    card.synchronize()?;
    answers.say("between two events with nothing between them", time(last.nanoseconds_since(&first)?))
}

/// Gigabytes a second, by the median of several runs of several times each.
fn bandwidth(card: &Card, stream: &Stream, bytes: usize, run: impl Fn() -> Result<()>) -> Result<f64> {
    const TIMES: usize = 3;
    let (first, last) = (card.event(true)?, card.event(true)?);
    run()?;
    let mut measured = Vec::new();
    for _ in 0..5 {
        first.record(stream)?;
        for _ in 0..TIMES {
            run()?;
        }
        last.record(stream)?;
        last.synchronize()?;
        measured.push((bytes * TIMES) as f64 / last.nanoseconds_since(&first)?.max(1.0));
    }
    Ok(median(measured))
}
