// SPDX-License-Identifier: MPL-2.0
//! Ranks as processes: every rank maps every rank's segment.
//!
//! A *host* is what the processes share once: the segments and the signs of life, by the ranks of the first
//! communicator, called *places* here. A communicator is a control block, the page and then the regions, in the segment
//! of each of its ranks, so a further one, of all ranks or of some, costs a control block and no new meeting. A name is
//! an offset into the namer's segment; the first control block lies at 0, and its first page is never given back, so
//! that 0 is never a buffer.
//!
//! A rank gives its control block back when all ranks have left the communicator, and with it the memory that was
//! allocated to last as long as that. Each says so in every rank's block, in a word of its own among the *departures*:
//! the block's owner then looks at its own block alone, and not at blocks that their owners may have given back before.
//!
//! After each control block there are addresses for the rank's messages to and from each of the others, committed when
//! the first is sent: since they lie where all ranks know, nothing has to be agreed on then.
#![allow(unsafe_code)] // pages and regions live in mapped memory

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity};

use super::lease::Own;
use super::liveness::{Liveness, Pulse};
use super::segment::{Segment, page_size};
use super::{descriptors, private, segment};
use crate::error::{Cause, Error, Result};
use crate::sync::AtomicU32;
use crate::sync::Ordering::{Acquire, Release};
use crate::transport::doorbell::Scope;
use crate::transport::memory::Memory;
use crate::transport::page::{CHANNELS, INLINE, Page, presence};
use crate::transport::rendezvous::Rendezvous;
use crate::transport::{Limits, PRIVATE, REGION, Transport, default_timeout, is_private, pair};

/// What the processes of one world share.
struct Host {
    place: usize,
    own: Arc<Own>,
    /// By place; this process's own is `None`.
    peers: Vec<Option<Segment>>,
    liveness: Liveness,
    roomy: bool,
    limits: Limits,
    /// By place, if all can read the private memory of all.
    readable: Option<Vec<Pid>>,
    /// Communicators that this rank has left and others perhaps not yet.
    left: Mutex<Vec<Left>>,
    _pulse: Pulse,
}

/// The control blocks of one communicator, by its ranks.
type Blocks = Box<[Block]>;

/// A communicator that this rank has left.
struct Left {
    blocks: Blocks,
    /// What this rank took for it: its control block, and what peers may look at as long as they are there.
    taken: Vec<Range<usize>>,
}

/// A rank's control block.
#[derive(Clone, Copy)]
struct Block {
    /// Whose segment it is in.
    place: usize,
    /// Where in it.
    offset: usize,
}

/// One rank's view of one communicator.
struct Processes {
    host: Arc<Host>,
    rank: usize,
    blocks: Blocks,
    /// This rank's control block with all that comes after it, and then what was allocated to last.
    taken: Mutex<Vec<Range<usize>>>,
}

/// A control block: the page, then the regions, then the departures, each from a page boundary on.
fn regions_at() -> usize {
    size_of::<Page>().next_multiple_of(page_size())
}

fn departures_at() -> usize {
    (regions_at() + CHANNELS * REGION).next_multiple_of(page_size())
}

/// Bytes of a control block of a communicator of `world` ranks.
fn block_bytes(world: usize) -> usize {
    departures_at() + (world * size_of::<AtomicU32>()).next_multiple_of(page_size())
}

fn pair_bytes() -> usize {
    pair::BYTES.next_multiple_of(page_size())
}

/// Bytes of addresses for the messages of a rank of a communicator of `world` ranks.
fn room(world: usize) -> usize {
    2 * world * pair_bytes()
}

/// What ranks tell each other when they meet: the size of the segment, something to find in private memory, the timeout,
/// what rides along, and the cores that they may use.
struct Hello {
    capacity: u64,
    sample: private::Found,
    timeout: Duration,
    limits: Limits,
    cores: Vec<u8>,
}

/// Changes whenever the layout of shared memory does: ranks of different builds must not meet.
const VERSION: u64 = 3;

impl Hello {
    fn to_bytes(&self) -> Vec<u8> {
        let layout = (departures_at() as u64) << 32 | size_of::<Page>() as u64;
        let timeout = self.timeout.as_nanos().min(u128::from(u64::MAX)) as u64;
        let private::Found { process, address, word } = self.sample;
        let (always, inline) = (self.limits.always as u64, self.limits.inline as u64);
        let words = [VERSION, layout, self.capacity, timeout, always, inline, process, address, word];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.extend(&self.cores);
        bytes
    }

    fn from_bytes(rank: usize, bytes: &[u8]) -> Result<Hello> {
        let other = || {
            Error::Mismatch(
                format!("rank {rank} runs another version of annulus; start all ranks from the same build").into(),
            )
        };
        let (words, cores) = bytes.split_at_checked(72).ok_or_else(other)?;
        let word = |i: usize| words[8 * i..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        if word(0) != VERSION || word(1) != ((departures_at() as u64) << 32 | size_of::<Page>() as u64) {
            return Err(other());
        }
        let limits = Limits { always: word(4) as usize, inline: (word(5) as usize).min(INLINE) };
        let sample = private::Found { process: word(6), address: word(7), word: word(8) };
        Ok(Hello { capacity: word(2), sample, timeout: Duration::from_nanos(word(3)), limits, cores: cores.to_vec() })
    }
}

/// The cores that this thread may run on, one bit each.
fn cores() -> Vec<u8> {
    let set = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    (0..CpuSet::MAX_CPU / 8).map(|byte| (0..8).map(|bit| u8::from(set.is_set(8 * byte + bit)) << bit).sum()).collect()
}

/// Meets the other ranks, and maps their segments. Also returns how long calls wait; of that and of the limits, rank 0's
/// word holds.
pub(crate) fn connect(rendezvous: &mut dyn Rendezvous, limits: Limits) -> Result<(Arc<dyn Transport>, Duration)> {
    let timeout = default_timeout()?;
    let deadline = Instant::now() + timeout;
    let (rank, world) = (rendezvous.rank(), rendezvous.world_size());
    let capacity = segment::Segment::capacity(world);
    let own = Own::new(Segment::create("annulus", capacity)?);
    // The first control block is the first thing in every segment.
    let block = own.take_with_room(block_bytes(world), room(world))?;
    let sample = private::Sample::new()?;
    let hello = Hello { capacity: capacity as u64, sample: sample.show(), timeout, limits, cores: cores() };
    let hellos = rendezvous.all_gather(&hello.to_bytes(), deadline)?;
    let hellos: Vec<Hello> =
        hellos.iter().enumerate().map(|(rank, bytes)| Hello::from_bytes(rank, bytes)).collect::<Result<_>>()?;
    let pulse = Pulse::of_this_process()?;
    let descriptors = {
        use std::os::fd::AsFd;
        descriptors::exchange(rendezvous, &[own.segment().as_fd(), pulse.as_fd()], deadline)?
    };
    let (mut peers, mut pulses) = (Vec::with_capacity(world), Vec::with_capacity(world));
    for (peer, (received, hello)) in descriptors.into_iter().zip(&hellos).enumerate() {
        let [segment, life] = <[_; 2]>::try_from(received)
            .map_err(|got| Error::system("meeting", format!("rank {peer} passed {} descriptors, not 2", got.len())))?;
        peers.push(if peer == rank { None } else { Some(Segment::open(segment, hello.capacity as usize)?) });
        pulses.push(life);
    }
    let reads = hellos.iter().all(|hello| private::is_readable(hello.sample));
    let all_read = rendezvous.all_gather(&[u8::from(reads)], deadline)?.iter().all(|word| word[..] == [1]);
    drop(sample); // which no peer reads any more
    let pid = |hello: &Hello| Pid::from_raw(hello.sample.process as i32);
    let readable = hellos.iter().map(pid).collect::<Option<Vec<Pid>>>().filter(|_| all_read);
    let mut all = [0_u8; CpuSet::MAX_CPU / 8];
    for hello in &hellos {
        all.iter_mut().zip(&hello.cores).for_each(|(all, cores)| *all |= cores);
    }
    let cores: u32 = all.iter().map(|byte| byte.count_ones()).sum();
    let host = Host {
        place: rank,
        own: Arc::new(own),
        peers,
        liveness: Liveness::new(pulses),
        roomy: world <= cores as usize,
        limits: hellos[0].limits,
        readable,
        left: Mutex::default(),
        _pulse: pulse,
    };
    let blocks = (0..world).map(|place| Block { place, offset: block.start }).collect();
    Ok((Arc::new(Processes { host: Arc::new(host), rank, blocks, taken: Mutex::new(vec![block]) }), hellos[0].timeout))
}

impl Host {
    /// The address of `bytes` at `offset` in a segment, if they are within it.
    fn address(&self, place: usize, offset: usize, bytes: usize) -> Option<NonNull<u8>> {
        let segment = self.peers[place].as_ref().unwrap_or(self.own.segment());
        let end = offset.checked_add(bytes)?;
        if end > segment.len() {
            return None;
        }
        NonNull::new(segment.base().as_ptr().wrapping_add(offset))
    }

    fn page(&self, block: Block) -> &Page {
        let segment = self.peers[block.place].as_ref().unwrap_or(self.own.segment());
        // SAFETY: A `Block` is made of the offset of a control block that was checked to lie within the segment when the
        // communicator was made, on page boundaries, which suffice for a `Page`'s alignment. All-zero memory, as a new
        // block is, is a valid `Page`, and every word in it is atomic or in an `UnsafeCell`, so whatever peers write it
        // stays one. The mapping lives as long as `self`.
        unsafe { &*segment.base().as_ptr().add(block.offset).cast::<Page>() }
    }

    /// The word in which `rank` says in another rank's block that it has left.
    fn departure(&self, block: Block, rank: usize) -> &AtomicU32 {
        let segment = self.peers[block.place].as_ref().unwrap_or(self.own.segment());
        // SAFETY: The departures of all ranks of the communicator lie within the segment, which was checked when it was
        // made, aligned to a page. The words are atomic wherever they are used.
        unsafe { &*segment.base().as_ptr().add(block.offset + departures_at()).cast::<AtomicU32>().add(rank) }
    }

    /// Gives back the control blocks of communicators that everybody has left.
    fn sweep(&self) {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).retain(|Left { blocks, taken }| {
            let Some(own) = blocks.iter().find(|block| block.place == self.place) else { return false };
            // Acquire: their last looks at this rank's block came before they left.
            let over = blocks
                .iter()
                .enumerate()
                .all(|(rank, block)| self.departure(*own, rank).load(Acquire) != 0 || self.liveness.dead(block.place));
            if over {
                // What lay in the first page would have the name of what peers cannot reach.
                taken.iter().for_each(|range| self.own.free(range.start.max(page_size())..range.end));
            }
            !over
        });
    }
}

impl Transport for Processes {
    fn kind(&self) -> &'static str {
        "processes"
    }

    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.blocks.len()
    }

    fn page(&self, rank: usize) -> &Page {
        self.host.page(self.blocks[rank])
    }

    fn pair_memory(&self, rank: usize, from: usize, to: usize) -> Result<NonNull<u8>> {
        let Block { place, offset } = self.blocks[rank];
        let other = if rank == from { to } else { from };
        let index = 2 * other + usize::from(rank == from);
        let start = offset + block_bytes(self.world()) + index * pair_bytes();
        let range = start..start + pair_bytes();
        // Whoever comes first commits it: the other's memory too, in which this rank will look and copy.
        let segment = self.host.peers[place].as_ref().unwrap_or(self.host.own.segment());
        segment.commit(range.clone())?;
        self.host.address(place, range.start, range.len()).ok_or_else(|| {
            Error::system("preparing for messages", format!("rank {rank}'s memory for them is not where it should be"))
        })
    }

    fn region(&self, rank: usize, channel: usize) -> NonNull<u8> {
        let offset = self.blocks[rank].offset + regions_at() + channel.min(CHANNELS - 1) * REGION;
        // Within the segment, as the block is; the fall-back is never taken.
        self.host.address(self.blocks[rank].place, offset, REGION).unwrap_or(self.host.own.segment().base())
    }

    fn name(&self, data: *const u8, bytes: usize) -> u64 {
        let private = || match (&self.host.readable, data.expose_provenance() as u64) {
            (Some(_), address) if address & PRIVATE == 0 => PRIVATE | address,
            _ => 0,
        };
        self.host.own.offset(data, bytes).map_or_else(private, |offset| offset as u64)
    }

    fn address(&self, rank: usize, name: u64, bytes: usize) -> Option<NonNull<u8>> {
        let offset = usize::try_from(name).ok().filter(|_| !is_private(name))?;
        self.host.address(self.blocks[rank].place, offset, bytes)
    }

    fn reads(&self) -> bool {
        self.host.readable.is_some()
    }

    fn read(&self, rank: usize, address: usize, to: &mut [u8]) -> Result<bool> {
        let Some(readable) = &self.host.readable else {
            return Err(Error::unsupported("the ranks may not read each other's private memory"));
        };
        private::read(readable[self.blocks[rank].place], address, to)
    }

    fn allocate(&self, bytes: usize) -> Result<Memory> {
        self.host.sweep();
        self.host.own.lease(bytes)
    }

    fn allocate_lasting(&self, bytes: usize) -> Result<NonNull<u8>> {
        let range = self.host.own.take(bytes)?;
        let address = self.host.own.address(range.start);
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).push(range);
        Ok(address)
    }

    fn gone(&self, rank: usize) -> Option<Cause> {
        let dead = self.host.liveness.dead(self.blocks[rank].place);
        // After the death was seen, so that a rank that left in order is not called dead. Acquire: what it did before it
        // left is visible to whoever then looks at its flags once more.
        match self.page(rank).presence.load(Acquire) {
            presence::LEFT => Some(Cause::Left),
            presence::HERE if !dead => None,
            _ => Some(Cause::Died),
        }
    }

    fn isolate(&self, outputs: &[(NonNull<u8>, usize)]) {
        // SAFETY: The outputs are those of this rank's failing calls, which hold them exclusively, and with them their
        // pages: `Shared` hands out whole pages, and splits only at page boundaries. Sharing ends with the failure: the
        // communicator makes no further calls, and pages that are noted as private are not named by others.
        if unsafe { self.host.own.isolate(outputs) }.is_err() {
            self.wait_for_windows();
        }
    }

    fn limits(&self) -> Limits {
        self.host.limits
    }

    fn bed(&self) -> Scope {
        Scope::Processes
    }

    fn is_roomy(&self) -> bool {
        self.host.roomy
    }

    fn prepare(&self) -> Result<u64> {
        self.host.sweep();
        // How many ranks the new communicator has is not known yet; no more than this one.
        Ok(self.host.own.take_with_room(block_bytes(self.world()), room(self.world()))?.start as u64)
    }

    fn discard(&self, token: u64) {
        let start = token as usize;
        let bytes = block_bytes(self.world()) + room(self.world());
        self.host.own.free(start..start + bytes);
    }

    fn join(&self, _call: u64, members: &[(usize, u64)]) -> Result<Arc<dyn Transport>> {
        let mut blocks = Vec::with_capacity(members.len());
        for &(rank, token) in members {
            let (place, offset) = (self.blocks[rank].place, token as usize);
            let bytes = block_bytes(members.len()) + room(members.len());
            if self.host.address(place, offset, bytes).is_none() || !offset.is_multiple_of(page_size()) {
                let named = format!("rank {rank} named memory that it does not have");
                return Err(Error::system("making a further communicator", named));
            }
            blocks.push(Block { place, offset });
        }
        let Some(rank) = blocks.iter().position(|block| block.place == self.host.place) else {
            return Err(Error::invalid(format!("rank {} is no member of what it joins", self.rank)));
        };
        let own = blocks[rank].offset;
        // As `prepare` has taken it, for as many ranks as there are here.
        let block = own..own + block_bytes(self.world()) + room(self.world());
        let taken = Mutex::new(vec![block]);
        Ok(Arc::new(Processes { host: self.host.clone(), rank, blocks: blocks.into(), taken }))
    }

    fn leave(&self, panicking: bool) {
        let word = if panicking { presence::PANICKED } else { presence::LEFT };
        self.page(self.rank).presence.store(word, Release);
        // After a failure a stopped peer may still write here when it wakes, so the block is not used again.
        if self.page(0).poisoned_by().is_none() {
            for block in &self.blocks {
                // Release: what this rank did in the block came before.
                self.host.departure(*block, self.rank).store(1, Release);
            }
            let taken = std::mem::take(&mut *self.taken.lock().unwrap_or_else(PoisonError::into_inner));
            let left = Left { blocks: self.blocks.clone(), taken };
            self.host.left.lock().unwrap_or_else(PoisonError::into_inner).push(left);
        }
    }

    fn footprint(&self) -> usize {
        block_bytes(self.world())
    }
}

impl Processes {
    /// Where pages could not be exchanged, since the kernel refused another mapping: until no peer that lives is in a
    /// window. Nothing less would keep it from writing to what its user has back.
    fn wait_for_windows(&self) {
        for rank in (0..self.world()).filter(|rank| *rank != self.rank) {
            let page = self.page(rank);
            if let Some(turn) = page.open_turn() {
                while !page.window_moved(turn) && !self.host.liveness.dead(self.blocks[rank].place) {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
    }
}
