// SPDX-License-Identifier: MPL-2.0
//! A rank of a star other than 0: finds rank 0, gives its part and takes the others'.

use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::connection::{Connection, Incoming};
use super::contribution::{Arriving, Contribution};
use super::packet::{Packet, VERSION};
use super::{GRACE, Meeting, patience};
use crate::error::{Cause, Error, Result};

/// How long to sleep before knocking again, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

#[derive(Debug, Default)]
pub(super) struct Member {
    /// From the first round on.
    connection: Option<Connection>,
    round: u32,
}

impl Member {
    pub fn all_gather(&mut self, meeting: &Meeting, own: Contribution, deadline: Instant) -> Result<Vec<Contribution>> {
        let started = Instant::now();
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => find(meeting, deadline)?,
        };
        // Kept from here on, so that a failure can be told.
        let connection = self.connection.insert(connection);
        let sent = own.send(connection, self.round, meeting.rank, deadline);

        let mut all: Vec<Arriving> = (0..meeting.world).map(|_| Arriving::default()).collect();
        let sources = || (0..meeting.world).filter(|&source| source != meeting.rank);
        // Where sending failed because rank 0 is gone, what it said last is still to be received.
        match sent {
            Ok(()) | Err(Errno::PIPE | Errno::CONNRESET | Errno::TIMEDOUT) => (),
            Err(errno) => return Err(meeting.failed(errno)),
        }
        while sources().any(|source| !all[source].complete()) {
            match connection.receive_until(deadline + GRACE).map_err(|errno| meeting.failed(errno))? {
                Incoming::Packet(Packet::Part { round, source, total, bytes, .. }, descriptors)
                    if round == self.round && sources().any(|expected| expected == source as usize) =>
                {
                    let arriving = &mut all[source as usize];
                    arriving.add(total, &bytes, descriptors).ok_or_else(|| meeting.garbage(0))?;
                }
                Incoming::Packet(Packet::Failure(error), _) => return Err(error),
                Incoming::Packet(Packet::Leave, _) => return Err(meeting.lost(0, Cause::Left)),
                Incoming::Closed => return Err(meeting.lost(0, Cause::Died)),
                Incoming::Nothing => return Err(meeting.timeout(vec![0], started)),
                Incoming::Packet(..) | Incoming::Garbage => return Err(meeting.garbage(0)),
            }
        }
        // If rank 0 is gone by now, this rank has all that it needs, and learns of it in the next round.
        let _ = connection.send(&Packet::Received { round: self.round }, &[], deadline + GRACE);
        self.round += 1;
        let mut all: Vec<Contribution> = all.iter_mut().map(Arriving::take).collect();
        all[meeting.rank] = own;
        Ok(all)
    }

    /// Tells rank 0, which tells the others, that this rank has failed.
    pub fn tell(&mut self, error: &Error) {
        if let Some(connection) = self.connection.take() {
            let _ = connection.send(&Packet::Failure(error.clone()), &[], Instant::now());
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            let _ = connection.send(&Packet::Leave, &[], Instant::now());
        }
    }
}

/// Connects to rank 0 and is let in, knocking until the deadline.
fn find(meeting: &Meeting, deadline: Instant) -> Result<Connection> {
    let started = Instant::now();
    let mut pause = PAUSE.0;
    loop {
        match Connection::connect(&meeting.name) {
            Ok(connection) => match enter(meeting, &connection, deadline)? {
                Entry::Welcome => return Ok(connection),
                Entry::Nothing => return Err(meeting.timeout(vec![0], started)),
                Entry::Closed => (),
            },
            // Rank 0 is not there yet, or cannot keep up.
            Err(Errno::CONNREFUSED | Errno::AGAIN | Errno::INTR) => (),
            Err(errno) => return Err(meeting.failed(errno)),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(meeting.timeout(vec![0], started));
        }
        std::thread::sleep(pause.min(left));
        pause = (pause * 2).min(PAUSE.1);
    }
}

enum Entry {
    Welcome,
    /// The process that listened ended before it answered: one of an earlier job, perhaps. Ours may still come.
    Closed,
    /// No answer by the deadline.
    Nothing,
}

fn enter(meeting: &Meeting, connection: &Connection, deadline: Instant) -> Result<Entry> {
    if !connection.same_user() {
        return Err(Error::System(format!("{} cannot begin: another user holds its name", meeting.subject).into()));
    }
    let hello = Packet::Hello {
        version: VERSION,
        rank: meeting.rank as u32,
        world: meeting.world as u32,
        process: std::process::id(),
        patience: patience(deadline),
    };
    match connection.send(&hello, &[], deadline + GRACE) {
        Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => (),
        Err(errno) => return Err(meeting.failed(errno)),
    }
    match connection.receive_until(deadline + GRACE).map_err(|errno| meeting.failed(errno))? {
        Incoming::Packet(Packet::Welcome, _) => Ok(Entry::Welcome),
        Incoming::Packet(Packet::Failure(error), _) => Err(error),
        Incoming::Closed => Ok(Entry::Closed),
        Incoming::Nothing => Ok(Entry::Nothing),
        Incoming::Packet(..) | Incoming::Garbage => Err(meeting.garbage(0)),
    }
}
