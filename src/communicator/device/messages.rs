// SPDX-License-Identifier: MPL-2.0
//! Messages from one rank to another, on device memory.
//!
//! As on the host, the k-th send from a to b meets the k-th receive of b from a, both must name the same type and length,
//! and other ranks take no part. What a rank sends and receives at once is one launch (`kernels/messages.cu`), in which
//! no message waits for another; launches of a rank follow one another as all calls do.
#![allow(unsafe_code)]

use std::cell::RefCell;

use bytemuck::Zeroable;

use super::DeviceCommunicator;
use super::batches::Exchanged;
use super::schedule::Path;
use crate::driver::{self, DeviceBuffer, Stream, Use};
use crate::element::{DataType, Element};
use crate::error::Result;
use crate::kernel::{Kernel, MESSAGES, Message, Messages, PIECES, Place, Shape};

/// Messages that proceed together: see [`DeviceCommunicator::batch`].
pub struct DeviceBatch {
    wanted: RefCell<Vec<Wanted>>,
}

/// A message of a batch.
pub(super) struct Wanted {
    pub sends: bool,
    pub peer: usize,
    data_type: DataType,
    pub buffer: DeviceBuffer<u8>,
}

impl DeviceBatch {
    /// Sends `elements` to rank `to`.
    pub fn send<T: Element>(&self, elements: &DeviceBuffer<T>, to: usize) {
        self.add(true, elements, to);
    }

    /// Receives `elements` from rank `from`.
    pub fn recv<T: Element>(&self, elements: &DeviceBuffer<T>, from: usize) {
        self.add(false, elements, from);
    }

    fn add<T: Element>(&self, sends: bool, elements: &DeviceBuffer<T>, peer: usize) {
        let wanted = Wanted { sends, peer, data_type: T::DATA_TYPE, buffer: elements.as_bytes() };
        self.wanted.borrow_mut().push(wanted);
    }
}

impl Wanted {
    fn is_for(&self, rank: usize) -> bool {
        self.peer == rank
    }

    pub fn usage(&self) -> Use {
        if self.sends { Use::reads(&self.buffer) } else { Use::writes(&self.buffer) }
    }

    /// What both ranks must name alike, in a word that is not 0.
    fn contents(&self) -> u64 {
        (self.data_type as u64 + 1) << 56 | (self.buffer.len() / self.data_type.size()) as u64
    }
}

/// In a word that both ranks must name alike: that an algorithm was set that is a schedule.
const BY_SCHEDULE: u64 = 1 << 55;

/// What a word says that both ranks must name alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contents {
    pub data_type: DataType,
    pub count: u64,
    pub by_schedule: bool,
}

impl Contents {
    /// Of a word, if it says anything.
    pub fn of(word: u64) -> Option<Contents> {
        let number = (word >> 56).checked_sub(1)?;
        let data_type = DataType::ALL.into_iter().find(|data_type| *data_type as u64 == number)?;
        Some(Contents { data_type, count: word & (BY_SCHEDULE - 1), by_schedule: word & BY_SCHEDULE != 0 })
    }
}

impl DeviceCommunicator {
    /// The most messages of a [`batch`](Self::batch), beside those of a rank to itself.
    pub const MESSAGES: usize = MESSAGES;

    /// Sends `elements` to rank `to`, which must [`recv`](Self::recv) as many of the same type. What is enqueued behind
    /// it is done when that rank has them. By one kernel; where the algorithm set is a schedule, by copies of the driver
    /// ([`set_algorithm`](Self::set_algorithm)).
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if there is no such rank or it is this one, or if buffer or stream is not of the
    /// communicator's device; and the [failure](Self#failure) of an earlier call. `Mismatch`, on both ranks, comes when
    /// they disagree.
    pub fn send<T: Element>(&self, elements: &DeviceBuffer<T>, to: usize, stream: &Stream) -> Result<()> {
        self.one("send", to, stream, |batch| batch.send(elements, to))
    }

    /// Receives `elements` from rank `from`, which must [`send`](Self::send) as many of the same type.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn recv<T: Element>(&self, elements: &DeviceBuffer<T>, from: usize, stream: &Stream) -> Result<()> {
        self.one("recv", from, stream, |batch| batch.recv(elements, from))
    }

    /// Sends to one rank while receiving from another, or the same; either may be this rank, if both are.
    ///
    /// # Errors
    ///
    /// As [`batch`](Self::batch).
    pub fn send_recv<T: Element>(
        &self,
        send: &DeviceBuffer<T>,
        to: usize,
        recv: &DeviceBuffer<T>,
        from: usize,
        stream: &Stream,
    ) -> Result<()> {
        self.messages("send_recv", stream, |batch| {
            batch.send(send, to);
            batch.recv(recv, from);
        })
    }

    /// Messages that proceed together, in whatever order their peers come to them, as between NCCL's `ncclGroupStart` and
    /// `ncclGroupEnd`: none waits for another, but those to the same rank, or from it, which keep their order. A batch
    /// of several is always one launch.
    ///
    /// A rank may send to itself within a batch, if it receives as many elements of the same type there: the k-th send
    /// meets the k-th receive.
    ///
    /// ```no_run
    /// use annulus::driver::Device;
    /// use annulus::run;
    ///
    /// run(4, |comm| {
    ///     let gpus = comm.on(&Device::simulated(0)?)?;
    ///     let (rank, stream) = (comm.rank() as u64, gpus.device().stream()?);
    ///     let (mine, all) = (gpus.allocate::<u64>(3)?, gpus.allocate::<u64>(12)?);
    ///     stream.fill(&mine, rank)?;
    ///     let parts = (0..4).map(|rank| all.part(3 * rank..3 * rank + 3)).collect::<Result<Vec<_>, _>>()?;
    ///     gpus.batch(&stream, |batch| {
    ///         for (rank, part) in parts.iter().enumerate() {
    ///             batch.send(&mine, rank);
    ///             batch.recv(part, rank);
    ///         }
    ///     })?;
    ///     assert_eq!(stream.read(&all)?, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]);
    ///     Ok(())
    /// })?;
    /// # Ok::<(), annulus::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `InvalidArgument`, with nothing sent, if a rank does not exist, a buffer or the stream is not of the communicator's
    /// device, what is received overlaps with another buffer of the batch, there are more than [`MESSAGES`](Self::MESSAGES)
    /// of them, or this rank's messages to itself do not fit together; otherwise as [`send`](Self::send).
    pub fn batch(&self, stream: &Stream, body: impl FnOnce(&DeviceBatch)) -> Result<()> {
        self.messages("batch", stream, body)
    }

    /// A message by itself.
    fn one(&self, name: &str, peer: usize, stream: &Stream, body: impl FnOnce(&DeviceBatch)) -> Result<()> {
        if peer == self.rank() {
            return self.asker(name).refuse_itself();
        }
        self.messages(name, stream, body)
    }

    fn messages(&self, name: &str, stream: &Stream, body: impl FnOnce(&DeviceBatch)) -> Result<()> {
        let batch = DeviceBatch { wanted: RefCell::default() };
        body(&batch);
        let mut wanted = batch.wanted.into_inner();
        self.members.failure(&self.faults)?;
        self.check_messages(name, &wanted, stream)?;
        let rank = self.rank();
        let own = |sends: bool| wanted.iter().filter(move |one| one.is_for(rank) && one.sends == sends);
        for (said, heard) in own(true).zip(own(false)) {
            stream.copy(&said.buffer, &heard.buffer)?;
        }
        wanted.retain(|one| !one.is_for(rank));
        if wanted.is_empty() { Ok(()) } else { self.launch_messages(&wanted, stream) }
    }

    /// What this rank can see wrong alone.
    fn check_messages(&self, name: &str, wanted: &[Wanted], stream: &Stream) -> Result<()> {
        let (asker, device) = (self.asker(name), self.device());
        if stream.device() != *device {
            return asker.refuse(format_args!("{stream} is not of {device}, which the communicator was made for"));
        }
        for Wanted { sends, peer, buffer, .. } in wanted {
            asker.check_peer(*peer)?;
            if buffer.device() != *device {
                let what = if *sends { "sent" } else { "received" };
                return asker.refuse(format_args!("what is {what} is of {}; it must be of {device}", buffer.device()));
            }
        }
        let end = |one: &Wanted| one.buffer.address() + one.buffer.len() as u64;
        for (number, one) in wanted.iter().enumerate() {
            for other in &wanted[..number] {
                let overlap = one.buffer.address() < end(other) && other.buffer.address() < end(one);
                if overlap && (!one.sends || !other.sends) {
                    return asker.refuse("what is received overlaps with another buffer; they must be apart");
                }
            }
        }
        let own = |sends: bool| wanted.iter().filter(move |one| one.is_for(asker.rank) && one.sends == sends);
        let (said, heard) = (own(true).count(), own(false).count());
        if said != heard || own(true).zip(own(false)).any(|(said, heard)| said.contents() != heard.contents()) {
            return asker.refuse_own(said, heard);
        }
        match wanted.len() - said - heard {
            ..=MESSAGES => Ok(()),
            many => asker.refuse(format_args!("{many} messages are too many at once; {MESSAGES} can be")),
        }
    }

    /// Enqueues the messages of this rank to others, and theirs to it.
    fn launch_messages(&self, wanted: &[Wanted], stream: &Stream) -> Result<()> {
        let first = self.history.next();
        match wanted {
            [one] if self.by_schedule() => self.relay(one, stream)?,
            _ => {
                let mut arguments = self.batch_of(wanted);
                arguments.call = self.common(self.history.count());
                self.launch_batch(&arguments, wanted, stream)?;
            }
        }
        let bytes = |sends: bool| wanted.iter().filter(|one| one.sends == sends).map(|one| one.buffer.len()).sum();
        self.history.push_batch(Exchanged {
            messages: wanted.len(),
            sent: bytes(true),
            received: bytes(false),
            launches: first..self.history.next(),
        });
        Ok(())
    }

    /// Whether messages go as those of schedules do: by block 0 alone, with the slots of all blocks, and staged.
    pub(super) fn by_schedule(&self) -> bool {
        matches!(self.path.get(), Some(Path::Schedule(_)))
    }

    /// What kernels are told of messages; all but the call.
    pub(super) fn batch_of(&self, wanted: &[Wanted]) -> Messages {
        let (members, layout, by_schedule) = (&self.members, &self.members.layout, self.by_schedule());
        let mut arguments: Messages = Zeroable::zeroed();
        arguments.slots = layout.slots;
        arguments.slot = if by_schedule { layout.room / PIECES as u64 } else { layout.slot };
        arguments.room = layout.room;
        let ordered = wanted.iter().filter(|one| one.sends).chain(wanted.iter().filter(|one| !one.sends));
        for (number, one) in ordered.enumerate() {
            let (buffer, peer) = (&one.buffer, one.peer as u32);
            let first = if one.sends { 0 } else { arguments.sends as usize };
            let before = arguments.message[first..number].iter().rposition(|message| message.peer == peer);
            let place = match one.sends && !by_schedule {
                true => members.place_of(buffer.address(), buffer.len()),
                false => Place::STAGED,
            };
            arguments.message[number] = Message {
                address: buffer.address(),
                place: place.word(),
                bytes: buffer.len() as u64,
                contents: one.contents() | if by_schedule { BY_SCHEDULE } else { 0 },
                peer,
                blocks: if by_schedule { 1 } else { self.message_shape(buffer.len()).blocks },
                before: before.map_or(Message::NONE, |place| (first + place) as u32),
                unused: 0,
            };
            arguments.messages += 1;
            arguments.sends += u32::from(one.sends);
        }
        #[cfg(annulus_corrupt)]
        let arguments = super::corrupt::corrupted_messages(arguments, self.rank(), self.world_size());
        arguments
    }

    fn launch_batch(&self, arguments: &Messages, wanted: &[Wanted], stream: &Stream) -> Result<()> {
        let members = &self.members;
        let mut uses = self.uses();
        uses.extend(wanted.iter().map(Wanted::usage));
        let longest = arguments.message.iter().map(|message| message.bytes).max().unwrap_or(0);
        let Shape { blocks, threads } = self.message_shape(longest as usize);
        self.remember(stream);
        let shape = driver::Shape::new(blocks, threads).together();
        // SAFETY: The argument is that of `kernels/messages.cu`: as many messages as it says, at most as many as there
        // is room for (`check_messages`), to and from other ranks that exist, whose buffers are as long as it says and
        // are named in `uses`. What is received overlaps with nothing else. All else is as of every call of the
        // communicator (`launch`): the arenas have slots for messages of each pair, by the layout that all ranks have
        // agreed on, and a place is of as many bytes as the buffer has. The blocks of a message follow from its length,
        // on both ranks alike, and those of all ranks' launches are resident together (`room`).
        unsafe { stream.launch(&members.kernels[&Kernel::Messages], shape, bytemuck::bytes_of(arguments), &uses) }
    }

    /// The shape of the launch of a message of so many bytes: the same on both ranks.
    pub(super) fn message_shape(&self, bytes: usize) -> Shape {
        self.members.room.shape(Kernel::Messages, bytes)
    }
}
