// SPDX-License-Identifier: MPL-2.0
//! Which embedded code loads, how long that takes, and how new a PTX the driver reads. The driver's cache of compiled
//! code is off.

use std::time::Instant;

use super::super::answer::{Answers, time};
use super::super::card::{Card, Shape};
use super::super::kernels::Kernels;
use crate::driver::cuda::ptx;
use crate::error::Result;

/// Versions of PTX that there are, and some that there are not yet.
const VERSIONS: [&str; 18] = [
    "8.0", "8.1", "8.2", "8.3", "8.4", "8.5", "8.6", "8.7", "8.8", "9.0", "9.1", "9.2", "9.3", "9.4", "9.5", "9.6",
    "9.7", "9.9",
];

pub(super) fn answer(answers: &Answers) -> Result<()> {
    let card = Card::open()?;
    let capability = card.capability()?;
    let stream = card.stream()?;
    let asked = [("probe", "probe_nothing"), ("fold", "fold_f32")].into_iter();
    for (code, kernel) in asked.flat_map(|(unit, kernel)| ptx::of(unit).map(move |code| (code, kernel))) {
        let begun = Instant::now();
        let loaded = card.load(code.text);
        let loading = begun.elapsed().as_nanos() as f64;
        let asked = format!("{} for sm_{}, {} KiB of PTX 8.0", code.name, code.target, code.text.len() >> 10);
        let fits = code.target <= capability;
        let module = match loaded {
            Ok(module) => module,
            Err(error) => {
                answers.settle(
                    asked,
                    format!("does not load: {error}"),
                    "code for an older or the same target loads, for a newer one does not",
                    !fits,
                )?;
                continue;
            }
        };
        let begun = Instant::now();
        let function = module.function(kernel)?;
        let finding = begun.elapsed().as_nanos() as f64;
        let launches = if code.name == "probe" {
            let mut times = Vec::new();
            for _ in 0..2 {
                let begun = Instant::now();
                Kernels::launch_nothing(&function, &stream, Shape::new(1, 32))?;
                stream.synchronize()?;
                times.push(time(begun.elapsed().as_nanos() as f64));
            }
            format!(", its first launch {}, the second {}", times[0], times[1])
        } else {
            format!(", {} registers", function.registers()?)
        };
        answers.settle(
            asked,
            format!("loads in {}, {kernel} is found in {}{launches}", time(loading), time(finding)),
            "code for an older or the same target loads, for a newer one does not",
            fits,
        )?;
        if code.name == "fold" {
            module.unload()?;
        }
    }

    let mut newest = None;
    let mut refusal = None;
    for version in VERSIONS {
        let ptx = format!(
            ".version {version}\n.target sm_75\n.address_size 64\n.visible .entry nothing()\n{{\n    ret;\n}}\n"
        );
        match card.load(&ptx) {
            Ok(_) => newest = Some(version),
            Err(error) => refusal = refusal.or(Some((version, error))),
        }
    }
    let newest = newest.map_or("none".into(), |version| format!("the newest that loads is {version}"));
    let refusal = refusal.map_or("none is refused".into(), |(version, error)| format!("{version} is refused: {error}"));
    answers.say("versions of PTX", format!("{newest}; {refusal}"))
}
