// SPDX-License-Identifier: MPL-2.0
//! The words that ranks share: one [`Page`] a rank and communicator.
//!
//! # Who writes which word
//!
//! | word | written by | read by |
//! |---|---|---|
//! | `entries[..]` | the page's rank, before it publishes `epoch` with release | all ranks, after they acquired `epoch` |
//! | `summaries[..]` | the page's rank, if it leads a group, before it publishes `epoch` with release | all ranks, after they acquired `epoch` |
//! | `flags[..]` | the page's rank, growing, with release | ranks that wait for it, with acquire |
//! | `awaited` | the page's rank, before it sleeps for the sake of a flag | a rank whose deadline has passed |
//! | `window` | the page's rank | a rank that fails |
//! | `poison` | whoever fails first, by compare-exchange from 0; **rank 0's page only** | all ranks |
//! | `failure` | the page's rank, once, before it sets `poison` | all ranks, after they acquired `poison` |
//! | `presence` | the page's rank, when it leaves | ranks that miss it |
//! | `doorbell` | `sleepers`: the page's rank; `word`: whoever wakes it | see [`super::waiting`] |
//!
//! All-zero memory is a page whose rank has done nothing yet, so that a page in fresh shared memory needs no
//! initialisation, and hence no race about it.
//!
//! # Entry: two records a channel suffice
//!
//! Rank r enters the e-th call of a channel (e = 1, 2, ..) by filling `entries[e mod 2]` and publishing epoch e in it;
//! it passes the entry when it has seen epoch e from every rank. It posts e + 1 only after it has *completed* e, which
//! includes its last look at anyone's record of e.
//!
//! - A record is not overwritten while a peer may read it. Record e of rank r is overwritten by e + 2. Rank r posts
//!   e + 2 after completing e + 1, hence after every rank p posted e + 1, hence after every p completed e, and p looks
//!   at records of e only until then. With one record, e + 1 would overwrite e while p still reads it.
//! - Comparing for equality suffices. While p waits to see e in `entries[e mod 2]`, that word can hold only 0, e - 2 or
//!   e: e + 2 would need p's completion of e + 1.
//! - The release store of `epoch` and the acquire load that sees it order the record's contents before their readers.
//!   The next overwrite is ordered after them: p's reads of e precede p's release of epoch e + 1, which r acquired.
//!
//! # Entry in groups: two summaries a channel suffice
//!
//! In a larger world (see [`super::groups`]) a rank does not look at every record. A leader l publishes summary e in
//! `summaries[e mod 2]` when it has seen epoch e in the records of its group; a rank passes the entry when it has seen
//! summary e of every leader.
//!
//! - Every rank's entry happens before every rank's passing. Member m's release of its record's epoch e was acquired by
//!   its leader, which then released its summary's epoch e, which p acquired; happens-before is transitive, so p may read
//!   record e of m without having looked at its epoch. Were the summary's store relaxed, or made before m's record was
//!   seen, p would read what m is still writing: both are broken variants that loom catches.
//! - Hence the proof above holds as it stands for records: that r completed e + 1 still means that every p posted e + 1,
//!   and so completed e, and that p's reads of e happen before what r writes next.
//! - A summary is not overwritten while a rank may read it. Leader l publishes e + 2 after its group, itself among them,
//!   posted e + 2, hence after l completed e + 1, hence after every p posted e + 1 and so completed e. With one summary,
//!   l would publish e + 1 as soon as its own group has completed e, when p of another group may not have seen e yet: p
//!   would wait for e for ever, or read half of either.
//! - Comparing for equality suffices, as above: e + 2 would need p's completion of e + 1.

#![allow(unsafe_code)] // one promise, about payloads

use crossbeam::utils::CachePadded;

use crate::sync::{AtomicU32, AtomicU64, UnsafeCell};

/// Calls of one communicator that may proceed together.
pub(crate) const CHANNELS: usize = if cfg!(annulus_loom) { 1 } else { 8 };
/// Flags a rank and channel.
pub(crate) const FLAGS: usize = if cfg!(annulus_loom) { 1 } else { 8 };
/// The most bytes of a contribution that ride in the entry record.
pub(crate) const INLINE: usize = if cfg!(annulus_loom) { 1 } else { 8192 };
/// What the record of a rank says for its region whose contribution rides along: no region lies there.
pub(crate) const CARRIED: u64 = u64::MAX;
/// Words of a descriptor.
pub(crate) const DESCRIPTOR: usize = if cfg!(annulus_loom) { 1 } else { 9 };
/// Bytes of a failure's sentence; longer ones are cut.
const SENTENCE: usize = if cfg!(annulus_loom) { 8 } else { 1024 };

/// What one rank shares with the others in one communicator.
#[repr(C, align(128))]
pub(crate) struct Page {
    /// Odd while this rank may touch other ranks' buffers.
    pub window: CachePadded<AtomicU64>,
    /// Of rank 0's page only: 0, or 1 + the rank whose `failure` tells why this communicator failed.
    pub poison: CachePadded<AtomicU64>,
    /// How this rank is woken.
    pub doorbell: CachePadded<Doorbell>,
    /// Whether this rank is still there: see [`presence`].
    pub presence: CachePadded<AtomicU32>,
    /// Why this rank failed the communicator.
    pub failure: Failure,
    /// One a call that may be in flight.
    pub channels: [Channel; CHANNELS],
}

/// Values of [`Page::presence`].
pub(crate) mod presence {
    /// The rank has not left.
    pub const HERE: u32 = 0;
    /// It dropped its communicator.
    pub const LEFT: u32 = 1;
    /// It is being unwound by a panic.
    pub const PANICKED: u32 = 2;
}

/// The words of [`super::waiting`].
#[repr(C)]
pub(crate) struct Doorbell {
    pub word: AtomicU32,
    pub sleepers: AtomicU32,
}

/// What one call needs: the entry and the flags.
#[repr(C)]
pub(crate) struct Channel {
    pub entries: [EntryRecord; 2],
    /// Of the first rank of each group, in a world that has groups.
    pub summaries: [Summary; 2],
    pub flags: [CachePadded<AtomicU64>; FLAGS],
    /// Whose flag this rank last slept for: see [`Channel::note_awaited`].
    pub awaited: AtomicU64,
}

/// What a rank says when it enters a call. The words that every call reads, and the first bytes of the payload, share
/// the first cache line.
#[repr(C, align(128))]
pub(crate) struct EntryRecord {
    /// Which call of the channel this record is of; published last.
    pub epoch: AtomicU64,
    /// The hash of the descriptor, which is what ranks compare.
    pub hash: AtomicU64,
    /// When the rank arrived, in ticks.
    pub stamp: AtomicU64,
    /// Where the input is, as the transport names places; 0: in private memory.
    pub input: AtomicU64,
    /// Where the output is, likewise.
    pub output: AtomicU64,
    /// Where the shared scratch of a user's own schedule is, likewise; [`CARRIED`] if the contribution rides along.
    pub region: AtomicU64,
    /// The contribution, where it is small enough to ride along.
    pub payload: Payload,
    /// What is called, in full; read only when hashes differ.
    pub descriptor: [AtomicU64; DESCRIPTOR],
}

/// What a group of ranks says when all of it has entered a call, in one cache line; the words of
/// [`Gathered`](super::groups::Gathered).
#[repr(C, align(128))]
pub(crate) struct Summary {
    /// Which call of the channel this summary is of; published last.
    pub epoch: AtomicU64,
    /// The hash of the leader's descriptor.
    pub hash: AtomicU64,
    /// Not 0 if it is the hash of all.
    pub agreed: AtomicU64,
    /// When the last of the group arrived, in ticks.
    pub stamp: AtomicU64,
    /// The rank that did.
    pub last: AtomicU64,
    /// Not 0 if all contributions ride along.
    pub carried: AtomicU64,
    /// What can be done with the group's buffers.
    pub reach: AtomicU64,
}

/// Plain bytes, ordered by the epoch of their record.
#[repr(C, align(16))]
pub(crate) struct Payload(pub UnsafeCell<[u8; INLINE]>);

// SAFETY: the bytes are written by their rank alone, before it publishes the record's epoch, and read by others only
// between seeing that epoch and the end of the call: the module's proof shows that the two never overlap.
unsafe impl Sync for Payload {}

/// Why a rank failed its communicator, for the others to render.
#[repr(C)]
pub(crate) struct Failure {
    /// Which kind of error.
    pub kind: AtomicU32,
    /// The lost rank, of a rank that was lost.
    pub rank: AtomicU32,
    /// The cause of its loss.
    pub cause: AtomicU32,
    /// The missing ranks of a timeout, one bit a rank; ranks from 256 on are named in the sentence alone.
    pub missing: [AtomicU64; 4],
    /// Bytes of the sentence.
    pub length: AtomicU32,
    /// The sentence, in words of eight bytes.
    pub sentence: [AtomicU64; SENTENCE / 8],
}

impl Failure {
    /// Stores the sentence, cut at a character if it is too long. Relaxed: `poison` publishes it.
    pub fn write_sentence(&self, sentence: &str) {
        use crate::sync::Ordering::Relaxed;
        let mut end = sentence.len().min(SENTENCE);
        while !sentence.is_char_boundary(end) {
            end -= 1;
        }
        for (word, bytes) in self.sentence.iter().zip(sentence.as_bytes()[..end].chunks(8)) {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_ne_bytes(padded), Relaxed);
        }
        self.length.store(end as u32, Relaxed);
    }

    /// The sentence that was stored.
    pub fn read_sentence(&self) -> String {
        use crate::sync::Ordering::Relaxed;
        let length = (self.length.load(Relaxed) as usize).min(SENTENCE);
        let mut bytes: Vec<u8> = self.sentence.iter().flat_map(|word| word.load(Relaxed).to_ne_bytes()).collect();
        bytes.truncate(length);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Page {
    /// A page of a rank that has done nothing yet.
    pub fn new() -> Self {
        let word = || CachePadded::new(AtomicU64::new(0));
        Page {
            window: word(),
            poison: word(),
            doorbell: CachePadded::new(Doorbell { word: AtomicU32::new(0), sleepers: AtomicU32::new(0) }),
            presence: CachePadded::new(AtomicU32::new(presence::HERE)),
            failure: Failure {
                kind: AtomicU32::new(0),
                rank: AtomicU32::new(0),
                cause: AtomicU32::new(0),
                missing: std::array::from_fn(|_| AtomicU64::new(0)),
                length: AtomicU32::new(0),
                sentence: std::array::from_fn(|_| AtomicU64::new(0)),
            },
            channels: std::array::from_fn(|_| Channel {
                entries: std::array::from_fn(|_| EntryRecord::new()),
                summaries: std::array::from_fn(|_| Summary::new()),
                flags: std::array::from_fn(|_| word()),
                awaited: AtomicU64::new(0),
            }),
        }
    }
}

impl EntryRecord {
    fn new() -> Self {
        EntryRecord {
            epoch: AtomicU64::new(0),
            hash: AtomicU64::new(0),
            stamp: AtomicU64::new(0),
            input: AtomicU64::new(0),
            output: AtomicU64::new(0),
            region: AtomicU64::new(0),
            payload: Payload(UnsafeCell::new([0; INLINE])),
            descriptor: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl Summary {
    fn new() -> Self {
        let word = || AtomicU64::new(0);
        Summary {
            epoch: word(),
            hash: word(),
            agreed: word(),
            stamp: word(),
            last: word(),
            carried: word(),
            reach: word(),
        }
    }
}
