// SPDX-License-Identifier: MPL-2.0
//! What the environment says of simulated devices.

use crate::error::{Error, Result};

/// How many there are.
const DEVICES: &str = "ANNULUS_SIM_DEVICES";
/// Which pairs do not reach each other.
const UNREACHABLE: &str = "ANNULUS_SIM_UNREACHABLE";

/// Whether they are strict.
const KIND: &str = "ANNULUS_SIM";
/// The seed of strict ones.
const SEED: &str = "ANNULUS_SIM_SEED";

/// Each device has room for as many threads as a card; more devices than this are a mistake.
const MOST: usize = 64;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub devices: usize,
    /// The seed, where they are strict.
    pub strict: Option<u64>,
    unreachable: Vec<(usize, usize)>,
}

impl Settings {
    pub fn from_environment() -> Result<Self> {
        let variable = |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        let strict = strict(variable(KIND).as_deref(), variable(SEED).as_deref())?;
        Ok(Settings { strict, ..Self::new(variable(DEVICES).as_deref(), variable(UNREACHABLE).as_deref())? })
    }

    fn new(devices: Option<&str>, unreachable: Option<&str>) -> Result<Self> {
        let count = devices.map_or(Some(1), |value| value.parse().ok()).filter(|count| (1..=MOST).contains(count));
        let devices = count.ok_or_else(|| {
            let value = devices.unwrap_or_default();
            Error::invalid(format!("{DEVICES} is {value:?}; it is a number of simulated devices, from 1 to {MOST}"))
        })?;
        let pairs = unreachable.unwrap_or_default().split(',').map(str::trim).filter(|pair| !pair.is_empty());
        let unreachable = pairs.map(|pair| {
            let number = |text: &str| text.trim().parse().ok();
            let numbers = pair.split_once('-').and_then(|(a, b)| Some((number(a)?, number(b)?)));
            numbers.filter(|(a, b)| a != b && *a < devices && *b < devices).ok_or_else(|| {
                Error::invalid(format!(
                    "{UNREACHABLE} has {pair:?}; it is a list of pairs of two different devices, like 0-1,2-3, and \
                     there are {devices} devices"
                ))
            })
        });
        Ok(Settings { devices, strict: None, unreachable: unreachable.collect::<Result<_>>()? })
    }

    pub fn reaches(&self, a: usize, b: usize) -> bool {
        !self.unreachable.iter().any(|pair| *pair == (a, b) || *pair == (b, a))
    }
}

/// The seed of strict devices, if they are to be.
fn strict(kind: Option<&str>, seed: Option<&str>) -> Result<Option<u64>> {
    let number = seed.map_or(Some(0), |seed| seed.parse().ok()).ok_or_else(|| {
        Error::invalid(format!("{SEED} is {:?}; it is a number from 0 to {}", seed.unwrap_or_default(), u64::MAX))
    })?;
    match kind {
        None | Some("") => Ok(None),
        Some("strict") => Ok(Some(number)),
        Some(other) => Err(Error::invalid(format!(
            "{KIND} is {other:?}; `strict` makes simulated devices look at everything that kernels do"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_read_or_refused() {
        assert_eq!(Settings::new(None, None), Ok(Settings { devices: 1, strict: None, unreachable: vec![] }));
        let three = Settings::new(Some("3"), Some("0-1, 2-1,")).unwrap();
        assert_eq!(three, Settings { devices: 3, strict: None, unreachable: vec![(0, 1), (2, 1)] });
        assert!(!three.reaches(1, 0) && !three.reaches(1, 2) && three.reaches(0, 2) && three.reaches(1, 1));
        for (devices, unreachable, named) in [
            ("0", "", DEVICES),
            ("65", "", DEVICES),
            ("-1", "", DEVICES),
            ("two", "", DEVICES),
            ("", "", DEVICES),
            ("2", "0", UNREACHABLE),
            ("2", "0-2", UNREACHABLE),
            ("2", "1-1", UNREACHABLE),
            ("2", "0-1;0-1", UNREACHABLE),
        ] {
            let error = Settings::new(Some(devices), Some(unreachable)).unwrap_err();
            assert!(matches!(&error, Error::InvalidArgument(sentence) if sentence.contains(named)), "{error}");
        }
    }

    #[test]
    fn strict_devices_are_asked_for_by_name() {
        assert_eq!(strict(None, Some("7")), Ok(None));
        assert_eq!(strict(Some("strict"), None), Ok(Some(0)));
        assert_eq!(strict(Some("strict"), Some("7")), Ok(Some(7)));
        for (kind, seed, named) in [("fast", "7", KIND), ("strict", "-1", SEED), ("strict", "", SEED)] {
            let error = strict(Some(kind), Some(seed)).unwrap_err();
            assert!(matches!(&error, Error::InvalidArgument(sentence) if sentence.contains(named)), "{error}");
        }
    }
}
