// SPDX-License-Identifier: MPL-2.0
//! `annulus launch`: starts a program as the ranks of a world.

use std::ffi::OsString;

use annulus::Result;
use annulus::launch::Launch;

/// Start a program as the ranks of a world on this host
///
/// Sets RANK, WORLD_SIZE and the other variables that ranks read, prefixes what they print by their number, passes
/// signals on, and ends all when one fails, with that one's status.
#[derive(clap::Args)]
pub struct Args {
    /// Number of ranks
    #[arg(short = 'n', long = "ranks", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    ranks: u16,
    /// The program, looked up in PATH, and its arguments
    #[arg(value_name = "PROGRAM", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    program: Vec<OsString>,
}

pub fn run(args: Args) -> Result<u8> {
    let mut program = args.program.into_iter();
    let name = program.next().unwrap_or_default();
    Launch::new(args.ranks.into(), name, program).run()
}
