// SPDX-License-Identifier: MPL-2.0
//! The sockets of a star: abstract Unix names, packets kept whole (SEQPACKET), descriptors as ancillary data. Nothing
//! here ever waits except where a deadline is given.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use super::contribution::MOST_DESCRIPTORS;
use super::packet::{LARGEST, Packet};
use crate::error::{Error, Result};

/// Rank 0's ear.
#[derive(Debug)]
pub(super) struct Listener {
    socket: OwnedFd,
}

impl Listener {
    /// Listens at `name`; [`Errno::ADDRINUSE`] if somebody does already.
    pub fn bind(name: &[u8], backlog: usize) -> Result<Listener, Errno> {
        let socket = socket()?;
        rustix::net::bind(&socket, &SocketAddrUnix::new_abstract_name(name)?)?;
        rustix::net::listen(&socket, backlog.try_into().unwrap_or(i32::MAX))?;
        Ok(Listener { socket })
    }

    /// The next one who came, of this user; others are sent away.
    pub fn accept(&self) -> Result<Option<Connection>, Errno> {
        loop {
            match rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => {
                    let connection = Connection { socket };
                    if connection.same_user() {
                        return Ok(Some(connection));
                    }
                }
                Err(Errno::AGAIN) => return Ok(None),
                // Interrupted, or the one who came is gone again.
                Err(Errno::INTR | Errno::CONNABORTED) => (),
                Err(errno) => return Err(errno),
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What a look at a connection found.
#[derive(Debug)]
pub(super) enum Incoming {
    Packet(Packet, Vec<OwnedFd>),
    /// Nothing yet.
    Nothing,
    /// The other side is gone.
    Closed,
    /// Bytes that are no packet.
    Garbage,
}

/// One socket between rank 0 and another.
#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
}

impl Connection {
    /// Connects to who listens at `name`; [`Errno::CONNREFUSED`] if nobody does, [`Errno::AGAIN`] if too many wait
    /// there.
    pub fn connect(name: &[u8]) -> Result<Connection, Errno> {
        let socket = socket()?;
        rustix::net::connect(&socket, &SocketAddrUnix::new_abstract_name(name)?)?;
        Ok(Connection { socket })
    }

    /// Whether the process on the other side runs as this one's user. The kernel vouches for it.
    pub fn same_user(&self) -> bool {
        let peer = rustix::net::sockopt::socket_peercred(&self.socket);
        peer.is_ok_and(|peer| peer.uid == rustix::process::geteuid())
    }

    /// Sends one packet, waiting for room until `deadline` ([`Errno::TIMEDOUT`]).
    pub fn send(&self, packet: &Packet, descriptors: &[BorrowedFd<'_>], deadline: Instant) -> Result<(), Errno> {
        let bytes = packet.encode();
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        loop {
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
                return Err(Errno::INVAL); // more than MOST_DESCRIPTORS
            }
            // NOSIGNAL: a closed socket is an error value, not a SIGPIPE.
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match rustix::net::sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut control, flags) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => await_any(&mut [PollFd::new(&self.socket, PollFlags::OUT)], deadline)?,
                // This user has as many descriptors in flight as the kernel allows, perhaps in other programs.
                Err(Errno::TOOMANYREFS) => std::thread::sleep(Duration::from_millis(1)),
                Err(errno) => return Err(errno),
            }
            if Instant::now() >= deadline {
                return Err(Errno::TIMEDOUT);
            }
        }
    }

    /// Looks for a packet. [`Errno::MFILE`] if descriptors came that this process has no room for.
    pub fn receive(&self) -> Result<Incoming, Errno> {
        let mut bytes = [0; LARGEST];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = loop {
            match rustix::net::recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
                Ok(received) => break received,
                // The other side closed without having read all that we sent. The kernel reports it once, ahead of the
                // packets that it still holds for us, and those say why: look again.
                Err(Errno::INTR | Errno::CONNRESET) => (),
                Err(Errno::AGAIN) => return Ok(Incoming::Nothing),
                Err(errno) => return Err(errno),
            }
        };
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        if received.bytes == 0 {
            return Ok(Incoming::Closed);
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(Errno::MFILE);
        }
        if received.flags.contains(ReturnFlags::TRUNC) {
            return Ok(Incoming::Garbage);
        }
        let packet = Packet::decode(&bytes[..received.bytes]);
        Ok(packet.map_or(Incoming::Garbage, |packet| Incoming::Packet(packet, descriptors)))
    }

    /// As [`Connection::receive`], but waits until something is there; [`Incoming::Nothing`] at the deadline.
    pub fn receive_until(&self, deadline: Instant) -> Result<Incoming, Errno> {
        loop {
            match self.receive()? {
                Incoming::Nothing if Instant::now() < deadline => {
                    await_any(&mut [PollFd::new(&self.socket, PollFlags::IN)], deadline)?;
                }
                incoming => return Ok(incoming),
            }
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Waits until one of `polled` is ready or the deadline has passed. May return early for no reason.
pub(super) fn await_any(polled: &mut [PollFd<'_>], deadline: Instant) -> Result<(), Errno> {
    let left = deadline.saturating_duration_since(Instant::now());
    // A wait of more than a day may end early.
    let timeout = Timespec::try_from(left.min(Duration::from_secs(86_400))).unwrap_or_default();
    match rustix::event::poll(polled, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Duplicates that this process owns.
pub(super) fn dup(descriptors: &[BorrowedFd<'_>]) -> Result<Vec<OwnedFd>> {
    let dup = |descriptor| rustix::io::fcntl_dupfd_cloexec(descriptor, 0);
    let all: Result<Vec<_>, _> = descriptors.iter().map(dup).collect();
    all.map_err(|errno| Error::system("duplicating a file descriptor", answer(errno)))
}

/// The system's answer as a sentence that says what to do about the one error that users can remedy.
pub(super) fn answer(errno: Errno) -> String {
    if errno != Errno::MFILE {
        return errno.to_string();
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.map_or("unlimited".into(), |limit| limit.to_string());
    format!(
        "no room for another file descriptor; the limit is {limit} (ulimit -n), and each rank takes a few: raise it"
    )
}

fn socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}
