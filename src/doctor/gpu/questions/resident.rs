// SPDX-License-Identifier: MPL-2.0
//! How many blocks run at once: by the driver's reckoning, and as blocks that wait for one another find out.

use std::time::{Duration, Instant};

use super::super::answer::{Answers, time};
use super::super::card::{Card, Shape, Stream};
use super::super::kernels::{Kernels, Meeting};
use crate::driver::cuda::sys::CUdevice_attribute as Attribute;
use crate::error::Result;

/// How long blocks wait for the others. Those that can run have then long begun to.
const PATIENCE: Duration = Duration::from_millis(50);

/// What came of a meeting.
pub(super) struct Met {
    /// Whether every block met all others.
    pub all: bool,
    /// Blocks that had arrived in the end, whether or not others still waited for them then.
    pub together: u32,
    /// From the first launch until the host knew that all had ended.
    pub nanoseconds: f64,
}

/// Launches a kernel of this shape on each of the streams, all of whose blocks wait for all.
pub(super) fn meet(card: &Card, kernels: &Kernels, streams: &[Stream], shape: Shape) -> Result<Met> {
    meet_within(PATIENCE, card, kernels, streams, shape)
}

/// The same of one launch. Where some were late they are given ten times as long: so what keeps a machine busy for a
/// moment does not pass for blocks that cannot run.
pub(super) fn meet_in_one(card: &Card, kernels: &Kernels, stream: &Stream, shape: Shape) -> Result<Met> {
    let streams = std::slice::from_ref(stream);
    let met = meet_within(PATIENCE, card, kernels, streams, shape)?;
    if met.all { Ok(met) } else { meet_within(10 * PATIENCE, card, kernels, streams, shape) }
}

fn meet_within(patience: Duration, card: &Card, kernels: &Kernels, streams: &[Stream], shape: Shape) -> Result<Met> {
    let expected = streams.len() as u32 * shape.blocks;
    let (arrivals, ended) = (card.words(1)?, card.words(4)?);
    let abort = card.allocate_pinned(4096)?;
    let meeting = Meeting { arrivals: &arrivals, ended: &ended, abort: &abort, expected, patience };
    let begun = Instant::now();
    for stream in streams {
        kernels.meet(stream, shape, &meeting)?;
    }
    for stream in streams {
        stream.synchronize()?;
    }
    let nanoseconds = begun.elapsed().as_nanos() as f64;
    let reached = ended.read::<u32>(3)?.first().copied().unwrap_or(0);
    let met = Met { all: reached == expected, together: reached, nanoseconds };
    card.free_pinned(abort)?;
    card.free(arrivals)?;
    card.free(ended)?;
    Ok(met)
}

/// The largest value between these for which `holds`, if all up to it do; `None` if it does not hold for the smallest.
pub(super) fn largest(from: u32, to: u32, mut holds: impl FnMut(u32) -> Result<bool>) -> Result<Option<u32>> {
    if to < from {
        return Ok(None);
    }
    if holds(to)? {
        return Ok(Some(to));
    }
    if to == from || !holds(from)? {
        return Ok(None);
    }
    let (mut yes, mut no) = (from, to);
    while no - yes > 1 {
        let middle = yes + (no - yes) / 2;
        if holds(middle)? { yes = middle } else { no = middle }
    }
    Ok(Some(yes))
}

pub(super) fn answer(answers: &Answers) -> Result<()> {
    let card = Card::open()?;
    let kernels = Kernels::load(&card)?;
    let multiprocessors = card.multiprocessors()?;
    let stream = card.stream()?;
    let most_shared = card.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
    kernels.meet.allow_shared(most_shared)?;
    // Blocks of more than 512 threads are refused: kernels are compiled for no more.
    let shapes = [(32, 0), (128, 0), (256, 0), (512, 0), (256, 32 << 10), (256, most_shared)];
    for (threads, shared) in shapes {
        let each = kernels.meet.occupancy(threads, shared)?;
        let reckoned = each * multiprocessors;
        let shape = |blocks| Shape { shared, ..Shape::new(blocks, threads) };
        let asked = format!("blocks of {threads} threads and {} KiB of shared memory", shared >> 10);
        let mut quickest = f64::INFINITY;
        let mut holds = |blocks| {
            let met = meet_in_one(&card, &kernels, &stream, shape(blocks))?;
            if met.all {
                quickest = met.nanoseconds;
            }
            Ok(met.all)
        };
        let observed = match holds(reckoned)? {
            true if holds(reckoned + 1)? => largest(reckoned + 1, 2 * reckoned, &mut holds)?,
            true => Some(reckoned),
            false => largest(1, reckoned, &mut holds)?,
        };
        answers.settle(
            asked,
            format!(
                "{reckoned} by the driver's reckoning ({multiprocessors} x {each}); {} met; the largest meeting took {}",
                observed.unwrap_or(0),
                time(quickest)
            ),
            "as many blocks run at once as the driver reckons, and no more",
            observed == Some(reckoned),
        )?;
    }
    Ok(())
}
