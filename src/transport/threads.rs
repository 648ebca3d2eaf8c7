// SPDX-License-Identifier: MPL-2.0
//! Ranks as threads of one process: an address is an address, and every slice is directly reachable.
//!
//! The world (pages and regions) is shared ownership of all its ranks, so nothing a late reader may look at goes away
//! under it. A failing call waits for the peers' open windows to close: they are threads of this process, inside a
//! copy or a fold, and will get there.

use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use super::doorbell::Scope;
use super::memory::Memory;
use super::page::{CHANNELS, Page, presence};
use super::{Limits, MOST_RANKS, REGION, Transport, pair};
use crate::error::{Cause, Error, Result};
use crate::sync::Ordering::{Acquire, Release};

/// What the ranks of one communicator share.
struct World {
    pages: Box<[Page]>,
    /// Every rank's regions, rank by rank.
    regions: Memory,
    roomy: bool,
    limits: Limits,
    /// Communicators that are being made from this one, by the call that makes them and their first rank here, with the
    /// number of ranks yet to fetch them.
    children: Mutex<HashMap<(u64, usize), Unfetched>>,
    /// Each rank's memory for messages, by the rank, the sender and the receiver.
    pairs: Mutex<HashMap<[usize; 3], Memory>>,
    /// Memory that any rank may look at as long as the world exists.
    lasting: Mutex<Vec<Memory>>,
}

/// A world that so many of its ranks have yet to fetch, or why there is none.
type Unfetched = (Result<Arc<World>>, usize);

impl World {
    fn new(ranks: usize, roomy: bool, limits: Limits) -> Result<Self> {
        Ok(World {
            pages: (0..ranks).map(|_| Page::new()).collect(),
            regions: Memory::from_heap(ranks * CHANNELS * REGION)?,
            roomy,
            limits,
            children: Mutex::default(),
            pairs: Mutex::default(),
            lasting: Mutex::default(),
        })
    }
}

/// One rank's view of it.
pub(crate) struct Threads {
    rank: usize,
    world: Arc<World>,
}

/// A world of `ranks` threads: one transport for each.
pub(crate) fn world(ranks: usize, limits: Limits) -> Result<Vec<Arc<dyn Transport>>> {
    if ranks == 0 || ranks > MOST_RANKS {
        return Err(Error::invalid(format!("a world has 1 to {MOST_RANKS} ranks; {ranks} were asked for")));
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let world = Arc::new(World::new(ranks, ranks <= cores, limits)?);
    Ok((0..ranks).map(|rank| Arc::new(Threads { rank, world: world.clone() }) as Arc<dyn Transport>).collect())
}

impl Transport for Threads {
    fn kind(&self) -> &'static str {
        "threads"
    }

    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.world.pages.len()
    }

    fn page(&self, rank: usize) -> &Page {
        &self.world.pages[rank]
    }

    fn pair_memory(&self, rank: usize, from: usize, to: usize) -> Result<NonNull<u8>> {
        let mut pairs = self.world.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(memory) = pairs.get(&[rank, from, to]) {
            return Ok(memory.data());
        }
        let memory = Memory::from_heap(pair::BYTES)?;
        Ok(pairs.entry([rank, from, to]).or_insert(memory).data())
    }

    fn region(&self, rank: usize, channel: usize) -> NonNull<u8> {
        assert!(
            rank < self.world() && channel < CHANNELS,
            "a program's ranks and channels are checked when it is loaded"
        );
        let data = self.world.regions.data().as_ptr();
        // The index is within the allocation made in `World::new`, so the address neither wraps nor is null.
        NonNull::new(data.wrapping_add((rank * CHANNELS + channel) * REGION)).unwrap_or(self.world.regions.data())
    }

    fn name(&self, data: *const u8, _bytes: usize) -> u64 {
        data.expose_provenance() as u64
    }

    fn address(&self, _rank: usize, name: u64, _bytes: usize) -> Option<NonNull<u8>> {
        NonNull::new(std::ptr::with_exposed_provenance_mut(name as usize))
    }

    fn read(&self, _: usize, _: usize, _: &mut [u8]) -> Result<bool> {
        Err(Error::unsupported("threads have no private memory"))
    }

    fn allocate(&self, bytes: usize) -> Result<Memory> {
        Memory::from_heap(bytes)
    }

    fn allocate_lasting(&self, bytes: usize) -> Result<NonNull<u8>> {
        let memory = Memory::from_heap(bytes)?;
        let data = memory.data();
        self.world.lasting.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
        Ok(data)
    }

    fn gone(&self, rank: usize) -> Option<Cause> {
        // Acquire: what the rank did before it left is visible to whoever then looks at its flags once more.
        match self.page(rank).presence.load(Acquire) {
            presence::HERE => None,
            presence::LEFT => Some(Cause::Left),
            _ => Some(Cause::Died),
        }
    }

    fn isolate(&self, _outputs: &[(NonNull<u8>, usize)]) {
        for (rank, page) in self.world.pages.iter().enumerate() {
            if rank == self.rank {
                continue;
            }
            if let Some(turn) = page.open_turn() {
                while !page.window_moved(turn) {
                    crate::sync::yield_now();
                }
            }
        }
    }

    fn limits(&self) -> Limits {
        self.world.limits
    }

    fn bed(&self) -> Scope {
        Scope::Threads
    }

    fn is_roomy(&self) -> bool {
        self.world.roomy
    }

    fn prepare(&self) -> Result<u64> {
        Ok(0)
    }

    fn discard(&self, _: u64) {}

    fn join(&self, call: u64, members: &[(usize, u64)]) -> Result<Arc<dyn Transport>> {
        let Some(rank) = members.iter().position(|(member, _)| *member == self.rank) else {
            return Err(Error::invalid(format!("rank {} is no member of what it joins", self.rank)));
        };
        let made = (call, members[0].0);
        let mut children = self.world.children.lock().unwrap_or_else(PoisonError::into_inner);
        let (world, absent) = match children.remove(&made) {
            Some((world, absent)) => (world, absent - 1),
            // Where the ranks of this world share cores, those of a part of it do.
            None => {
                let world = World::new(members.len(), self.world.roomy, self.world.limits);
                (world.map(Arc::new), members.len() - 1)
            }
        };
        if absent > 0 {
            children.insert(made, (world.clone(), absent));
        }
        Ok(Arc::new(Threads { rank, world: world? }))
    }

    fn leave(&self, panicking: bool) {
        let word = if panicking { presence::PANICKED } else { presence::LEFT };
        self.page(self.rank).presence.store(word, Release);
    }

    fn footprint(&self) -> usize {
        CHANNELS * REGION + size_of::<Page>()
    }
}
