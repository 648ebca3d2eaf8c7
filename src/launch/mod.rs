// SPDX-License-Identifier: MPL-2.0
//! Starting the ranks of a world as processes of this host, and seeing them to their end: `annulus launch`.
//!
//! The launcher sets the variables that every rank reads (`RANK` and the others of
//! [`Environment`](crate::transport::rendezvous::Environment)), prefixes what the ranks print by their number, passes
//! signals on to them, and ends all when one fails, with that one's status. One thread does all of it, in one loop
//! around `poll`: there is nothing to join and no order to get wrong.
//!
//! - Each rank leads a process group of its own, so that a Ctrl-C at the terminal reaches it once, from the launcher,
//!   and so that ending a rank that is a script ends what the script runs.
//! - Ranks are killed by the kernel if the launcher is (PDEATHSIG): nothing is left behind, whatever happens.
//! - Ranks read nothing: their standard input is empty. Several readers of one terminal would each get a part of it.

mod output;
mod rank;
mod signals;

use std::ffi::OsString;
use std::io::Write;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::Signal;

use self::output::Stream;
use self::rank::{Ended, Rank};
use self::signals::Signals;
use crate::error::{Error, Result};

/// What becomes of that which the ranks print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Each line goes to the launcher's own standard output or error, behind the rank's number: `[2] loss 0.31`. The
    /// numbers are coloured on a terminal, unless `NO_COLOR` is set.
    Prefixed,
    /// The ranks write to the launcher's standard output and error themselves. For programs of which one rank alone
    /// writes, such as a progress bar.
    Verbatim,
}

/// A world to start. `Launch::new(4, "./train", ["--epochs", "3"]).run()`.
#[derive(Debug, Clone)]
pub struct Launch {
    /// How many ranks, at least one.
    pub ranks: usize,
    /// The program of each rank, looked up in PATH.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// What becomes of that which the ranks print.
    pub output: Output,
    /// How long ranks have from SIGTERM to SIGKILL when one has failed.
    pub grace: Duration,
}

impl Launch {
    /// Prefixed output and a grace of five seconds.
    pub fn new<A: Into<OsString>>(
        ranks: usize,
        program: impl Into<OsString>,
        args: impl IntoIterator<Item = A>,
    ) -> Launch {
        let args = args.into_iter().map(Into::into).collect();
        Launch { ranks, program: program.into(), args, output: Output::Prefixed, grace: Duration::from_secs(5) }
    }

    /// Starts the ranks and returns when all have ended: 0 if all succeeded, else the status of the first that failed,
    /// which is 128 and the signal's number for one that was killed. Says on standard error which rank that was, and
    /// how it ended. If what the ranks print is no longer read, they are ended and the status is 141, as if by SIGPIPE.
    ///
    /// SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are passed on to the ranks, except those that this process
    /// ignores (`nohup`). Their handlers stay installed afterwards, without effect. Call it from a thread that lives
    /// until it returns, since ranks end with the thread that started them.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for no ranks or a program that cannot be started; [`Error::System`] where processes
    /// or descriptors run out, or the output cannot be written. No rank is left running.
    pub fn run(&self) -> Result<u8> {
        if self.ranks == 0 {
            return Err(Error::invalid("0 ranks to launch: at least one is needed"));
        }
        let signals = Signals::listen()?;
        let mut world = World { ranks: Vec::new(), streams: Vec::new(), end: None, failure: None, grace: self.grace };
        let job = rank::new_job()?;
        for number in 0..self.ranks {
            // A failure drops the world, which ends the ranks that were started.
            let (rank, streams) = rank::start(self, number, &job)?;
            world.ranks.push(rank);
            world.streams.extend(streams);
        }
        let mut looked = Instant::now();
        while world.ranks.iter().any(Rank::runs) {
            world.wait(&signals)?;
            for signal in signals.take() {
                world.tell(signal);
            }
            if signals.child_ended() || looked.elapsed() >= LOOK {
                looked = Instant::now();
                world.look_who_ended();
            }
            world.print();
            world.kill_if_late();
        }
        world.print_rest();
        match world.failure {
            Some(error) => Err(error),
            None => Ok(world.end.map_or(0, |end| end.status)),
        }
    }
}

/// How often the ranks are looked at without a signal that one has ended, which never comes to a process that was started
/// with SIGCHLD blocked.
const LOOK: Duration = Duration::from_secs(1);

/// The ranks that were started.
struct World {
    ranks: Vec<Rank>,
    /// What they print, as long as it is open. Empty for verbatim output.
    streams: Vec<Stream>,
    /// Set once one has failed.
    end: Option<End>,
    /// The launcher's own failure.
    failure: Option<Error>,
    grace: Duration,
}

/// All are to end.
struct End {
    status: u8,
    /// When those that still run are killed. None afterwards.
    kill: Option<Instant>,
}

impl World {
    /// Sleeps until a rank prints, ends or is late, a signal comes, or it is time to look at the ranks again.
    fn wait(&self, signals: &Signals) -> Result<()> {
        let mut polled: Vec<PollFd<'_>> = signals.pipes().map(|pipe| PollFd::new(pipe, PollFlags::IN)).collect();
        polled.extend(self.streams.iter().map(|stream| PollFd::new(stream, PollFlags::IN)));
        let kill = self.end.as_ref().and_then(|end| end.kill);
        let left = kill.map_or(LOOK, |kill| kill.saturating_duration_since(Instant::now()).min(LOOK));
        let timeout = Timespec::try_from(left).unwrap_or_default();
        match rustix::event::poll(&mut polled, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(Error::system("waiting for the ranks", errno)),
        }
    }

    /// Sends a signal to every rank that still runs.
    fn tell(&self, signal: Signal) {
        for rank in &self.ranks {
            rank.tell(signal);
        }
    }

    /// Notes which ranks have ended, and if one of them has failed, begins to end the others.
    fn look_who_ended(&mut self) {
        let ended = self.ranks.iter_mut().enumerate().filter_map(|(rank, process)| Some((rank, process.look()?)));
        let failed = ended.filter(|(_, ended)| ended.status() != 0);
        // Ranks fail for the lack of one that was killed. If both are noticed at once, the killed one is the cause.
        let first = failed.min_by_key(|&(rank, ended)| (matches!(ended, Ended::Exited(_)), rank));
        let Some((rank, ended)) = first.filter(|_| self.end.is_none()) else { return };
        let others = self.ranks.iter().any(Rank::runs);
        say(&format!("rank {rank} {ended}{}", if others { "; ending the others" } else { "" }));
        self.begin_to_end(ended.status());
    }

    fn begin_to_end(&mut self, status: u8) {
        if self.end.is_none() {
            self.end = Some(End { status, kill: Instant::now().checked_add(self.grace) });
            self.tell(Signal::TERM);
        }
    }

    fn kill_if_late(&mut self) {
        let Some(end) = &mut self.end else { return };
        if end.kill.is_some_and(|kill| kill <= Instant::now()) {
            end.kill = None;
            let late = self.ranks.iter().enumerate().filter(|(_, process)| process.runs());
            let late: Vec<String> = late.map(|(rank, _)| rank.to_string()).collect();
            if !late.is_empty() {
                say(&format!("rank {} did not end within {:?}; killing", late.join(", "), self.grace));
            }
            self.tell(Signal::KILL);
        }
    }

    /// Prints what has come. If that fails, nothing more is printed, and the ranks are ended.
    fn print(&mut self) {
        let mut failure = None;
        self.streams.retain_mut(|stream| match stream.pass_on() {
            Ok(open) => open,
            Err(error) => {
                failure = Some(error);
                false
            }
        });
        self.note(failure);
    }

    /// Prints what the ranks have left in their pipes. What their own children may still print is not waited for.
    fn print_rest(&mut self) {
        let failure = self.streams.drain(..).find_map(|mut stream| stream.pass_on_rest().err());
        self.note(failure);
    }

    fn note(&mut self, failure: Option<std::io::Error>) {
        let Some(error) = failure else { return };
        self.streams.clear();
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            // The reader has seen enough: no failure, but nothing to go on for. The status is that of a program which
            // SIGPIPE ends.
            return self.begin_to_end(128 + 13);
        }
        self.failure.get_or_insert(Error::system("printing what the ranks print", error));
        self.begin_to_end(1);
    }
}

/// Tells the user something. If nobody listens, nothing is lost.
fn say(sentence: &str) {
    let _ = writeln!(std::io::stderr(), "annulus launch: {sentence}");
}
