// SPDX-License-Identifier: MPL-2.0
//! The devices of a machine, what is known of each, and how they reach each other: `annulus devices`.
//!
//! NVIDIA's are described without being opened: no context is made, but to ask for free memory where the management library
//! does not say. Of AMD's it is told what HIP says, and Linux. Simulated devices are listed as what they are.

#[cfg(all(feature = "hip", target_os = "linux"))]
mod amd;
#[cfg(all(feature = "cuda", target_os = "linux"))]
mod nvidia;
#[cfg(all(any(feature = "hip", test), target_os = "linux"))]
mod sysfs;

use std::fmt;

use crate::driver::{Device, Platform};

/// What was found.
#[derive(Debug, Clone)]
pub struct Machine {
    /// All devices: NVIDIA's first, then AMD's, then simulated ones.
    pub devices: Vec<Listed>,
    /// How each device reaches each other, by row and column as `devices`.
    pub links: Vec<Vec<Link>>,
    /// The version of NVIDIA's driver, as its maker counts: 580.65.06.
    pub driver: Option<String>,
    /// The version of CUDA that the driver is for: 12.8.
    pub cuda: Option<String>,
    /// The version of HIP: 6.4.43484.
    pub hip: Option<String>,
    /// What was looked for and not found, a sentence each.
    pub missing: Vec<String>,
}

/// A device. What is not known is `None`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Listed {
    /// The driver it belongs to.
    pub platform: Platform,
    /// Its number there.
    pub index: usize,
    /// Its maker's name for it.
    pub name: String,
    /// Where it is on the PCI bus.
    pub bus: Option<String>,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of memory that are free.
    pub free: Option<u64>,
    /// How many multiprocessors.
    pub multiprocessors: u32,
    /// The compute capability, major and minor.
    pub capability: Option<(u32, u32)>,
    /// What code is compiled for, as AMD calls it: gfx90a.
    pub architecture: Option<String>,
    /// The clock of the multiprocessors now, in MHz.
    pub clock: Option<u32>,
    /// Degrees Celsius.
    pub temperature: Option<u32>,
    /// Watts.
    pub power: Option<f64>,
    /// The processes that compute on it.
    pub processes: Option<Vec<Process>>,
}

/// A process that uses a device.
#[derive(Debug, Clone)]
pub struct Process {
    /// Its number.
    pub id: u32,
    /// Its name, if it can be read.
    pub name: Option<String>,
    /// Bytes of the device's memory that it uses.
    pub memory: Option<u64>,
}

/// How a device reaches another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// What is between them.
    pub way: Way,
    /// Whether its kernels address the other's memory.
    pub direct: bool,
}

/// What is between two devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Way {
    /// They are one.
    Itself,
    /// NVLink.
    NvLink,
    /// Infinity Fabric of AMD's, XGMI.
    Xgmi,
    /// They are on one board.
    Board,
    /// One PCIe switch.
    Switch,
    /// Several PCIe switches, and no host bridge.
    Switches,
    /// A host bridge of PCIe.
    HostBridge,
    /// Host bridges of one node of memory.
    Node,
    /// What joins the nodes of memory.
    System,
    /// The memory of one process.
    Process,
    /// Nothing is known.
    Unknown,
    /// They are of different drivers.
    Nothing,
}

impl Way {
    /// All ways that devices can be joined by, in a word and in words.
    pub const WORDS: [(Way, &'static str, &'static str); 9] = [
        (Way::NvLink, "NVLink", "NVLink"),
        (Way::Xgmi, "XGMI", "Infinity Fabric"),
        (Way::Board, "board", "both on one board"),
        (Way::Switch, "PIX", "through one PCIe switch"),
        (Way::Switches, "PXB", "through several PCIe switches"),
        (Way::HostBridge, "PHB", "through a PCIe host bridge"),
        (Way::Node, "NODE", "through host bridges of one memory node"),
        (Way::System, "SYS", "through what joins memory nodes"),
        (Way::Process, "memory", "the memory of this process"),
    ];
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Way::WORDS.iter().find(|(way, ..)| *way == self.way).map(|(_, word, _)| *word);
        match (self.way, word, self.direct) {
            (Way::Itself | Way::Nothing, ..) => f.write_str("-"),
            (_, Some(word), true) => f.write_str(word),
            (_, Some(word), false) => write!(f, "{word}, copies only"),
            (_, None, true) => f.write_str("direct"),
            (_, None, false) => f.write_str("copies only"),
        }
    }
}

impl Machine {
    /// Looks for devices of all kinds.
    pub fn look() -> Machine {
        let mut machine = Machine {
            devices: Vec::new(),
            links: Vec::new(),
            driver: None,
            cuda: None,
            hip: None,
            missing: Vec::new(),
        };
        #[cfg(all(feature = "cuda", target_os = "linux"))]
        nvidia::look(&mut machine);
        #[cfg(not(all(feature = "cuda", target_os = "linux")))]
        machine
            .missing
            .push("this build of Annulus has not the feature `cuda`: no NVIDIA device was looked for".into());
        #[cfg(all(feature = "hip", target_os = "linux"))]
        amd::look(&mut machine);
        #[cfg(not(all(feature = "hip", target_os = "linux")))]
        if machine.devices.is_empty() {
            let not_built = "this build of Annulus has not the feature `hip`: no AMD device was looked for";
            machine.missing.push(not_built.into());
        }
        machine.add_simulated();
        machine
    }

    /// What a driver answered; where it did not, `what` is said to be missing.
    #[cfg(all(any(feature = "cuda", feature = "hip"), target_os = "linux"))]
    fn told<T>(&mut self, answer: Result<T, crate::driver::gpu::Fault>, what: impl FnOnce() -> String) -> Option<T> {
        let fault = match answer {
            Ok(told) => return Some(told),
            Err(fault) => fault,
        };
        self.missing.push(format!("{} is not known: {fault}", what()));
        None
    }

    fn add_simulated(&mut self) {
        let all = Device::simulated_count().and_then(|count| (0..count).map(Device::simulated).collect());
        let simulated: Vec<Device> = match all {
            Ok(simulated) => simulated,
            Err(error) => return self.missing.push(error.to_string()),
        };
        let before = self.devices.len();
        for device in &simulated {
            let has = device.capabilities();
            self.devices.push(Listed {
                platform: has.platform,
                index: has.index,
                name: has.name.clone(),
                bus: None,
                memory: has.memory,
                free: None,
                multiprocessors: has.multiprocessors,
                capability: None,
                architecture: None,
                clock: None,
                temperature: None,
                power: None,
                processes: None,
            });
        }
        self.add_links(before, |row, column| Link {
            way: if row == column { Way::Itself } else { Way::Process },
            direct: simulated[row].reaches(&simulated[column]).unwrap_or(false),
        });
    }

    /// Joins the devices from number `before` on, which are of one driver, by what `link` says of two of them.
    fn add_links(&mut self, before: usize, link: impl Fn(usize, usize) -> Link) {
        const NOTHING: Link = Link { way: Way::Nothing, direct: false };
        let new = self.devices.len() - before;
        for links in &mut self.links {
            links.extend(vec![NOTHING; new]);
        }
        for row in 0..new {
            let links = vec![NOTHING; before].into_iter().chain((0..new).map(|column| link(row, column)));
            self.links.push(links.collect());
        }
    }
}
