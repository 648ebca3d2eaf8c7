// SPDX-License-Identifier: MPL-2.0
//! The descriptors of calls in full, in each rank's arena, where peers read them when hashes differ.
//!
//! A call's descriptor is written when it is enqueued or captured, by a stream of the communicator's own: nobody waits
//! for that, and whoever reads looks again where it is not there yet. A descriptor that is still on the board is not
//! written again. There are 256 places, used in turn.

use std::cell::RefCell;

use super::join::Members;
use crate::error::Result;

/// Descriptors that a board has.
const PLACES: usize = 256;

/// Words of a descriptor: that of the host's calls, and the algorithm.
pub(super) const WORDS: usize = crate::transport::page::DESCRIPTOR + 1;

/// A hash and the descriptor behind it, in words.
const PLACE: usize = WORDS + 1;

/// Bytes of a board.
pub(super) const BYTES: usize = PLACES * PLACE * 8;

/// What this rank has posted.
pub(super) struct Board {
    /// By place.
    hashes: RefCell<Vec<u64>>,
    next: std::cell::Cell<usize>,
}

impl Board {
    pub fn new() -> Self {
        Board { hashes: RefCell::default(), next: std::cell::Cell::new(0) }
    }

    /// Posts a descriptor, if it is not on the board.
    pub fn post(&self, members: &Members, hash: u64, words: &[u64; WORDS]) -> Result<()> {
        let mut hashes = self.hashes.borrow_mut();
        if hashes.contains(&hash) {
            return Ok(());
        }
        let place = self.next.get();
        let mut posted = [hash; PLACE];
        posted[1..].copy_from_slice(words);
        let begin = members.board + place * PLACE * 8;
        let arena = members.arenas[members.rank].part(begin..begin + PLACE * 8)?;
        members.stream.write(&arena, bytemuck::cast_slice(&posted))?;
        match hashes.get_mut(place) {
            Some(old) => *old = hash,
            None => hashes.push(hash),
        }
        self.next.set((place + 1) % PLACES);
        Ok(())
    }
}

impl Members {
    /// The descriptor that a rank has posted with this hash, if it is there.
    pub fn posted(&self, rank: usize, hash: u64) -> Option<[u64; WORDS]> {
        let board = self.arenas[rank].part(self.board..self.board + BYTES).ok()?;
        let words: Vec<u64> = bytemuck::pod_collect_to_vec(&self.stream.read(&board).ok()?);
        let (places, _) = words.as_chunks::<PLACE>();
        let place = places.iter().find(|place| place[0] == hash && place[1..].iter().any(|word| *word != 0))?;
        Some(std::array::from_fn(|word| place[1 + word]))
    }
}
