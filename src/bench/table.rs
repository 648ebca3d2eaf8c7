// SPDX-License-Identifier: MPL-2.0
//! nccl-tests' table: a line a size, with time, bandwidths and wrong elements of each mode.

use std::fmt::Write;

use super::{Measurement, Modes};

/// The table as text, line by line, so that each can be shown as soon as it is known.
#[derive(Debug)]
pub struct Table {
    modes: &'static [&'static str],
    /// The kind of devices, if it is devices.
    device: Option<String>,
    wrong: u64,
    /// Bus bandwidths: their sum, and how many.
    busbw: (f64, usize),
}

impl Table {
    /// A table of these modes.
    pub fn new(modes: Modes) -> Self {
        let modes: &[&str] = match modes {
            Modes::OutOfPlace => &["out-of-place"],
            Modes::InPlace => &["in-place"],
            Modes::Both => &["out-of-place", "in-place"],
        };
        Table { modes, device: None, wrong: 0, busbw: (0.0, 0) }
    }

    /// The same of memory of devices of this kind, if it is any: each line ends with the kind, and the end says what
    /// must be said of it.
    pub fn of_device(self, kind: Option<&str>) -> Self {
        Table { device: kind.map(str::to_owned), ..self }
    }

    /// The three lines above the columns.
    pub fn head(&self) -> String {
        let mut lines = [
            format!("#{:>12} {:>13} {:>6} {:>6} {:>5}", "", "", "", "", ""),
            format!("#{:>12} {:>13} {:>6} {:>6} {:>5}", "size", "count", "type", "redop", "root"),
            format!("#{:>12} {:>13} {:>6} {:>6} {:>5}", "(B)", "(elements)", "", "", ""),
        ];
        for mode in self.modes {
            // Writing to a String does not fail.
            let _ = write!(lines[0], "  {mode:^36}");
            let _ = write!(lines[1], "  {:>10} {:>8} {:>8} {:>7}", "time", "algbw", "busbw", "#wrong");
            let _ = write!(lines[2], "  {:>10} {:>8} {:>8} {:>7}", "(us)", "(GB/s)", "(GB/s)", "");
        }
        if self.device.is_some() {
            lines[1] += "  device";
        }
        lines.map(|line| line.trim_end().to_owned() + "\n").concat()
    }

    /// The line of a size: one measurement a mode, fewer where the collective has fewer.
    pub fn line(&mut self, measured: &[Measurement]) -> String {
        let Some(first) = measured.first() else { return String::new() };
        let redop = first.op.map_or("none", |op| op.name());
        let root = first.root.map_or("-1".to_owned(), |root| root.to_string());
        let (bytes, count) = (first.bytes, first.count);
        let mut line = format!(" {bytes:>12} {count:>13} {:>6} {redop:>6} {root:>5}", first.data_type.name());
        for mode in measured {
            // About four digits: these calls take from a fraction of a microsecond to seconds.
            let decimals = match mode.time_us {
                time if time < 10.0 => 3,
                time if time < 1000.0 => 2,
                _ => 1,
            };
            let Measurement { time_us, wrong, .. } = mode;
            let (algbw, busbw) = (mode.algbw(), mode.busbw());
            let _ = write!(line, "  {time_us:>10.decimals$} {algbw:>8.3} {busbw:>8.3} {wrong:>7}");
            self.wrong += wrong;
            self.busbw = (self.busbw.0 + busbw, self.busbw.1 + 1);
        }
        if let Some(kind) = &self.device {
            line += &format!("  {kind}");
        }
        line + "\n"
    }

    /// The closing lines: wrong elements, the mean of all bus bandwidths, and what must be said of the devices.
    pub fn end(&self) -> String {
        let (sum, count) = self.busbw;
        let verdict = if self.wrong == 0 { "OK" } else { "FAILED" };
        let caveat =
            Measurement::caveat(self.device.as_deref()).map_or_else(String::new, |caveat| format!("# {caveat}\n"));
        format!(
            "# Out of bounds values : {} {verdict}\n# Avg bus bandwidth    : {:.4}\n{caveat}",
            self.wrong,
            sum / count.max(1) as f64
        )
    }

    /// Elements that were wrong, in all lines.
    pub fn wrong(&self) -> u64 {
        self.wrong
    }
}

#[cfg(test)]
mod tests {
    use super::super::measurement::example;
    use super::*;

    #[test]
    fn columns_lie_below_their_heads() {
        let mut table = Table::new(Modes::Both);
        let head = table.head();
        let line = table.line(&[example(), Measurement { in_place: true, time_us: 50.0, wrong: 3, ..example() }]);
        let names = head.lines().nth(1).unwrap();
        assert_eq!(names.len() + 1, line.len(), "{head}{line}");
        assert_eq!(names.split_whitespace().count(), 1 + line.split_whitespace().count());
        let fields: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(fields[..5], ["1000000", "250000", "f32", "sum", "-1"]);
        assert_eq!(fields[5..], ["100.00", "10.000", "15.000", "0", "50.00", "20.000", "30.000", "3"]);
        assert_eq!(table.wrong(), 3);
        assert!(table.end().contains("3 FAILED") && table.end().ends_with("22.5000\n"), "{}", table.end());
    }

    #[test]
    fn each_line_says_that_devices_are_simulated() {
        let mut table = Table::new(Modes::InPlace).of_device(Some("simulated"));
        let (head, line) = (table.head(), table.line(&[example()]));
        assert_eq!(head.lines().nth(1).unwrap().find("device"), line.find("simulated"), "{head}{line}");
        assert!(table.end().ends_with("no GPU figure\n"), "{}", table.end());
    }

    #[test]
    fn one_mode_has_one_group() {
        let mut table = Table::new(Modes::InPlace);
        assert!(!table.head().contains("out-of-place"));
        assert_eq!(table.line(&[example()]).split_whitespace().count(), 9);
        assert!(table.end().contains("0 OK"));
    }
}
