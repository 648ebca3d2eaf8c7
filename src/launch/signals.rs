// SPDX-License-Identifier: MPL-2.0
//! Signals as descriptors that can be polled: the handler of each writes to a socket of its own, and no other code runs
//! in a handler.

use std::io::Read;
use std::os::unix::net::UnixStream;

use rustix::process::Signal;
use signal_hook::SigId;
use signal_hook::low_level::{pipe, unregister};

use crate::error::{Error, Result};

/// What is passed on to the ranks. SIGUSR1 and SIGUSR2 are how schedulers warn of what is to come.
const PASSED_ON: [Signal; 6] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2];

/// The signals that the launcher listens to, until it is dropped.
pub(super) struct Signals {
    passed_on: Vec<(Signal, Listened)>,
    child: Listened,
}

struct Listened {
    pipe: UnixStream,
    id: SigId,
}

impl Signals {
    pub fn listen() -> Result<Signals> {
        let failed = |error: std::io::Error| Error::system("listening to signals", error);
        // A signal that this process was started to ignore is to stay without effect, on the ranks too.
        let ignored = ignored(&std::fs::read_to_string("/proc/self/status").unwrap_or_default());
        let mut passed_on = Vec::new();
        for signal in PASSED_ON.into_iter().filter(|signal| ignored >> (signal.as_raw() - 1) & 1 == 0) {
            passed_on.push((signal, Listened::to(signal).map_err(failed)?));
        }
        Ok(Signals { passed_on, child: Listened::to(Signal::CHILD).map_err(failed)? })
    }

    /// What becomes readable when a signal has come.
    pub fn pipes(&self) -> impl Iterator<Item = &UnixStream> {
        self.passed_on.iter().map(|(_, listened)| listened).chain([&self.child]).map(|listened| &listened.pipe)
    }

    /// Those to pass on that have come since the last time. One that came several times may count once, as signals do.
    pub fn take(&self) -> impl Iterator<Item = Signal> {
        self.passed_on.iter().filter(|(_, listened)| listened.came()).map(|&(signal, _)| signal)
    }

    /// Whether a process that was started here has ended since the last time.
    pub fn child_ended(&self) -> bool {
        self.child.came()
    }
}

impl Listened {
    fn to(signal: Signal) -> std::io::Result<Listened> {
        let (read, write) = UnixStream::pair()?;
        read.set_nonblocking(true)?;
        Ok(Listened { pipe: read, id: pipe::register(signal.as_raw(), write)? })
    }

    /// Empties the pipe and says whether there was anything in it.
    fn came(&self) -> bool {
        let mut came = false;
        while (&self.pipe).read(&mut [0; 64]).is_ok_and(|count| count > 0) {
            came = true;
        }
        came
    }
}

impl Drop for Listened {
    fn drop(&mut self) {
        unregister(self.id);
    }
}

/// The ignored signals by the text of `/proc/self/status`, as a mask whose lowest bit is signal 1.
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read() {
        assert_eq!(ignored("SigBlk:\t0000000000000003\nSigIgn:\t0000000000001001\n"), 0x1001);
        assert_eq!(ignored(""), 0);
    }
}
