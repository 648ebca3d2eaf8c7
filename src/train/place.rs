// SPDX-License-Identifier: MPL-2.0
//! Where ranks train: what was asked for, what there is, and why it is taken.

use std::fmt;
use std::str::FromStr;

use crate::driver::Device;
use crate::error::{Error, Result};

/// A kind of device.
struct Kind {
    /// What it is asked for by.
    name: &'static str,
    /// What it is called.
    noun: &'static str,
    /// Whether it is taken without being asked for.
    is_gpu: bool,
    /// How many there are. `Unsupported`, with the reason, where there can be none.
    count: fn() -> Result<usize>,
    open: fn(usize) -> Result<Device>,
}

/// Every kind that there may be, the first to be taken first.
const KINDS: [Kind; 3] = [
    Kind { name: "cuda", noun: "NVIDIA device", is_gpu: true, count: Device::cuda_count, open: Device::cuda },
    Kind { name: "hip", noun: "AMD device", is_gpu: true, count: Device::hip_count, open: Device::hip },
    Kind {
        name: "sim",
        noun: "simulated device",
        is_gpu: false,
        count: Device::simulated_count,
        open: Device::simulated,
    },
];

/// Ranks where neither the user nor the number of GPUs says how many.
const RANKS: usize = 2;

/// Where to train.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// On GPUs, if there are any, else on the CPU.
    Auto,
    /// On the CPU.
    Cpu,
    /// On devices of the kind of this name: `cuda` for NVIDIA's, `hip` for AMD's, `sim` for simulated ones.
    Devices(&'static str),
}

impl FromStr for Choice {
    type Err = Error;

    /// `auto`, `cpu`, or the name of a kind of device.
    fn from_str(name: &str) -> Result<Self> {
        match name {
            "auto" => Ok(Choice::Auto),
            "cpu" => Ok(Choice::Cpu),
            _ => KINDS.iter().find(|kind| kind.name == name).map(|kind| Choice::Devices(kind.name)).ok_or_else(|| {
                let names = [vec!["auto", "cpu"], Choice::kinds()].concat();
                Error::invalid(format!("{name:?} is no device to train on; choose one of {}", names.join(", ")))
            }),
        }
    }
}

/// Where ranks train, and why. `Display` says both: `one simulated device, since --device sim asks for it`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The number of the kind, and how many devices there are; on the CPU nothing.
    devices: Option<(usize, usize)>,
    why: String,
}

impl Choice {
    /// The names of all kinds of devices.
    pub(super) fn kinds() -> Vec<&'static str> {
        KINDS.iter().map(|kind| kind.name).collect()
    }

    /// Looks for what was chosen.
    ///
    /// # Errors
    ///
    /// `Unsupported` where devices were asked for that this build or this machine has not; `InvalidArgument` where no
    /// kind has the name, or the environment is wrong.
    pub fn place(self) -> Result<Place> {
        let asked = |name: &str| format!("--device {name} asks for it");
        match self {
            Choice::Cpu => Ok(Place { devices: None, why: asked("cpu") }),
            Choice::Devices(name) => {
                let number = KINDS.iter().position(|kind| kind.name == name);
                let number = number.ok_or_else(|| Error::invalid(format!("no kind of device is named {name}")))?;
                Ok(Place { devices: Some((number, (KINDS[number].count)()?)), why: asked(name) })
            }
            Choice::Auto => automatic(),
        }
    }
}

/// The first GPUs that there are, or the CPU, with the reason why there are none.
fn automatic() -> Result<Place> {
    let mut reasons = Vec::new();
    for (number, kind) in KINDS.iter().enumerate().filter(|(_, kind)| kind.is_gpu) {
        match (kind.count)() {
            Ok(0) => reasons.push(format!("there is no {}", kind.noun)),
            Ok(count) => return Ok(Place { devices: Some((number, count)), why: "there are GPUs".into() }),
            Err(Error::Unsupported(why)) => reasons.push(why.to_string()),
            Err(other) => return Err(other),
        }
    }
    Ok(Place { devices: None, why: format!("no GPU can be used: {}", reasons.join("; ")) })
}

impl Place {
    /// The device of a rank: they are dealt to the ranks of a host in turn. None on the CPU.
    ///
    /// # Errors
    ///
    /// Those of opening it.
    pub fn device(&self, local_rank: usize) -> Result<Option<Device>> {
        let open = |(kind, count): (usize, usize)| (KINDS[kind].open)(local_rank % count.max(1));
        self.devices.map(open).transpose()
    }

    /// Whether ranks train on the CPU.
    pub fn is_cpu(&self) -> bool {
        self.devices.is_none()
    }

    /// How many ranks there are where nobody says otherwise: one a GPU, and two on anything else.
    pub fn ranks(&self) -> usize {
        self.devices.filter(|(kind, _)| KINDS[*kind].is_gpu).map_or(RANKS, |(_, count)| count)
    }

    /// What was chosen, in one word: `cpu`, or the name of the kind of device.
    pub fn name(&self) -> &'static str {
        self.devices.map_or("cpu", |(kind, _)| KINDS[kind].name)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.devices {
            None => write!(f, "the CPU, since {}", self.why),
            Some((kind, 1)) => write!(f, "one {}, since {}", KINDS[kind].noun, self.why),
            Some((kind, count)) => write!(f, "{count} {}s, since {}", KINDS[kind].noun, self.why),
        }
    }
}
