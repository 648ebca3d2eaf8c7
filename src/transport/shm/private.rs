// SPDX-License-Identifier: MPL-2.0
//! Reading a peer's private memory: one copy by the kernel, from where it lies to where it is wanted.
//!
//! `process_vm_readv` takes what permission to trace a process takes. Same user and nothing else in the way is enough on
//! most systems; where Yama restricts tracing to descendants, a rank lets its parent trace it, and with it the parent's
//! other descendants: the launcher's other ranks. Whether it works is tried, by each rank with each other when they
//! meet, and what all ranks must be able to do is done only where all can. `ANNULUS_PULL=0` does without.
//!
//! Ranks read, and never write: a write by a peer that was stopped in it would go on when the peer is, into memory whose
//! rank has given up and gone on. What such a reader reads is of no use to it, since it finds the communicator poisoned.
#![allow(unsafe_code)] // the system call

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;
use rustix::process::{PTracer, Pid};

use crate::error::{Error, Result};

/// What users set to 0 for ranks not to read one another's private memory.
const VARIABLE: &str = "ANNULUS_PULL";

/// Something in this process's private memory for peers to find.
pub(super) struct Sample {
    word: Box<AtomicU64>,
}

/// Where a peer's sample is, and what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub process: u64,
    pub address: u64,
    pub word: u64,
}

impl Sample {
    /// A word that no other process has.
    pub fn new() -> Result<Sample> {
        let mut bytes = [0; 8];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
            .map_err(|errno| Error::system("drawing a random number", errno))?;
        Ok(Sample { word: Box::new(AtomicU64::new(u64::from_ne_bytes(bytes))) })
    }

    /// What to tell peers; process 0 if they must not read. Lets them, where that must be said.
    pub fn show(&self) -> Found {
        let word = self.word.load(Ordering::Relaxed);
        if std::env::var_os(VARIABLE).is_some_and(|value| value == "0") {
            return Found { process: 0, address: 0, word };
        }
        let yama = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
        if let Some(parent) = rustix::process::getppid().filter(|_| yama.trim() == "1") {
            // Where this is refused, the peers' attempts will be.
            let _ = rustix::process::set_ptracer(PTracer::ProcessID(parent));
        }
        let process = rustix::process::getpid().as_raw_nonzero().get() as u64;
        Found { process, address: self.word.as_ptr().expose_provenance() as u64, word }
    }
}

/// Whether a peer's sample is where it says.
pub(super) fn is_readable(found: Found) -> bool {
    let mut word = [0; 8];
    let outcome = Pid::from_raw(found.process as i32).map(|process| read(process, found.address as usize, &mut word));
    matches!(outcome, Some(Ok(true))) && u64::from_ne_bytes(word) == found.word
}

/// Whether processes of this machine can read one another's memory, as far as one alone can find out.
pub(crate) fn may_read() -> bool {
    Sample::new().is_ok_and(|sample| is_readable(sample.show()))
}

/// Fills `to` with the bytes at `address` of another process. False if that process has ended.
pub(super) fn read(process: Pid, address: usize, to: &mut [u8]) -> Result<bool> {
    let mut done = 0;
    while let Some(rest) = to.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let here = libc::iovec { iov_base: rest.as_mut_ptr().cast(), iov_len: rest.len() };
        let there =
            libc::iovec { iov_base: std::ptr::without_provenance_mut(address.wrapping_add(done)), iov_len: rest.len() };
        // SAFETY: both lists have the one entry that is said; of this process's memory, only `rest` is written, which is
        // borrowed for it. An address that the other process does not have is an error of the call.
        let count = unsafe {
            libc::process_vm_readv(process.as_raw_nonzero().get(), &raw const here, 1, &raw const there, 1, 0)
        };
        match usize::try_from(count) {
            Ok(count) if count > 0 => done += count,
            _ => match std::io::Error::last_os_error() {
                error if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => return Ok(false),
                error if error.raw_os_error() == Some(Errno::INTR.raw_os_error()) => {}
                error => return Err(Error::system("reading a peer's memory", error)),
            },
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_not_readable() {
        let found = Sample::new().unwrap();
        let found = found.show();
        assert!(!is_readable(Found { word: found.word ^ 1, ..found }), "another word");
        assert!(!is_readable(Found { address: 8, ..found }), "no memory");
        assert!(!is_readable(Found { process: 0, ..found }), "no process");
    }
}
