// SPDX-License-Identifier: MPL-2.0
//! What is known of a machine by measurement: where one algorithm gives way to another, how quick it is, and what calls
//! took. `annulus tune` writes such a table, as text that can be read and edited; there is one built in.
//!
//! ```text
//! # any remark
//! always 512            bytes that ride along with the entry whatever the memory
//! inline 8192           bytes that ride along where buffers cannot be addressed
//! alpha_ns 150          until a waiting rank sees what another has just signalled
//! gb_s 20               that a core reads or writes
//! took all_reduce direct processes allocated in_place 2 65536 1.87      a call of two ranks on 65536 bytes: 1.87 us
//! ```
//!
//! The first two decide what runs, and so must be every rank's: rank 0's hold. The others are for
//! [`explain`](crate::Communicator::explain).

use std::fmt;
use std::path::Path;

use super::Collective;
use super::cost::Machine;
use crate::error::{Error, Result};

/// The environment variable that names a file with a table.
pub const VARIABLE: &str = "ANNULUS_TABLE";

/// The largest `inline`: what an entry record holds.
pub const MOST_INLINE: usize = 8192;

/// A machine, measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Contributions of up to this many bytes ride along with the entry whatever the memory.
    pub always: usize,
    /// Contributions of up to this many bytes do where buffers cannot be addressed by all.
    pub inline: usize,
    /// How quick it is.
    pub machine: Machine,
    /// What calls took.
    pub took: Vec<Took>,
}

/// What a call took.
#[derive(Debug, Clone, PartialEq)]
pub struct Took {
    /// What was called.
    pub collective: Collective,
    /// The algorithm that ran.
    pub algorithm: String,
    /// `threads` or `processes`.
    pub transport: String,
    /// Whether the buffers were allocated by the communicator.
    pub allocated: bool,
    /// Whether it was in place.
    pub in_place: bool,
    /// How many ranks there were.
    pub ranks: usize,
    /// Bytes by nccl-tests' definition.
    pub bytes: usize,
    /// Microseconds.
    pub time_us: f64,
}

impl Table {
    /// What holds where nothing was measured: two cores of one recent server processor.
    pub const BUILT_IN: Table = Table { always: 512, inline: 8192, machine: Machine::TYPICAL, took: Vec::new() };

    /// The table that the environment names, else the one built in.
    ///
    /// # Errors
    ///
    /// `System` if the file that `ANNULUS_TABLE` names cannot be read, `InvalidArgument` if it is no table.
    pub fn of_machine() -> Result<Table> {
        let Some(path) = std::env::var_os(VARIABLE) else { return Ok(Table::BUILT_IN) };
        let path = Path::new(&path);
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::system(format!("reading {}, which {VARIABLE} names", path.display()), error))?;
        Table::read(&text)
            .map_err(|error| Error::invalid(format!("{}, which {VARIABLE} names: {error}", path.display())))
    }

    /// The table of a text. What it does not say is as in the one built in.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` that names the line.
    pub fn read(text: &str) -> Result<Table> {
        let mut table = Table::BUILT_IN;
        for (number, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split('#').next().unwrap_or("").split_whitespace().collect();
            let wrong = |what: &str| Error::invalid(format!("line {}: {what}, not `{}`", number + 1, line.trim()));
            let above_zero = |word: &str| {
                let value = word.parse::<f64>().ok().filter(|value| *value > 0.0 && value.is_finite());
                value.ok_or_else(|| wrong("give a number above zero"))
            };
            let bytes = |word: &str| {
                let value = word.parse::<usize>().ok().filter(|bytes| *bytes <= MOST_INLINE);
                value.ok_or_else(|| wrong(&format!("give a number of bytes up to {MOST_INLINE}")))
            };
            match words[..] {
                [] => {}
                ["always", word] => table.always = bytes(word)?,
                ["inline", word] => table.inline = bytes(word)?,
                ["alpha_ns", word] => table.machine.alpha = above_zero(word)? * 1e-9,
                ["gb_s", word] => table.machine.beta = 1e-9 / above_zero(word)?,
                ["took", ref rest @ ..] => {
                    table.took.push(Took::read(rest).ok_or_else(|| wrong("give what was called and what it took"))?);
                }
                _ => return Err(wrong("give always, inline, alpha_ns, gb_s or took, and what it is")),
            }
        }
        if table.always > table.inline {
            return Err(Error::invalid(format!(
                "always is {} and inline {}: what always rides along does so everywhere",
                table.always, table.inline
            )));
        }
        Ok(table)
    }

    /// What a call took that was like this one: of the nearest size, if one within a factor of four was measured.
    pub fn nearest(&self, like: &Took) -> Option<&Took> {
        let alike = |took: &&Took| {
            (took.collective, took.ranks, took.in_place) == (like.collective, like.ranks, like.in_place)
                && (&*took.transport, &*took.algorithm) == (&*like.transport, &*like.algorithm)
                && (took.allocated == like.allocated || like.transport == "threads")
        };
        let distance = |took: &Took| ((took.bytes.max(1) as f64).ln() - (like.bytes.max(1) as f64).ln()).abs();
        let nearest = self.took.iter().filter(alike).min_by(|a, b| distance(a).total_cmp(&distance(b)))?;
        Some(nearest).filter(|took| distance(took) < 4.01_f64.ln())
    }
}

impl Took {
    fn read(words: &[&str]) -> Option<Took> {
        let [collective, algorithm, transport, memory, mode, ranks, bytes, time] = *words else { return None };
        Some(Took {
            collective: Collective::from_name(collective)?,
            algorithm: algorithm.into(),
            transport: Some(transport).filter(|transport| ["threads", "processes"].contains(transport))?.into(),
            allocated: one_of(memory, ["plain", "allocated"])?,
            in_place: one_of(mode, ["out_of_place", "in_place"])?,
            ranks: ranks.parse().ok()?,
            bytes: bytes.parse().ok()?,
            time_us: time.parse().ok().filter(|time: &f64| *time > 0.0 && time.is_finite())?,
        })
    }
}

/// Whether a word is the second of two.
fn one_of(word: &str, [no, yes]: [&str; 2]) -> Option<bool> {
    [no, yes].contains(&word).then_some(word == yes)
}

/// As [`Table::read`] reads it.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "always {}", self.always)?;
        writeln!(f, "inline {}", self.inline)?;
        writeln!(f, "alpha_ns {:.1}", self.machine.alpha * 1e9)?;
        writeln!(f, "gb_s {:.2}", 1e-9 / self.machine.beta)?;
        self.took.iter().try_for_each(|took| writeln!(f, "took {took}"))
    }
}

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Took { collective, algorithm, transport, allocated, in_place, ranks, bytes, time_us } = self;
        let memory = if *allocated { "allocated" } else { "plain" };
        let mode = if *in_place { "in_place" } else { "out_of_place" };
        write!(f, "{collective} {algorithm} {transport} {memory} {mode} {ranks} {bytes} {time_us:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(bytes: usize, time_us: f64) -> Took {
        Took {
            collective: Collective::AllReduce,
            algorithm: "direct".into(),
            transport: "processes".into(),
            allocated: true,
            in_place: true,
            ranks: 2,
            bytes,
            time_us,
        }
    }

    #[test]
    fn tables_are_read_as_they_were_written() {
        let machine = Machine { alpha: 200e-9, beta: 1e-10 };
        let table = Table { always: 64, inline: 4096, machine, took: vec![took(8, 0.5), took(65_536, 1.875)] };
        let read = Table::read(&format!("# a remark\n\n{table}")).unwrap();
        assert_eq!((read.always, read.inline, &read.took), (64, 4096, &table.took));
        assert!((read.machine.alpha - 200e-9).abs() < 1e-12 && (read.machine.beta - 1e-10).abs() < 1e-15);
        assert_eq!(Table::read("inline 1024 # less").unwrap().inline, 1024);
        assert_eq!(Table::read("").unwrap(), Table::BUILT_IN);
    }

    #[test]
    fn what_is_no_table_is_a_sentence_with_its_line() {
        for (text, part) in [
            ("always 512\nsometimes 3", "line 2: give always, inline"),
            ("inline 9000", "line 1: give a number of bytes up to 8192"),
            ("gb_s 0", "line 1: give a number above zero"),
            ("alpha_ns nan", "line 1: give a number above zero"),
            ("took all_reduce direct", "line 1: give what was called"),
            ("took some_reduce direct threads plain in_place 2 8 1", "line 1: give what was called"),
            ("always 600\ninline 500", "always is 600 and inline 500"),
        ] {
            let error = Table::read(text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn the_nearest_size_is_found() {
        let table = Table { took: vec![took(1000, 1.0), took(16_000, 2.0)], ..Table::BUILT_IN };
        let time = |bytes| table.nearest(&took(bytes, 0.0)).map(|took| took.time_us);
        assert_eq!(
            [900, 3000, 5000, 64_000, 70_000, 200].map(time),
            [Some(1.0), Some(1.0), Some(2.0), Some(2.0), None, None]
        );
        assert_eq!(table.nearest(&Took { ranks: 3, ..took(1000, 0.0) }), None);
        assert_eq!(table.nearest(&Took { allocated: false, ..took(1000, 0.0) }), None);
    }
}
