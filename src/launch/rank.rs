// SPDX-License-Identifier: MPL-2.0
//! One rank as a process: how it is started, told something, and ends.
#![allow(unsafe_code)]

use std::fmt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use rustix::rand::GetRandomFlags;

use super::output::{Stream, Target};
use super::{Launch, Output};
use crate::error::{Error, Result};

/// A process that was started as a rank. It is killed when dropped.
pub(super) struct Rank {
    child: Child,
    ended: bool,
}

/// How a rank ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ended {
    Exited(u8),
    Killed(i32),
}

/// A name for the job that no other has.
pub(super) fn new_job() -> Result<String> {
    let mut random = [0_u8; 16];
    rustix::rand::getrandom(&mut random, GetRandomFlags::empty())
        .map_err(|errno| Error::system("asking for random bytes", errno))?;
    Ok(format!("{:032x}", u128::from_ne_bytes(random)))
}

/// Starts rank `number`; with prefixed output, also what it will print.
pub(super) fn start(launch: &Launch, number: usize, job: &str) -> Result<(Rank, Vec<Stream>)> {
    let Launch { ranks, program, args, output, .. } = launch;
    let (rank, ranks) = (number.to_string(), ranks.to_string());
    let mut command = Command::new(program);
    command
        .args(args)
        .envs([("RANK", &rank), ("WORLD_SIZE", &ranks), ("LOCAL_RANK", &rank), ("LOCAL_WORLD_SIZE", &ranks)])
        // Where the program is PyTorch's, its own store listens here. Ours is only a part of a name.
        .envs([("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "29500"), ("ANNULUS_JOB", job)])
        .stdin(Stdio::null())
        .process_group(0);
    if *output == Output::Prefixed {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
    }
    let launcher = rustix::process::getpid();
    let end_with_launcher = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // If the launcher died before this was set, nothing will ever kill us: end now.
        if rustix::process::getppid() != Some(launcher) {
            return Err(Errno::SRCH.into());
        }
        Ok(())
    };
    // SAFETY: Between fork and exec only what is safe in a signal handler may run, since other threads' locks may be
    // held for ever. The closure makes two system calls and compares numbers; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(end_with_launcher) };
    let child = command.spawn().map_err(|error| {
        let sentence = format!("cannot start rank {number}, {}: {error}", program.display());
        match Errno::from_io_error(&error) {
            Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE) => Error::System(sentence.into()),
            _ => Error::invalid(sentence),
        }
    })?;
    let mut rank = Rank { child, ended: false };
    let (stdout, stderr) = (rank.child.stdout.take(), rank.child.stderr.take());
    let streams = [
        stdout.map(|pipe| Stream::new(number, Target::Output, pipe.into())),
        stderr.map(|pipe| Stream::new(number, Target::Error, pipe.into())),
    ];
    let streams: std::io::Result<Vec<Stream>> = streams.into_iter().flatten().collect();
    let streams = streams.map_err(|error| Error::system(format!("reading what rank {number} prints"), error))?;
    Ok((rank, streams))
}

impl Rank {
    pub fn runs(&self) -> bool {
        !self.ended
    }

    /// Sends a signal to the rank and what it runs, if it still runs.
    pub fn tell(&self, signal: Signal) {
        // Until it has been waited for, nothing else can get its number.
        if self.runs() {
            let _ = rustix::process::kill_process_group(Pid::from_child(&self.child), signal);
        }
    }

    /// How it ended, if it has since the last look.
    pub fn look(&mut self) -> Option<Ended> {
        if self.ended {
            return None;
        }
        // Waiting for our own child fails only if somebody else has done so, and then how it ended is lost.
        let ended = match self.child.try_wait() {
            Ok(status) => Ended::from(status?),
            Err(_) => Ended::Exited(1),
        };
        self.ended = true;
        Some(ended)
    }
}

impl Drop for Rank {
    fn drop(&mut self) {
        self.tell(Signal::KILL);
        if self.runs() {
            let _ = self.child.wait();
        }
    }
}

impl Ended {
    /// As shells report it.
    pub fn status(self) -> u8 {
        match self {
            Ended::Exited(status) => status,
            Ended::Killed(signal) => 128_u8.saturating_add(signal as u8),
        }
    }
}

impl From<ExitStatus> for Ended {
    fn from(status: ExitStatus) -> Self {
        match status.signal() {
            Some(signal) => Ended::Killed(signal),
            None => Ended::Exited(status.code().unwrap_or(1) as u8),
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Exited(status) => write!(f, "exited with status {status}"),
            Ended::Killed(signal) => match signal_hook::low_level::signal_name(*signal) {
                Some(name) => write!(f, "was killed by {name}"),
                None => write!(f, "was killed by signal {signal}"),
            },
        }
    }
}
