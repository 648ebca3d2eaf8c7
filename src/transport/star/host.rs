// SPDX-License-Identifier: MPL-2.0
//! Rank 0 of a star: receives those who come, sorts out who may stay, gathers and serves.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use super::connection::{Connection, Incoming, Listener, await_any};
use super::contribution::{Arriving, Contribution};
use super::packet::{Packet, VERSION};
use super::{Meeting, patience};
use crate::error::{Cause, Error, Result};

/// How long to look into who holds the name: a process of an earlier job may just be ending.
const TAKEN: Duration = Duration::from_millis(500);
/// How long rank 0 stays, when all is lost, to tell those who come late.
const FAREWELL: Duration = Duration::from_millis(500);
/// How many may be connected without having said who they are. Ranks say so at once.
const STRANGERS: usize = 128;

#[derive(Debug)]
pub(super) struct Host {
    listener: Listener,
    /// Connected, but no Hello yet; the oldest first.
    strangers: VecDeque<Connection>,
    /// By rank; the first is this rank's own place and stays empty.
    peers: Vec<Option<Peer>>,
    round: u32,
    /// When this round began here, and when the least patient rank gives up.
    started: Instant,
    deadline: Instant,
}

#[derive(Debug)]
struct Peer {
    connection: Connection,
    process: u32,
    arriving: Arriving,
}

impl Host {
    /// Listens at the meeting's name.
    pub fn listen(meeting: &Meeting, deadline: Instant) -> Result<Host> {
        let until = deadline.min(Instant::now() + TAKEN);
        let listener = loop {
            match Listener::bind(&meeting.name, meeting.world.max(STRANGERS)) {
                Ok(listener) => break listener,
                Err(Errno::ADDRINUSE) => ask_holder(meeting, until)?,
                Err(errno) => return Err(meeting.failed(errno)),
            }
            if Instant::now() >= until {
                let Meeting { subject, remedy, .. } = meeting;
                return Err(Error::System(
                    format!(
                        "{subject} cannot begin: its name is already taken by a process that does not answer. {remedy}"
                    )
                    .into(),
                ));
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let peers = (0..meeting.world).map(|_| None).collect();
        Ok(Host { listener, strangers: VecDeque::new(), peers, round: 0, started: Instant::now(), deadline })
    }

    pub fn all_gather(&mut self, meeting: &Meeting, own: Contribution, deadline: Instant) -> Result<Vec<Contribution>> {
        (self.started, self.deadline) = (Instant::now(), deadline);
        self.gather(meeting)?;
        let mut all = vec![own];
        all.extend(self.peers.iter_mut().flatten().map(|peer| peer.arriving.take()));
        self.serve(meeting, &all)?;
        self.round += 1;
        Ok(all)
    }

    /// Receives until every rank is here and has given its part.
    fn gather(&mut self, meeting: &Meeting) -> Result<()> {
        loop {
            self.receive_strangers(meeting)?;
            self.receive_parts(meeting)?;
            let complete = |peer: &Peer| peer.arriving.complete();
            let missing: Vec<usize> =
                (1..meeting.world).filter(|&rank| !self.peers[rank].as_ref().is_some_and(complete)).collect();
            if missing.is_empty() {
                return Ok(());
            }
            if Instant::now() >= self.deadline {
                return Err(meeting.timeout(missing, self.started));
            }
            let mut polled = vec![PollFd::new(&self.listener, PollFlags::IN)];
            polled.extend(self.strangers.iter().map(|stranger| PollFd::new(stranger, PollFlags::IN)));
            polled.extend(self.peers.iter().flatten().map(|peer| PollFd::new(&peer.connection, PollFlags::IN)));
            await_any(&mut polled, self.deadline).map_err(|errno| meeting.failed(errno))?;
        }
    }

    /// Lets in those who come with a Hello that is in order, and drops those who come with anything else.
    fn receive_strangers(&mut self, meeting: &Meeting) -> Result<()> {
        while let Some(stranger) = self.listener.accept().map_err(|errno| meeting.failed(errno))? {
            self.strangers.push_back(stranger);
            if self.strangers.len() > STRANGERS {
                self.strangers.pop_front();
            }
        }
        for _ in 0..self.strangers.len() {
            let Some(stranger) = self.strangers.pop_front() else { break };
            match stranger.receive() {
                Ok(Incoming::Nothing) => self.strangers.push_back(stranger),
                Ok(Incoming::Packet(Packet::Hello { version, rank, world, process, patience }, _)) => {
                    let hello = Hello { version, rank: rank as usize, world: world as usize, process };
                    if let Err(error) = self.examine(meeting, &hello) {
                        self.strangers.push_back(stranger); // to be told as well
                        return Err(error);
                    }
                    self.less_patient(patience);
                    // One that is gone again is noticed when its part is received.
                    let _ = stranger.send(&Packet::Welcome, &[], self.deadline);
                    let peer = Peer { connection: stranger, process, arriving: Arriving::default() };
                    self.peers[hello.rank] = Some(peer);
                }
                Ok(_) | Err(_) => (),
            }
        }
        Ok(())
    }

    /// Whether who says this may be let in.
    fn examine(&self, meeting: &Meeting, hello: &Hello) -> Result<()> {
        let &Hello { version, rank, world, process } = hello;
        let refuse = |sentence: String| Err(Error::Mismatch(sentence.into()));
        if version != VERSION {
            return refuse(format!(
                "rank {rank} (process {process}) speaks version {version} of the rendezvous and rank 0 version \
                 {VERSION}: build all ranks with the same Annulus"
            ));
        }
        if world != meeting.world {
            return refuse(format!(
                "rank {rank} (process {process}) was started for {world} ranks and rank 0 for {}: give all ranks the \
                 same world size",
                meeting.world
            ));
        }
        let holder = match self.peers.get(rank) {
            None => {
                return refuse(format!(
                    "process {process} was started as rank {rank} of {world}: ranks count from 0 to {}",
                    world - 1
                ));
            }
            Some(_) if rank == 0 => Some(std::process::id()),
            Some(peer) => peer.as_ref().map(|peer| peer.process),
        };
        match holder {
            None => Ok(()),
            Some(holder) => refuse(format!(
                "two processes, {holder} and {process}, were both started as rank {rank} of {world}: give each \
                 its own rank"
            )),
        }
    }

    fn receive_parts(&mut self, meeting: &Meeting) -> Result<()> {
        for rank in 1..meeting.world {
            while let Some(peer) = &mut self.peers[rank] {
                let (packet, descriptors) = match peer.connection.receive().map_err(|errno| meeting.failed(errno))? {
                    Incoming::Nothing => break,
                    Incoming::Closed => return Err(meeting.lost(rank, Cause::Died)),
                    Incoming::Garbage => return Err(meeting.garbage(rank)),
                    Incoming::Packet(packet, descriptors) => (packet, descriptors),
                };
                match packet {
                    Packet::Part { round, source, total, patience, bytes }
                        if round == self.round && source as usize == rank =>
                    {
                        peer.arriving.add(total, &bytes, descriptors).ok_or_else(|| meeting.garbage(rank))?;
                        self.less_patient(patience);
                    }
                    other => return Err(end_of(meeting, rank, other)),
                }
            }
        }
        Ok(())
    }

    /// Gives each rank what all others have given, one rank after the other.
    fn serve(&self, meeting: &Meeting, all: &[Contribution]) -> Result<()> {
        for (rank, peer) in self.peers.iter().enumerate().skip(1) {
            let Some(Peer { connection, .. }) = peer else { continue };
            for (source, contribution) in all.iter().enumerate().filter(|&(source, _)| source != rank) {
                match contribution.send(connection, self.round, source, self.deadline) {
                    Ok(()) => (),
                    Err(Errno::TIMEDOUT) => return Err(meeting.timeout(vec![rank], self.started)),
                    // It is gone; what it said last may tell why.
                    Err(Errno::PIPE | Errno::CONNRESET) => break,
                    Err(errno) => return Err(meeting.failed(errno)),
                }
            }
            match connection.receive_until(self.deadline).map_err(|errno| meeting.failed(errno))? {
                Incoming::Packet(Packet::Received { round }, _) if round == self.round => (),
                Incoming::Packet(other, _) => return Err(end_of(meeting, rank, other)),
                Incoming::Nothing => return Err(meeting.timeout(vec![rank], self.started)),
                Incoming::Closed => return Err(meeting.lost(rank, Cause::Died)),
                Incoming::Garbage => return Err(meeting.garbage(rank)),
            }
        }
        Ok(())
    }

    /// Tells all who are here, those who stand at the door, and for a moment those who still come, that it has failed
    /// and why: ranks are started together, and who comes to a closed door would knock there until its deadline.
    pub fn tell_everyone(&mut self, error: &Error) {
        let until = self.deadline.min(Instant::now() + FAREWELL);
        let others = self.peers.len() - 1;
        let peers = self.peers.drain(..).flatten().map(|peer| peer.connection);
        let mut present: Vec<Connection> = peers.chain(self.strangers.drain(..)).collect();
        let mut told = 0;
        loop {
            while let Ok(Some(connection)) = self.listener.accept() {
                present.push(connection);
            }
            told += present.len();
            for connection in present.drain(..) {
                // Who has no room for it now would have to be waited for, and finds the socket closed instead.
                let _ = connection.send(&Packet::Failure(error.clone()), &[], Instant::now());
            }
            if told >= others || Instant::now() >= until {
                return;
            }
            if await_any(&mut [PollFd::new(&self.listener, PollFlags::IN)], until).is_err() {
                return;
            }
        }
    }

    fn less_patient(&mut self, patience: u32) {
        self.deadline = self.deadline.min(Instant::now() + Duration::from_millis(patience.into()));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for peer in self.peers.iter().flatten() {
            let _ = peer.connection.send(&Packet::Leave, &[], Instant::now());
        }
    }
}

struct Hello {
    version: u32,
    rank: usize,
    world: usize,
    process: u32,
}

/// The error that a packet means which is not the expected one.
fn end_of(meeting: &Meeting, rank: usize, packet: Packet) -> Error {
    match packet {
        Packet::Failure(error) => error,
        Packet::Leave => meeting.lost(rank, Cause::Left),
        _ => meeting.garbage(rank),
    }
}

/// Asks who holds the name by saying Hello as a second rank 0: a rank 0 of the same job answers that there are two, and
/// fails as well. Without an answer, and as long as the holder may be ending, there is nothing to say yet.
fn ask_holder(meeting: &Meeting, until: Instant) -> Result<()> {
    let Ok(connection) = Connection::connect(&meeting.name) else { return Ok(()) };
    if !connection.same_user() {
        return Err(Error::System(format!("{} cannot begin: another user holds its name", meeting.subject).into()));
    }
    let hello = Packet::Hello {
        version: VERSION,
        rank: 0,
        world: meeting.world as u32,
        process: std::process::id(),
        patience: patience(until).max(1000),
    };
    if connection.send(&hello, &[], until).is_ok()
        && let Ok(Incoming::Packet(Packet::Failure(error), _)) = connection.receive_until(until)
    {
        return Err(error);
    }
    Ok(())
}
