// SPDX-License-Identifier: MPL-2.0
//! `annulus tune`: measures a machine, and writes the table by which algorithms are chosen and explained there.

use std::ops::ControlFlow;
use std::path::PathBuf;

use annulus::bench::{Machine, Tuning, pin};
use annulus::schedule::table::VARIABLE;
use annulus::{Communicator, Result};

use crate::bench::bytes;
use crate::output::print;
use crate::world::{World, join, launch_this};

/// Measure this machine, for the choice of algorithms
///
/// Writes a table of a few numbers and of what calls took, as text. Programs that find its name in ANNULUS_TABLE choose
/// by it, and `Communicator::explain` tells what was measured. Ranks are processes, pinned to a core each; the machine
/// should have nothing else to do for the minute that it takes.
#[derive(clap::Args)]
pub struct Args {
    /// The file to write
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Number of ranks [default: 2, or what the launcher says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=4096))]
    ranks: Option<u16>,
    /// The largest size that calls are measured of
    #[arg(long, value_name = "BYTES", default_value = "16M", value_parser = bytes)]
    end: usize,
    /// Timed calls of each size [default: 2000 up to 64K, 200 up to 4M, 30 above]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    iterations: Option<u32>,
}

pub fn run(args: &Args) -> Result<u8> {
    match World::of(args.ranks.map(Into::into), true, 2)? {
        World::Processes(ranks) | World::Threads(ranks) => {
            // Before the minute that measuring takes.
            Tuning::check_file(&args.file)?;
            launch_this(ranks)
        }
        World::Joined(_) => args.rank(&join()?),
    }
}

impl Args {
    fn rank(&self, comm: &Communicator) -> Result<u8> {
        let machine = Machine::this();
        pin(comm.rank())?;
        let tuning = Tuning { end: self.end, iterations: self.iterations.map(|iterations| iterations as usize) };
        let mut listening = Ok(ControlFlow::Continue(()));
        let table = tuning.run(comm, |what| {
            if matches!(listening, Ok(ControlFlow::Continue(()))) {
                listening = print(&format!("measuring {what}\n"));
            }
        })?;
        let _ = listening?;
        if comm.rank() == 0 {
            Tuning::write(&self.file, &machine, &table)?;
            let file = self.file.display();
            let _ = print(&format!(
                "always {}, inline {}, a round {:.0} ns, {:.1} GB/s; set {VARIABLE}={file} to use it\n",
                table.always,
                table.inline,
                table.machine.alpha * 1e9,
                1e-9 / table.machine.beta
            ))?;
        }
        Ok(0)
    }
}
