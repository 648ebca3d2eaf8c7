// SPDX-License-Identifier: MPL-2.0
//! What ranks print, line by line behind their number.
//!
//! Lines of different ranks never mix: each is printed when it is complete, in one piece with all others that have come
//! with it. A line that is never completed is printed when its rank ends.

use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The longest line that is kept whole; a longer one is printed as several.
const LONGEST: usize = 64 << 10;

/// Which of the launcher's own streams something is printed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Output,
    Error,
}

/// One of the two streams of one rank.
pub(super) struct Stream {
    pipe: std::fs::File,
    target: Target,
    lines: Lines,
}

impl Stream {
    /// Reads from `pipe` without ever waiting for it.
    pub fn new(rank: usize, target: Target, pipe: OwnedFd) -> io::Result<Stream> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        let terminal = match target {
            Target::Output => io::stdout().is_terminal(),
            Target::Error => io::stderr().is_terminal(),
        };
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Ok(Stream { pipe: pipe.into(), target, lines: Lines::new(rank, colour) })
    }

    /// Prints the lines that have come. Whether more may come.
    pub fn pass_on(&mut self) -> io::Result<bool> {
        let mut bytes = [0; LONGEST];
        let count = match self.pipe.read(&mut bytes) {
            Ok(count) => count,
            Err(error) if [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted].contains(&error.kind()) => {
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        let lines = if count > 0 { self.lines.add(&bytes[..count]) } else { self.lines.rest() };
        self.target.print(&lines)?;
        Ok(count > 0)
    }

    /// Prints what is in the pipe by now and the last line, complete or not.
    pub fn pass_on_rest(&mut self) -> io::Result<()> {
        // Not until its end: a child of the rank may hold the pipe open, and write to it for ever.
        let mut bytes = vec![0; usize::try_from(rustix::io::ioctl_fionread(&self.pipe)?).unwrap_or(0)];
        self.pipe.read_exact(&mut bytes)?;
        let lines = [self.lines.add(&bytes), self.lines.rest()].concat();
        self.target.print(&lines)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

impl Target {
    fn print(self, lines: &[u8]) -> io::Result<()> {
        let print = |to: &mut dyn Write| to.write_all(lines).and_then(|()| to.flush());
        match self {
            _ if lines.is_empty() => Ok(()),
            Target::Output => print(&mut io::stdout().lock()),
            Target::Error => print(&mut io::stderr().lock()),
        }
    }
}

/// Cuts bytes into lines and puts a rank's number before each. Pure.
struct Lines {
    prefix: Vec<u8>,
    /// The beginning of a line that is not complete.
    begun: Vec<u8>,
}

impl Lines {
    fn new(rank: usize, colour: bool) -> Lines {
        let prefix = match colour {
            // The six colours that are neither black nor white.
            true => format!("\x1b[{}m[{rank}]\x1b[0m ", 31 + rank % 6),
            false => format!("[{rank}] "),
        };
        Lines { prefix: prefix.into_bytes(), begun: Vec::new() }
    }

    /// The lines that these bytes complete, each behind the prefix.
    fn add(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            for piece in piece.chunks(LONGEST) {
                self.begun.extend(piece);
                if piece.ends_with(b"\n") || self.begun.len() >= LONGEST {
                    lines.extend(self.rest());
                }
            }
        }
        lines
    }

    /// The line that was begun, ended here; nothing if none was.
    fn rest(&mut self) -> Vec<u8> {
        if self.begun.is_empty() {
            return Vec::new();
        }
        let mut line = [&self.prefix, &self.begun[..]].concat();
        self.begun.clear();
        if !line.ends_with(b"\n") {
            line.push(b'\n');
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn lines_are_printed_when_they_are_complete() {
        let mut lines = Lines::new(2, false);
        assert_eq!(text(lines.add(b"one\ntw")), "[2] one\n");
        assert_eq!(text(lines.add(b"o")), "");
        assert_eq!(text(lines.add(b"\n\nthree\nfour")), "[2] two\n[2] \n[2] three\n");
        assert_eq!(text(lines.rest()), "[2] four\n");
        assert_eq!(text(lines.rest()), "");
        assert_eq!(text(lines.add(b"")), "");
    }

    #[test]
    fn any_cut_gives_the_same_lines() {
        let whole = b"a\nbb\n\nccc";
        for cut in 0..=whole.len() {
            let mut lines = Lines::new(0, false);
            let printed = [lines.add(&whole[..cut]), lines.add(&whole[cut..]), lines.rest()].concat();
            assert_eq!(text(printed), "[0] a\n[0] bb\n[0] \n[0] ccc\n");
        }
    }

    #[test]
    fn endless_lines_are_cut_and_lose_nothing() {
        let mut lines = Lines::new(0, false);
        let mut printed = Vec::new();
        for _ in 0..5 {
            printed.extend(lines.add(&[b'x'; LONGEST * 2 / 3]));
        }
        printed.extend(lines.rest());
        assert_eq!(printed.iter().filter(|&&byte| byte == b'x').count(), LONGEST * 2 / 3 * 5);
        assert!(printed.split(|&byte| byte == b'\n').all(|line| line.len() < 2 * LONGEST));
    }

    #[test]
    fn numbers_are_coloured_on_a_terminal_alone() {
        assert_eq!(text(Lines::new(1, true).add(b"a\n")), "\x1b[32m[1]\x1b[0m a\n");
        assert_eq!(text(Lines::new(12, true).add(b"a\n")), "\x1b[31m[12]\x1b[0m a\n");
    }

    #[test]
    fn bytes_need_not_be_text() {
        assert_eq!(Lines::new(3, false).add(b"\xff\x00\n"), b"[3] \xff\x00\n");
    }
}
