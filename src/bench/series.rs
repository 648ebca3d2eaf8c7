// SPDX-License-Identifier: MPL-2.0
//! Results as the lines of a plot: one for each algorithm and mode.
//!
//! What all lines have in common is in the title; in what they differ is in their names. Several results of one size
//! (rounds of the same benchmark) are one point, of the median time. A logarithm of zero is nowhere, so sizes of 0 bytes
//! and times of 0 are left out.

use std::collections::BTreeMap;

use super::{Measurement, Results};
use crate::error::{Error, Result};

/// What a plot shows.
pub(super) struct Shown {
    /// The facts that all lines share.
    pub title: String,
    /// On which machine: one line, or one for each source where they differ.
    pub machines: Vec<String>,
    /// In the order in which they first occur.
    pub series: Vec<Series>,
}

/// One line of a plot, with one point at least.
pub(super) struct Series {
    pub name: String,
    /// Lines that differ by their mode alone have the same number.
    pub kind: usize,
    pub in_place: bool,
    /// By bytes.
    pub points: Vec<Point>,
}

pub(super) struct Point {
    pub bytes: usize,
    /// In microseconds, above 0.
    pub time: f64,
    /// In GB/s.
    pub busbw: f64,
}

/// What distinguishes lines, but for the mode.
#[derive(PartialEq)]
struct Kind {
    /// Collective, ranks, transport, devices, memory, type and operation.
    facts: [String; 7],
    file: Option<String>,
    algorithm: String,
}

impl Kind {
    fn of(results: &Results, measurement: &Measurement) -> Self {
        let Measurement { subject, ranks, transport, device, memory, data_type, op, asked, .. } = measurement;
        let device = device.as_deref();
        let facts = [
            subject.to_string(),
            format!("{ranks} ranks"),
            transport.clone(),
            Measurement::caveat(device).or(device).unwrap_or_default().to_owned(),
            format!("{memory} memory"),
            data_type.to_string(),
            op.map_or(String::new(), |op| op.to_string()),
        ];
        Kind { facts, file: results.file.clone(), algorithm: asked.clone() }
    }
}

impl Shown {
    /// # Errors
    ///
    /// `InvalidArgument` where nothing can be drawn.
    pub fn of(results: &[Results]) -> Result<Self> {
        let mut kinds: Vec<Kind> = Vec::new();
        let mut lines: Vec<((usize, bool), Vec<&Measurement>)> = Vec::new();
        for results in results {
            for measurement in results.measurements.iter().filter(|one| one.bytes > 0 && one.time_us > 0.0) {
                let kind = Kind::of(results, measurement);
                let at = kinds.iter().position(|known| *known == kind).unwrap_or_else(|| {
                    kinds.push(kind);
                    kinds.len() - 1
                });
                let key = (at, measurement.in_place);
                match lines.iter_mut().find(|(known, _)| *known == key) {
                    Some((_, measurements)) => measurements.push(measurement),
                    None => lines.push((key, vec![measurement])),
                }
            }
        }
        let Some(first) = kinds.first() else {
            return Err(Error::invalid("no result has a size and a time above 0: there is nothing to draw"));
        };
        let shared: Vec<bool> =
            (0..first.facts.len()).map(|fact| kinds.iter().all(|kind| kind.facts[fact] == first.facts[fact])).collect();
        let facts = |kind: &Kind, common: bool| {
            let facts = kind.facts.iter().zip(&shared).filter(|(fact, shared)| !fact.is_empty() && **shared == common);
            facts.map(|(fact, _)| fact.clone()).collect::<Vec<_>>()
        };
        let series = lines.iter().map(|((at, in_place), measurements)| {
            let kind = &kinds[*at];
            let mut name = facts(kind, false);
            name.push(kind.algorithm.clone());
            name.push(if *in_place { "in place" } else { "out of place" }.to_owned());
            if measurements.iter().any(|one| one.wrong > 0) {
                name.push("WRONG RESULTS".to_owned());
            }
            let file = kind.file.as_ref().map_or(String::new(), |file| format!("{file}: "));
            Series { name: file + &name.join(", "), kind: *at, in_place: *in_place, points: points(measurements) }
        });
        let title = facts(first, true).join(", ");
        Ok(Shown { title, machines: machines(results), series: series.collect() })
    }
}

/// A point for each size.
fn points(measurements: &[&Measurement]) -> Vec<Point> {
    let mut sizes: BTreeMap<usize, Vec<&Measurement>> = BTreeMap::new();
    for measurement in measurements {
        sizes.entry(measurement.bytes).or_default().push(measurement);
    }
    let point = |(bytes, mut rounds): (usize, Vec<&Measurement>)| {
        rounds.sort_by(|a, b| a.time_us.total_cmp(&b.time_us));
        let median = rounds[rounds.len() / 2];
        Point { bytes, time: median.time_us, busbw: median.busbw() }
    };
    sizes.into_iter().map(point).collect()
}

/// Each source's machines; once, where all are the same.
fn machines(results: &[Results]) -> Vec<String> {
    let of_each: Vec<(&str, String)> = results
        .iter()
        .map(|results| {
            let mut machines: Vec<String> = results.machines.iter().map(ToString::to_string).collect();
            machines.sort_unstable();
            machines.dedup();
            let machines = if machines.is_empty() { "machine unknown".to_owned() } else { machines.join(" / ") };
            (results.file.as_deref().unwrap_or("measured now"), machines)
        })
        .collect();
    match of_each.as_slice() {
        [(_, first), others @ ..] if others.iter().all(|(_, other)| other == first) => vec![first.clone()],
        _ => of_each.iter().map(|(source, machines)| format!("{source}: {machines}")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::measurement::example;
    use super::super::{Machine, Memory};
    use super::*;

    fn shown(sources: &[(Option<&str>, &[Measurement])]) -> Result<Shown> {
        let results = sources.iter().map(|(file, measurements)| Results {
            file: file.map(str::to_owned),
            measurements: measurements.to_vec(),
            ..Results::on(Machine::this())
        });
        Shown::of(&results.collect::<Vec<_>>())
    }

    fn names(shown: &Shown) -> Vec<&str> {
        shown.series.iter().map(|series| series.name.as_str()).collect()
    }

    #[test]
    fn what_is_common_is_in_the_title_and_the_rest_in_the_names() {
        let in_place = Measurement { in_place: true, ..example() };
        let ring = Measurement { asked: "ring".into(), wrong: 1, ..example() };
        let one = shown(&[(None, &[example(), in_place.clone(), ring])]).unwrap();
        assert_eq!(one.title, "all_reduce, 4 ranks, threads, plain memory, f32, sum");
        assert_eq!(names(&one), ["auto, out of place", "auto, in place", "ring, out of place, WRONG RESULTS"]);
        assert_eq!(one.series.iter().map(|series| series.kind).collect::<Vec<_>>(), [0, 0, 1]);
        assert_eq!(one.machines, [Machine::this().to_string()]);

        let allocated = Measurement { memory: Memory::Allocated, ranks: 2, ..example() };
        let simulated = Measurement { device: Some("simulated".into()), ..example() };
        let title = shown(&[(None, &[simulated])]).unwrap().title;
        assert!(title.contains("threads, simulated devices: kernels executed on the CPU; no GPU figure, "), "{title}");

        let two = shown(&[(None, &[example()]), (Some("a.jsonl"), &[allocated])]).unwrap();
        assert_eq!(two.title, "all_reduce, threads, f32, sum");
        let expected =
            ["4 ranks, plain memory, auto, out of place", "a.jsonl: 2 ranks, allocated memory, auto, out of place"];
        assert_eq!(names(&two), expected);
    }

    #[test]
    fn machines_that_differ_are_named_with_their_sources() {
        let mut other =
            Results { file: Some("a".into()), measurements: vec![example()], ..Results::on(Machine::this()) };
        other.machines[0].cores = 4096;
        let unknown = Results { file: Some("b".into()), machines: Vec::new(), ..other.clone() };
        let machines = machines(&[Results::on(Machine::this()), other, unknown]);
        assert!(machines[0].starts_with("measured now: annulus ") && machines[1].contains(" 4096 cores"));
        assert_eq!(machines[2], "b: machine unknown");
    }

    #[test]
    fn sizes_ascend_and_rounds_are_their_median() {
        let measured = |bytes, time_us| Measurement { bytes, time_us, ..example() };
        let rounds = [measured(64, 9.0), measured(8, 3.0), measured(8, 1.0), measured(8, 2.0), measured(0, 1.0)];
        let shown = shown(&[(None, &rounds)]).unwrap();
        let points: Vec<_> = shown.series[0].points.iter().map(|point| (point.bytes, point.time)).collect();
        assert_eq!(points, [(8, 2.0), (64, 9.0)]);
        assert_eq!(shown.series[0].points[0].busbw, measured(8, 2.0).busbw());
    }

    #[test]
    fn nothing_to_draw_is_refused() {
        let still = [Measurement { bytes: 0, ..example() }, Measurement { time_us: 0.0, ..example() }];
        for sources in [&[][..], &[(None, &[][..])], &[(None, &still[..])]] {
            assert!(matches!(shown(sources), Err(Error::InvalidArgument(_))));
        }
    }
}
