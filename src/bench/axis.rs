// SPDX-License-Identifier: MPL-2.0
//! The axes of a plot: where values lie, and which of them are labelled.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// An axis. Positions are what is drawn: logarithms on a logarithmic axis.
pub(super) struct Axis {
    pub name: &'static str,
    /// The positions of both ends.
    pub range: Range<f64>,
    /// Labelled positions, ascending.
    pub ticks: Vec<(f64, String)>,
}

impl Axis {
    /// Sizes in bytes, above 0: a position is a logarithm to base 2, as labels are powers of two.
    pub fn sizes(sizes: impl Iterator<Item = usize> + Clone) -> Self {
        let first = sizes.clone().min().unwrap_or(1).ilog2();
        let last = sizes.map(ceil_log2).max().unwrap_or(1).max(first + 1);
        let step = (1..).find(|step| (last - first) / step < 9).unwrap_or(last);
        let ticks = (first..=last).step_by(step as usize).map(|power| (power.into(), size_label(power)));
        Axis { name: "size (bytes)", range: first.into()..last.into(), ticks: ticks.collect() }
    }

    /// Times in microseconds, above 0: a position is a decimal logarithm. Both ends are 1, 2 or 5 times a power of ten;
    /// all of these are labelled if that is few, else powers of ten.
    pub fn times(times: impl Iterator<Item = f64> + Clone) -> Self {
        let first = times.clone().map(f64::log10).fold(f64::INFINITY, f64::min);
        let last = times.map(f64::log10).fold(f64::NEG_INFINITY, f64::max);
        let (decade, end) = (first.floor() as i32, last.ceil() as i32 + 1);
        let step = |power: i32, digit: i32| (power, digit, f64::from(power) + f64::from(digit).log10());
        let ladder = (decade..=end).flat_map(|power| [1, 2, 5].map(|digit| step(power, digit)));
        let start = ladder.clone().map(|(.., at)| at).filter(|at| *at <= first).fold(f64::from(decade), f64::max);
        let end = ladder.clone().map(|(.., at)| at).find(|at| *at >= last && *at > start).unwrap_or(f64::from(end));
        let within = ladder.filter(|(.., at)| (start..=end).contains(at));
        let decades = (end - start).ceil() as i32;
        let every = decades / 10 + 1;
        let labelled =
            within.filter(|(power, digit, _)| decades <= 3 || (*digit == 1 && (power - decade) % every == 0));
        let ticks = labelled.map(|(power, digit, at)| (at, time_label(digit, power)));
        Axis { name: "time (us)", range: start..end, ticks: ticks.collect() }
    }

    /// Bandwidths in GB/s from 0 on: a position is the bandwidth.
    pub fn bandwidths(bandwidths: impl Iterator<Item = f64>) -> Self {
        let most = bandwidths.fold(0.0, f64::max);
        let most = if most > 0.0 { most } else { 1.0 };
        let decade = (most / 6.0).log10().floor() as i32;
        let unit = 10_f64.powi(decade);
        let step = [1.0, 2.0, 5.0].map(|digit| digit * unit).into_iter().find(|step| most / step <= 6.0);
        let step = step.unwrap_or(10.0 * unit);
        let count = (most / step).ceil();
        let decimals = usize::try_from(-decade).unwrap_or(0);
        let label = |at: f64| match decade {
            -5..=5 => format!("{at:.decimals$}"),
            _ => format!("{at:.1e}"),
        };
        let ticks = (0..=count as u8).map(|tick| f64::from(tick) * step).map(|at| (at, label(at)));
        Axis { name: "bus bandwidth (GB/s)", range: 0.0..count * step, ticks: ticks.collect() }
    }
}

impl Ranged for &Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, at: &f64, (first, last): (i32, i32)) -> i32 {
        let part = (at - self.range.start) / (self.range.end - self.range.start);
        first + (part * f64::from(last - first)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // No lines between the labelled ones.
        let labelled = !hint.weight().allow_light_points();
        self.ticks.iter().filter(|_| labelled).map(|(at, _)| *at).collect()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for &Axis {
    fn format(at: &f64) -> String {
        at.to_string()
    }

    fn format_ext(&self, at: &f64) -> String {
        self.ticks.iter().find(|(tick, _)| tick == at).map_or(String::new(), |(_, label)| label.clone())
    }
}

fn ceil_log2(size: usize) -> u32 {
    size.ilog2() + u32::from(!size.is_power_of_two())
}

/// A power of two as people write sizes: 8, 64, 4 Ki, 1 Mi.
fn size_label(power: u32) -> String {
    let unit = ["", " Ki", " Mi", " Gi", " Ti", " Pi", " Ei"][power as usize / 10];
    format!("{}{unit}", 1 << (power % 10))
}

/// A digit times a power of ten.
fn time_label(digit: i32, power: i32) -> String {
    match power {
        -3..0 => format!("{:.*}", power.unsigned_abs() as usize, f64::from(digit) * 10_f64.powi(power)),
        0..6 => format!("{digit}{}", "0".repeat(power as usize)),
        _ => format!("{digit}e{power}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> String {
        assert!(axis.ticks.is_sorted_by(|a, b| a.0 < b.0), "{:?}", axis.ticks);
        assert!(axis.ticks.iter().all(|(at, _)| (axis.range.start..=axis.range.end).contains(at)), "{:?}", axis.ticks);
        assert!(axis.range.start < axis.range.end && axis.ticks.len() <= 12, "{:?} {:?}", axis.range, axis.ticks);
        let labels: Vec<String> = axis.ticks.iter().map(|(at, _)| (&axis).format_ext(at)).collect();
        labels.join(" ")
    }

    #[test]
    fn sizes_are_labelled_by_powers_of_two() {
        let sizes = |sizes: &[usize]| labels(&Axis::sizes(sizes.iter().copied()));
        assert_eq!(sizes(&[8, 64 << 20]), "8 64 512 4 Ki 32 Ki 256 Ki 2 Mi 16 Mi");
        assert_eq!(sizes(&[100, 7, 60]), "4 8 16 32 64 128");
        assert_eq!(sizes(&[64]), "64 128");
        assert_eq!(sizes(&[1]), "1 2");
        assert_eq!(sizes(&[1 << 30, 1 << 20]), "1 Mi 4 Mi 16 Mi 64 Mi 256 Mi 1 Gi");
        assert!(sizes(&[1, usize::MAX]).starts_with("1 256 64 Ki"));
    }

    #[test]
    fn times_are_labelled_by_decades_or_finer() {
        let times = |times: &[f64]| labels(&Axis::times(times.iter().copied()));
        assert_eq!(times(&[0.17, 30_000.0]), "0.1 1 10 100 1000 10000");
        assert_eq!(times(&[0.3, 7.0]), "0.2 0.5 1 2 5 10");
        assert_eq!(times(&[3.0]), "2 5");
        assert_eq!(times(&[1.0]), "1 2");
        assert_eq!(times(&[2.0, 5.0]), "2 5");
        assert_eq!(times(&[1e6, 2e6]), "1e6 2e6");
        times(&[5e-324, f64::MAX]);
    }

    #[test]
    fn bandwidths_begin_at_nothing() {
        let bandwidths = |most: f64| labels(&Axis::bandwidths([most].into_iter()));
        assert_eq!(bandwidths(11.3), "0 2 4 6 8 10 12");
        assert_eq!(bandwidths(0.06), "0.00 0.01 0.02 0.03 0.04 0.05 0.06");
        assert_eq!(bandwidths(0.0), "0.0 0.2 0.4 0.6 0.8 1.0");
        assert_eq!(bandwidths(600.0), "0 100 200 300 400 500 600");
        bandwidths(1e300);
        bandwidths(1e-300);
    }
}
