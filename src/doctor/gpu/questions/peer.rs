// SPDX-License-Identifier: MPL-2.0
//! The other process of a question about two: a line of text tells it what to do, a line is its answer.
//!
//! | it is told | it answers |
//! |---|---|
//! | `open HANDLE BYTES` | `done PLACE`, by which the memory is named from then on |
//! | `read PLACE` | `done WORD`, the first |
//! | `close PLACE` | `done` |
//! | `ping SERVES RETURNS ROUNDS MILLISECONDS` | `done ENDED NANOSECONDS`, having returned each round |
//!
//! or `failed WHY`. It ends when nobody talks to it any more.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::super::card::{Card, Handle, PeerMemory};
use super::super::kernels::{Kernels, Rally, Scope, Sides};
use crate::error::{Error, Result};

/// The other process, as the asking one sees it.
pub(super) struct Peer {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Peer {
    pub fn start(mut command: Command) -> Result<Self> {
        let starting = |error| Error::system("starting the other process", error);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(starting)?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::system("starting the other process", "it has no pipes"));
        };
        Ok(Peer { child, to, from: BufReader::new(from) })
    }

    /// Tells it what to do, without waiting for the answer.
    pub fn tell(&mut self, what: &str) -> Result<()> {
        let talking = |error| Error::system("talking to the other process", error);
        writeln!(self.to, "{what}").and_then(|()| self.to.flush()).map_err(talking)
    }

    /// The words of its answer. What it could not do is an error of its own kind: the inner one.
    pub fn answer(&mut self) -> Result<Result<Vec<String>, String>> {
        let mut line = String::new();
        let read = self.from.read_line(&mut line).map_err(|error| Error::system("hearing the other process", error))?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.split_first() {
            Some((&"done", words)) => Ok(Ok(words.iter().map(|word| word.to_string()).collect())),
            Some((&"failed", words)) => Ok(Err(words.join(" "))),
            _ if read == 0 => Err(Error::system("hearing the other process", "it has ended")),
            // What a driver prints of its own accord.
            _ => self.answer(),
        }
    }

    /// Tells it what to do, and waits for the answer.
    pub fn ask(&mut self, what: &str) -> Result<Result<Vec<String>, String>> {
        self.tell(what)?;
        self.answer()
    }

    /// Opens memory of that many bytes; its place.
    pub fn open(&mut self, handle: &Handle, bytes: usize) -> Result<Result<usize, String>> {
        let mut what = String::from("open ");
        for byte in handle.0 {
            what.push_str(&format!("{byte:02x}"));
        }
        what.push_str(&format!(" {bytes}"));
        let answer = self.ask(&what)?;
        Ok(answer.map(|words| words.first().and_then(|word| word.parse().ok()).unwrap_or(usize::MAX)))
    }

    /// Ends it in the middle of whatever it does.
    pub fn kill(mut self) -> Result<()> {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        ended.map(drop).map_err(|error| Error::system("ending the other process", error))
    }
}

/// Does what it is told until nobody tells it anything any more.
pub(in super::super) fn serve() -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|errno| Error::system("asking to end with the process that started this one", errno))?;
    let card = Card::open()?;
    let kernels = Kernels::load(&card)?;
    let mut memory: Vec<Option<PeerMemory>> = Vec::new();
    for line in io::stdin().lock().lines().map_while(|line| line.ok()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match follow(&card, &kernels, &mut memory, &words) {
            Ok(answer) => format!("done {answer}"),
            Err(error) => format!("failed {error}"),
        };
        let mut out = io::stdout().lock();
        writeln!(out, "{answer}")
            .and_then(|()| out.flush())
            .map_err(|error| Error::system("answering the process that asked", error))?;
    }
    Ok(())
}

fn follow<'a>(
    card: &'a Card,
    kernels: &Kernels,
    memory: &mut Vec<Option<PeerMemory<'a>>>,
    words: &[&str],
) -> Result<String> {
    let unknown = || Error::invalid(format!("`{}` is not something to do", words.join(" ")));
    let number = |word: &str| word.parse::<usize>().map_err(|_| unknown());
    let at = |memory: &[Option<PeerMemory<'a>>], word: &str| match memory.get(number(word)?) {
        Some(Some(_)) => number(word),
        _ => Err(unknown()),
    };
    match *words {
        ["open", handle, bytes] => {
            let mut name = [0; 64];
            for (place, byte) in name.iter_mut().enumerate() {
                let digits = handle.get(2 * place..2 * place + 2).ok_or_else(unknown)?;
                *byte = u8::from_str_radix(digits, 16).map_err(|_| unknown())?;
            }
            memory.push(Some(card.open_handle(&Handle(name), number(bytes)?)?));
            Ok((memory.len() - 1).to_string())
        }
        ["read", place] => {
            let place = at(memory, place)?;
            let words = memory[place].as_ref().ok_or_else(unknown)?.read::<u32>(1)?;
            Ok(words.first().copied().unwrap_or(0).to_string())
        }
        ["close", place] => {
            let place = at(memory, place)?;
            memory[place].take().ok_or_else(unknown)?.close()?;
            Ok(String::new())
        }
        ["ping", serves, returns, rounds, milliseconds] => {
            let (serves, returns) = (at(memory, serves)?, at(memory, returns)?);
            let (Some(serves), Some(returns)) = (&memory[serves], &memory[returns]) else { return Err(unknown()) };
            let (stream, abort, out) = (card.stream()?, card.allocate_pinned(4096)?, card.allocate(64)?);
            let rally = Rally {
                sides: Sides::Returns,
                rounds: number(rounds)? as u32,
                scope: Scope::System,
                patience: Duration::from_millis(number(milliseconds)? as u64),
                abort: &abort,
                out: &out,
            };
            kernels.ping(&stream, [serves, returns], &rally)?;
            stream.synchronize()?;
            let out = out.read::<u64>(4)?;
            Ok(format!("{} {}", out[2], out[3]))
        }
        _ => Err(unknown()),
    }
}
