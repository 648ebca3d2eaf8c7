// SPDX-License-Identifier: MPL-2.0
//! Which devices reach each other, and their contexts. What the driver has answered once holds for good.
#![allow(unsafe_code)]

use std::sync::OnceLock;

use super::super::backend::Failure;
use super::context::{Context, Ordinal};
use super::fault::{Fault, number, refused};

/// The devices that the driver shows, as one of them sees them.
pub(super) struct Peers {
    own: usize,
    all: Vec<Peer>,
}

struct Peer {
    ordinal: Ordinal,
    identity: [u8; 16],
    context: OnceLock<Context>,
    reached: OnceLock<bool>,
    enabled: OnceLock<()>,
}

impl Peers {
    pub fn new(context: &Context, own: usize) -> Result<Peers, Fault> {
        let library = context.ordinal.library;
        let peer = |index| {
            let ordinal = Ordinal::new(library, index)?;
            let (context, reached, enabled) = Default::default();
            Ok(Peer { ordinal, identity: ordinal.identity()?, context, reached, enabled })
        };
        Ok(Peers { own, all: (0..super::count(library)?).map(peer).collect::<Result<_, Fault>>()? })
    }

    /// The number of the device of that identity, if the driver shows it.
    pub fn find(&self, identity: [u8; 16]) -> Option<usize> {
        self.all.iter().position(|peer| peer.identity == identity)
    }

    fn get(&self, index: usize) -> Result<&Peer, Failure> {
        let count = self.all.len();
        let none = || refused("peers", number::INVALID_DEVICE, format!("no device {index} among {count}"));
        self.all.get(index).ok_or_else(none)
    }

    pub fn reaches(&self, own: &Context, index: usize) -> Result<bool, Failure> {
        let peer = self.get(index)?;
        if index == self.own {
            return Ok(true);
        }
        if let Some(reached) = peer.reached.get() {
            return Ok(*reached);
        }
        let reached = own.ordinal.reaches(peer.ordinal)?;
        Ok(*peer.reached.get_or_init(|| reached))
    }

    /// The context of a device.
    pub fn context<'a>(&'a self, own: &'a Context, index: usize) -> Result<&'a Context, Failure> {
        if index == self.own {
            return Ok(own);
        }
        let peer = self.get(index)?;
        if let Some(context) = peer.context.get() {
            return Ok(context);
        }
        let context = Context::retain(peer.ordinal)?;
        Ok(peer.context.get_or_init(|| context))
    }

    /// Lets the device address another's memory.
    pub fn enable(&self, own: &Context, index: usize) -> Result<(), Failure> {
        let peer = self.get(index)?;
        if index == self.own || peer.enabled.get().is_some() {
            return Ok(());
        }
        let theirs = self.context(own, index)?;
        // SAFETY: both contexts live for good.
        match unsafe { own.enter()?.enable_peer(theirs.place) } {
            // Somebody else did, which is as good.
            Err(fault) if fault.code != number::PEER_ACCESS_ALREADY_ENABLED => Err(fault.into()),
            _ => {
                peer.enabled.get_or_init(|| ());
                Ok(())
            }
        }
    }
}
