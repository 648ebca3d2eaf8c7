// SPDX-License-Identifier: MPL-2.0
//! On what a measurement was made.

use std::fmt;

/// The machine and the build, as far as times depend on them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// The operating system and its version.
    pub system: String,
    /// The widest vector instructions that folds use here.
    pub instructions: String,
    /// The version of Annulus.
    pub annulus: String,
    /// Whether it was built with optimisation: figures of others say nothing.
    pub optimised: bool,
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Machine {
            processor: processor.map_or(std::env::consts::ARCH, |(_, name)| name.trim()).to_owned(),
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            system: system(),
            instructions: crate::reduce::instructions().to_owned(),
            annulus: env!("CARGO_PKG_VERSION").to_owned(),
            optimised: !cfg!(debug_assertions),
        }
    }

    /// The machine as one JSON object.
    #[cfg(feature = "cli")]
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "processor": self.processor,
            "cores": self.cores,
            "system": self.system,
            "instructions": self.instructions,
            "annulus": self.annulus,
            "optimised": self.optimised,
        })
    }

    /// The machine that [`Machine::json`] made this object of, or `None` if it is none.
    #[cfg(feature = "cli")]
    pub fn from_json(object: &serde_json::Value) -> Option<Self> {
        let text = |field: &str| object.get(field)?.as_str().map(str::to_owned);
        Some(Machine {
            processor: text("processor")?,
            cores: object.get("cores")?.as_u64()?.try_into().ok()?,
            system: text("system")?,
            instructions: text("instructions")?,
            annulus: text("annulus")?,
            optimised: object.get("optimised")?.as_bool()?,
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { processor, cores, system, instructions, annulus, optimised } = self;
        let slow = if *optimised { "" } else { ", NOT OPTIMISED" };
        write!(f, "annulus {annulus}{slow}; {processor}, {cores} cores, {instructions}; {system}")
    }
}

#[cfg(target_os = "linux")]
fn system() -> String {
    let name = rustix::system::uname();
    format!("{} {}", name.sysname().to_string_lossy(), name.release().to_string_lossy())
}

#[cfg(not(target_os = "linux"))]
fn system() -> String {
    std::env::consts::OS.to_owned()
}
