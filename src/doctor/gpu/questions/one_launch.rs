// SPDX-License-Identifier: MPL-2.0
//! Several ranks in one launch whose blocks are shared out: do the blocks wait for one another, and does a cooperative
//! launch refuse what cannot?

use super::super::answer::{Answers, median, time};
use super::super::card::{Card, Shape};
use super::super::kernels::Kernels;
use super::resident::meet_in_one;
use crate::error::Result;

pub(super) fn answer(answers: &Answers) -> Result<()> {
    const THREADS: u32 = 256;
    let card = Card::open()?;
    let kernels = Kernels::load(&card)?;
    let resident = kernels.meet.occupancy(THREADS, 0)? * card.multiprocessors()?;
    let stream = card.stream()?;
    for cooperative in [false, true] {
        let kind = if cooperative { "cooperative" } else { "plain" };
        let shape = |blocks| Shape { cooperative, ..Shape::new(blocks, THREADS) };
        for ranks in [2, 4, 8, 16] {
            let blocks = resident / ranks * ranks;
            let mut all = true;
            let mut times = Vec::new();
            for _ in 0..5 {
                let met = meet_in_one(&card, &kernels, &stream, shape(blocks))?;
                all &= met.all;
                times.push(met.nanoseconds);
            }
            answers.settle(
                format!("{ranks} ranks of {} blocks each in one {kind} launch", blocks / ranks),
                format!("{}, in {}", if all { "all met" } else { "not all met" }, time(median(times))),
                "blocks of one launch that are resident can wait for one another",
                all,
            )?;
        }
    }
    let beyond = Shape { cooperative: true, ..Shape::new(resident + 1, THREADS) };
    match meet_in_one(&card, &kernels, &stream, beyond) {
        Ok(met) => answers.settle(
            format!("a cooperative launch of {} blocks, one too many", resident + 1),
            format!("is accepted; {} blocks met", met.together),
            "a cooperative launch refuses what cannot be resident",
            false,
        ),
        Err(error) => answers.settle(
            format!("a cooperative launch of {} blocks, one too many", resident + 1),
            format!("is refused: {error}"),
            "a cooperative launch refuses what cannot be resident",
            true,
        ),
    }
}
