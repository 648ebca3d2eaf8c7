// SPDX-License-Identifier: MPL-2.0
//! The `annulus` command: its subcommands, and how it ends.
//!
//! A file a subcommand, each with its arguments and a `run` that returns the exit status. Status 2 is for whatever kept
//! it from an answer (arguments, environment, input, ranks that were lost), with one sentence on standard error; 1 for an
//! answer that is no: a verification that failed, a wrong result.
//! A reader that has seen enough (`annulus .. | head`) is no failure.

mod bench;
mod devices;
#[cfg(all(feature = "cuda", target_os = "linux"))]
mod doctor;
#[cfg(target_os = "linux")]
mod launch;
mod output;
mod schedule;
mod train;
mod tune;
mod world;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Collective operations as verified values: measure them, draw them, launch programs that call
/// them, train with them.
#[derive(Parser)]
#[command(name = "annulus", version, max_term_width = 100, subcommand_required = true)]
struct Command {
    #[command(subcommand)]
    subcommand: Subcommands,
}

#[derive(Subcommand)]
enum Subcommands {
    Bench(bench::Args),
    Devices(devices::Args),
    #[cfg(all(feature = "cuda", target_os = "linux"))]
    Doctor(doctor::Args),
    #[cfg(target_os = "linux")]
    Launch(launch::Args),
    Schedule(schedule::Args),
    Train(train::Args),
    Tune(tune::Args),
}

/// What a driver is asked for where ranks share a GPU as threads, if its user has not asked for anything: how many streams
/// go on at a time, whatever each of them waits for, the most that there are, since of the streams beyond the number ranks
/// may wait for one another in vain; and room to spare in the queue to whose end the library does not come by its own count.
const QUEUES: [(&str, &str); 2] = [("CUDA_DEVICE_MAX_CONNECTIONS", "32"), ("CUDA_SCALE_LAUNCH_QUEUES", "4x")];

#[allow(unsafe_code)]
fn main() -> ExitCode {
    let subcommand = Command::parse().subcommand;
    let has_ranks = match &subcommand {
        Subcommands::Bench(args) => !args.processes,
        Subcommands::Train(args) => !args.processes,
        Subcommands::Schedule(_) => true,
        _ => false,
    };
    for (name, value) in QUEUES {
        if has_ranks && std::env::var_os(name).is_none() {
            // SAFETY: this process has no other thread yet.
            unsafe { std::env::set_var(name, value) };
        }
    }
    let status = match subcommand {
        Subcommands::Bench(args) => bench::run(&args),
        Subcommands::Devices(args) => devices::run(&args),
        #[cfg(all(feature = "cuda", target_os = "linux"))]
        Subcommands::Doctor(args) => doctor::run(&args),
        #[cfg(target_os = "linux")]
        Subcommands::Launch(args) => launch::run(args),
        Subcommands::Schedule(args) => schedule::run(&args),
        Subcommands::Train(args) => train::run(&args),
        Subcommands::Tune(args) => tune::run(&args),
    };
    match status {
        Ok(status) => status.into(),
        Err(error) => {
            output::complain(&error);
            2.into()
        }
    }
}
