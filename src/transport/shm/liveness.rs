// SPDX-License-Identifier: MPL-2.0
//! Whether a rank is still alive, as a descriptor that its peers can ask.
//!
//! Each rank opens a pidfd on itself, its [`Pulse`], and passes it on; a pidfd becomes readable when its process has
//! ended, however it ended. It names the process and not a number that another could get, it works across process-id
//! namespaces, and asking takes one system call that never waits.
//!
//! Where there are no pidfds (old kernels, some sandboxes) the pulse is one end of a socket pair whose other end the
//! rank keeps open and never writes to: the kernel closes it when the rank ends, and the peers' end becomes readable.
//! Both are asked in the same way. (A child that the rank forked without exec would keep that other end open; a pidfd
//! has no such weakness.)

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::PidfdFlags;

use crate::error::{Error, Result};

/// This process's own sign of life. Pass [`Pulse::as_fd`] on, and keep the pulse until the peers no longer need it.
#[derive(Debug)]
pub struct Pulse {
    shown: OwnedFd,
    /// Held for what its closing means, where the pulse is a socket pair.
    _kept: Option<OwnedFd>,
}

impl Pulse {
    /// The pulse of this process.
    pub fn of_this_process() -> Result<Pulse> {
        // What refuses depends on kernel and sandbox (ENOSYS, EPERM, EINVAL): any refusal leads to the other form.
        match rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty()) {
            Ok(shown) => Ok(Pulse { shown, _kept: None }),
            Err(_) => Pulse::by_socket(),
        }
    }

    fn by_socket() -> Result<Pulse> {
        let (shown, kept) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .map_err(|errno| Error::system("opening a sign of life for the peers", errno))?;
        Ok(Pulse { shown, _kept: Some(kept) })
    }
}

impl AsFd for Pulse {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shown.as_fd()
    }
}

/// The peers' pulses, by rank.
#[derive(Debug)]
pub struct Liveness {
    pulses: Vec<OwnedFd>,
}

impl Liveness {
    /// Takes what each rank passed on, in the order of ranks.
    pub fn new(pulses: Vec<OwnedFd>) -> Liveness {
        Liveness { pulses }
    }

    /// Whether `rank` has ended. Never waits. A rank that is not of this world is not dead.
    ///
    /// A death is final, but says nothing about what the rank did before: a protocol looks once more at what it
    /// awaited after it has seen one.
    pub fn dead(&self, rank: usize) -> bool {
        let Some(pulse) = self.pulses.get(rank) else { return false };
        let mut polled = [PollFd::new(pulse, PollFlags::IN)];
        // Interruptions are retried: "not dead" is an answer too, and must not be one by accident.
        loop {
            match rustix::event::poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
                Ok(_) => return !polled[0].revents().is_empty(),
                Err(Errno::INTR) => (),
                // Out of kernel memory: unknown, so alive until the next time.
                Err(_) => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    struct Sleeper(Child);

    impl Sleeper {
        fn start() -> Self {
            Sleeper(Command::new("sleep").arg("60").spawn().unwrap())
        }

        /// Kills it and returns when it has ended. A pidfd tells of an end before it is waited for.
        fn end(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            self.end();
        }
    }

    #[test]
    fn a_killed_process_is_noticed_and_the_others_are_not() {
        let mut sleeper = Sleeper::start();
        let pid = rustix::process::Pid::from_child(&sleeper.0);
        let own = Pulse::of_this_process().unwrap();
        let Ok(its) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else {
            return; // a system without pidfds: the other form is tested below
        };
        let liveness = Liveness::new(vec![own.as_fd().try_clone_to_owned().unwrap(), its]);
        assert_eq!((liveness.dead(0), liveness.dead(1)), (false, false));
        sleeper.end();
        assert_eq!((liveness.dead(0), liveness.dead(1), liveness.dead(2)), (false, true, false));
        assert!(liveness.dead(1), "a death is final");
    }

    #[test]
    fn without_pidfds_a_closed_socket_tells() {
        let pulse = Pulse::by_socket().unwrap();
        let liveness = Liveness::new(vec![pulse.as_fd().try_clone_to_owned().unwrap()]);
        assert!(!liveness.dead(0));
        drop(pulse); // what the kernel does at a process's end
        assert!(liveness.dead(0));
    }
}
