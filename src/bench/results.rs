// SPDX-License-Identifier: MPL-2.0
//! The results of a sweep, as it measures them or as `annulus bench --json` printed them.

use std::path::Path;

use serde_json::Value;

use super::{Machine, Measurement};
use crate::error::{Error, Result};

/// Measurements, with where they are from.
#[derive(Debug, Clone, PartialEq)]
pub struct Results {
    /// The file that they were read from; `None`: they were measured now.
    pub file: Option<String>,
    /// The machine, once for each sweep: a file may hold several.
    pub machines: Vec<Machine>,
    /// What was measured, in the order in which it was.
    pub measurements: Vec<Measurement>,
}

impl Results {
    /// Those of a sweep on this machine, before its first.
    pub fn on(machine: Machine) -> Self {
        Results { file: None, machines: vec![machine], measurements: Vec::new() }
    }

    /// Reads what one or several `annulus bench --json` printed.
    ///
    /// # Errors
    ///
    /// `System` if the file cannot be read; `InvalidArgument` if a line of it is no result, or there is none.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| Error::system(format!("reading {name}"), error))?;
        Self::parse(name, &text)
    }

    fn parse(name: String, text: &str) -> Result<Self> {
        let mut results = Results { file: None, machines: Vec::new(), measurements: Vec::new() };
        for (index, line) in text.lines().enumerate() {
            if results.add(line).is_none() {
                return Err(Error::invalid(format!(
                    "line {} of {name} is no result of a benchmark: give what `annulus bench --json` printed",
                    index + 1
                )));
            }
        }
        if results.measurements.is_empty() {
            return Err(Error::invalid(format!("{name} holds no result: give what `annulus bench --json` printed")));
        }
        results.file = Some(name);
        Ok(results)
    }

    /// Adds what a line says; `None` if that is no result.
    fn add(&mut self, line: &str) -> Option<()> {
        let line: Value = serde_json::from_str(line).ok()?;
        match line.get("machine") {
            Some(machine) => self.machines.push(Machine::from_json(machine)?),
            None => self.measurements.push(Measurement::from_json(&line)?),
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::measurement::example;
    use super::*;

    #[test]
    fn lines_are_read_as_they_were_printed() {
        let head = serde_json::json!({ "machine": Machine::this().json(), "checked": true });
        let text = format!("{head}\n{}\n", example().json());
        let expected =
            Results { file: Some("a".into()), measurements: vec![example()], ..Results::on(Machine::this()) };
        assert_eq!(Results::parse("a".into(), &text).unwrap(), expected);
        let twice = Results::parse("a".into(), &text.repeat(2)).unwrap();
        assert_eq!((twice.machines.len(), twice.measurements.len()), (2, 2));
    }

    #[test]
    fn what_is_no_result_is_named_by_its_line() {
        let line = example().json();
        for (text, named) in [
            (String::new(), "a holds no result"),
            (format!("{}\n", serde_json::json!({ "machine": Machine::this().json() })), "a holds no result"),
            ("#  size  count\n".into(), "line 1 of a is no result"),
            (format!("{line}\n\n"), "line 2 of a is no result"),
            (format!("{line}\n{}", &line.to_string()[..100]), "line 2 of a is no result"),
            (format!("{line}\n{{\"machine\": 7}}"), "line 2 of a is no result"),
        ] {
            let error = Results::parse("a".into(), &text).unwrap_err();
            assert!(matches!(error, Error::InvalidArgument(_)) && error.to_string().contains(named), "{error}");
        }
        assert!(matches!(Results::read(Path::new("/no/such/file")), Err(Error::System(_))));
    }
}
