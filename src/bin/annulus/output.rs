// SPDX-License-Identifier: MPL-2.0
//! What the command writes.

use std::fmt::Display;
use std::io::{self, Write};
use std::ops::ControlFlow;

use annulus::{Error, Result};

/// Writes text to standard output at once. Breaks when nobody reads it any more.
///
/// # Errors
///
/// `System` if it cannot be written for any other reason: a full disk.
pub fn print(text: &str) -> Result<ControlFlow<()>> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(Error::system("writing to standard output", error)),
    }
}

/// Says on standard error what is wrong. If nobody listens, nothing is lost.
pub fn complain(what: &impl Display) {
    let _ = writeln!(io::stderr(), "annulus: {what}");
}
