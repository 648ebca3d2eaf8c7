// SPDX-License-Identifier: MPL-2.0
//! Where a command's ranks come from: threads of this process, processes that it starts, or a world that this process
//! was started as a rank of.

use annulus::transport::rendezvous::Environment;
use annulus::{Communicator, Error, Result};

/// Whose ranks.
pub enum World {
    /// This many threads of this process.
    Threads(usize),
    /// This many processes, each of this command with these arguments.
    Processes(usize),
    /// This process is one of a world's of this many.
    Joined(usize),
}

impl World {
    /// What the arguments and the environment say. A launcher's word comes first; `ranks` may repeat it. Where neither
    /// says anything there are `otherwise`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` where the environment is wrong or says another number of ranks.
    pub fn of(ranks: Option<usize>, processes: bool, otherwise: usize) -> Result<World> {
        if Environment::is_rank() {
            let environment = Environment::read()?;
            return match ranks.filter(|ranks| *ranks != environment.world_size) {
                None => Ok(World::Joined(environment.world_size)),
                Some(ranks) => Err(Error::invalid(format!(
                    "--ranks {ranks} is asked for, but the environment says that this is rank {} of {}: leave --ranks out",
                    environment.rank, environment.world_size
                ))),
            };
        }
        let ranks = ranks.unwrap_or(otherwise);
        Ok(if processes { World::Processes(ranks) } else { World::Threads(ranks) })
    }
}

/// Starts this command again, with the same arguments, as so many ranks, and returns their exit status.
///
/// # Errors
///
/// Those of [`annulus::launch::Launch::run`].
#[cfg(target_os = "linux")]
pub fn launch_this(ranks: usize) -> Result<u8> {
    use annulus::launch::{Launch, Output};

    let program = std::env::current_exe().map_err(|error| Error::system("finding this program's file", error))?;
    let mut launch = Launch::new(ranks, program, std::env::args_os().skip(1));
    launch.output = Output::Verbatim;
    launch.run()
}

/// Processes need Linux.
#[cfg(not(target_os = "linux"))]
pub fn launch_this(_ranks: usize) -> Result<u8> {
    Err(Error::unsupported("ranks as processes need Linux: leave --processes out"))
}

/// Joins the world that this process was started as a rank of.
///
/// # Errors
///
/// Those of [`Communicator::from_env`].
#[cfg(target_os = "linux")]
pub fn join() -> Result<Communicator> {
    Communicator::from_env()
}

/// Processes need Linux.
#[cfg(not(target_os = "linux"))]
pub fn join() -> Result<Communicator> {
    Err(Error::unsupported("joining a world of processes needs Linux: unset RANK"))
}
