// SPDX-License-Identifier: MPL-2.0
//! Kernels that wait for one another on as many streams of one process: do they run together, and up to which grid?

use super::super::answer::{Answers, time};
use super::super::card::{Card, Shape, Stream};
use super::super::kernels::Kernels;
use super::resident::{largest, meet};
use crate::driver::cuda::Fault;
use crate::error::Result;

pub(super) fn answer(answers: &Answers) -> Result<()> {
    const THREADS: u32 = 256;
    let card = Card::open()?;
    let kernels = Kernels::load(&card)?;
    let resident = kernels.meet.occupancy(THREADS, 0)? * card.multiprocessors()?;
    let queues = std::env::var("CUDA_DEVICE_MAX_CONNECTIONS").unwrap_or_else(|_| "8 (the default)".into());
    answers.say("hardware queues asked for", queues)?;
    for count in [2_u32, 4, 8, 16] {
        let streams: Vec<Stream> = (0..count).map(|_| card.stream()).collect::<Result<_, Fault>>()?;
        let mut took = 0.0;
        let mut together = 0;
        let most = largest(1, resident / count, |blocks| {
            let met = meet(&card, &kernels, &streams, Shape::new(blocks, THREADS))?;
            if met.all {
                took = met.nanoseconds;
            } else {
                together = together.max(met.together);
            }
            Ok(met.all)
        })?;
        let answer = match most {
            Some(blocks) => format!(
                "run together, with up to {blocks} blocks of {THREADS} threads each; {} of {resident} are resident; {}",
                blocks * count,
                time(took)
            ),
            None => format!("do NOT run together; {together} blocks met when all were late"),
        };
        answers.settle(
            format!("{count} kernels on {count} streams"),
            answer,
            "kernels on up to 8 streams run together; with more streams than hardware queues they may not",
            most.is_some() || count > 8,
        )?;
    }
    Ok(())
}
