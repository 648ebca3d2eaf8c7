// SPDX-License-Identifier: MPL-2.0
//! Access windows and poison: how a failing call makes sure that nobody touches its buffers any more.
//!
//! A rank touches peers' buffers only inside a window. To open it, it marks its own window word, fences, and reads the
//! poison. To fail, a rank sets the poison, fences, and reads the windows.
//!
//! # Why that suffices (Dekker's argument)
//!
//! Let A open a window and B fail. Both fences are sequentially consistent, so one comes before the other.
//!
//! - A's fence first: then B, which reads A's window after its own fence, sees it open (or a later value). It waits
//!   until the word has changed; every store to it is a release, so whichever B's acquire load sees, the closing or a
//!   later opening, A's accesses in the window that B saw are over.
//! - B's fence first: then A, which reads the poison after its own fence, sees it, touches nothing and closes.
//!
//! Without either fence both may read the old values (store buffers delay the stores), and A would write into memory
//! that B has given back: `loom` finds that in the variant with the fence taken out.
//!
//! A rank that fails later than the first also comes through here: the poison is set already, the rest is the same.
//!
//! Among processes, where a peer may have been stopped in a window, nobody waits for those that only read. They look at
//! the poison once more when they have read ([`Page::was_sound`]), since what was read may be anything if it is set.

use super::page::Page;
use crate::sync::{
    Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst},
    fence,
};

/// The fence between the two accesses of either side. The broken variant, for the model checker to catch, has none.
#[inline]
fn barrier() {
    if !cfg!(annulus_broken_window) {
        fence(SeqCst);
    }
}

impl Page {
    /// Opens this rank's window, unless the communicator is poisoned: then the window is closed again and the answer
    /// is `false`. `root` is rank 0's page, where the poison is.
    #[inline]
    pub fn open_window(&self, root: &Page) -> bool {
        // Relaxed: the window's word has one writer.
        let turn = self.window.load(Relaxed) + 1;
        // Release: who waited for the last window and missed its closing finds here that it moved, and must see that
        // window's accesses done. The fence orders this store before the poison's load.
        self.window.store(turn, Release);
        barrier();
        if root.poison.load(Relaxed) == 0 {
            return true;
        }
        self.window.store(turn + 1, Release);
        false
    }

    /// Closes the window: release, so that whoever sees it closed sees the accesses done.
    #[inline]
    pub fn close_window(&self) {
        self.window.store(self.window.load(Relaxed) + 1, Release);
    }

    /// Whether what this thread has read of peers' buffers until now is good: nobody had failed before, and been given
    /// its buffers back. Of rank 0's page. Whoever fails sets or sees the poison, and fences, before it returns; so who
    /// has read what was written later finds the poison behind the fence here.
    #[inline]
    pub fn was_sound(&self) -> bool {
        // The broken variant has none here either.
        if !cfg!(annulus_broken_window) {
            fence(Acquire);
        }
        self.poisoned_by().is_none()
    }

    /// Sets the poison, unless somebody was first. Acquire-release: the reporter's `failure` is published with it, and
    /// the winner's is visible to a loser.
    pub fn set_poison(&self, reporter: usize) {
        let _ = self.poison.compare_exchange(0, reporter as u64 + 1, AcqRel, Acquire);
        barrier();
    }

    /// The rank that reported the first failure, if there was one.
    #[inline]
    pub fn poisoned_by(&self) -> Option<usize> {
        (self.poison.load(Acquire) as usize).checked_sub(1)
    }

    /// The open window of this page's rank, if it is open. To be asked after [`Page::set_poison`] by the same thread;
    /// the window is closed once [`Page::window_moved`] says so.
    pub fn open_turn(&self) -> Option<u64> {
        let turn = self.window.load(Acquire);
        (turn & 1 == 1).then_some(turn)
    }

    /// Whether the window that was seen open as `turn` has been closed since.
    pub fn window_moved(&self, turn: u64) -> bool {
        self.window.load(Acquire) != turn
    }
}
