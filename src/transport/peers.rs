// SPDX-License-Identifier: MPL-2.0
//! The words that a rank looks at in every call, found once.
//!
//! A small call looks a dozen times at its peers' words. Through the transport each look is a virtual call or two, which
//! together cost a fifth of what such a call takes.
#![allow(unsafe_code)] // keeps where the transport's pages are

use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

use super::Transport;
use super::page::{CHANNELS, Channel, Page};

/// A transport, and where its ranks' words are.
pub(crate) struct Peers {
    transport: Arc<dyn Transport>,
    rank: usize,
    world: usize,
    root: NonNull<Page>,
    /// Of each rank in turn.
    pages: Vec<NonNull<Page>>,
    channels: Vec<NonNull<Channel>>,
}

// SAFETY: What the pointers lead to is shared by threads and processes anyway: a `Page` and a `Channel` are `Sync`.
unsafe impl Send for Peers {}
// SAFETY: As above.
unsafe impl Sync for Peers {}

impl Peers {
    pub fn of(transport: Arc<dyn Transport>) -> Self {
        let (rank, world) = (transport.rank(), transport.world());
        let places = (0..world).flat_map(|rank| (0..CHANNELS).map(move |channel| (rank, channel)));
        Peers {
            root: transport.root().into(),
            pages: (0..world).map(|rank| transport.page(rank).into()).collect(),
            channels: places.map(|(rank, channel)| transport.channel(rank, channel).into()).collect(),
            rank,
            world,
            transport,
        }
    }

    /// The transport itself.
    pub fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    #[inline]
    pub fn rank(&self) -> usize {
        self.rank
    }

    #[inline]
    pub fn world(&self) -> usize {
        self.world
    }

    #[inline]
    pub fn root(&self) -> &Page {
        // SAFETY: A transport's pages are where they are for as long as it lives, which it does in `self`.
        unsafe { self.root.as_ref() }
    }

    #[inline]
    pub fn page(&self, rank: usize) -> &Page {
        // SAFETY: As in `root`.
        unsafe { self.pages[rank].as_ref() }
    }

    #[inline]
    pub fn channel(&self, rank: usize, channel: usize) -> &Channel {
        // SAFETY: As in `root`.
        unsafe { self.channels[rank * CHANNELS + channel].as_ref() }
    }
}

/// For all that is not looked at in every call.
impl Deref for Peers {
    type Target = dyn Transport;

    fn deref(&self) -> &Self::Target {
        &*self.transport
    }
}
