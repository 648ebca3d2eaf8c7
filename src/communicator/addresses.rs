// SPDX-License-Identifier: MPL-2.0
//! Where the memory of a call is: the ranks' names for it, turned into addresses of this rank.
#![allow(unsafe_code)] // addresses go from thread to thread with the calls that they are of

use super::plan::Plan;
use crate::error::{Error, Result};
use crate::schedule::{Access, Buffer, Place};
use crate::transport::page::EntryRecord;
use crate::transport::{PRIVATE, Transport, is_private};

/// A run of a rank's own memory. Null and empty where a rank has none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub data: *mut u8,
    pub bytes: usize,
}

// SAFETY: an address and a length; the memory behind it is lent to the engine until the call has ended.
unsafe impl Send for Run {}

/// The memory of one call, as this rank addresses it: one pointer a rank. The entries of buffers that a program may not
/// reach are null, and loading has checked that it does not.
#[derive(Default)]
pub(crate) struct Addresses {
    pub inputs: Vec<*mut u8>,
    pub outputs: Vec<*mut u8>,
    pub regions: Vec<*mut u8>,
    /// Whose inputs and outputs are not here, but in private memory of those ranks, and their addresses there.
    pub away: Vec<[bool; 2]>,
}

// SAFETY: addresses are values; who dereferences them, and when, is the executor's affair.
unsafe impl Send for Addresses {}

impl Addresses {
    /// For `world` ranks, none of them known yet.
    pub fn of(world: usize) -> Self {
        let none = || vec![std::ptr::null_mut(); world];
        Addresses { inputs: none(), outputs: none(), regions: none(), away: vec![[false; 2]; world] }
    }

    /// Whether a place is in a peer's private memory.
    pub fn is_away(&self, place: &Place) -> bool {
        let [input, output] = self.away[place.rank];
        match place.buffer {
            Buffer::Input => input,
            Buffer::Output => output,
            Buffer::Scratch | Buffer::Slot(_) | Buffer::Partial(_) => false,
        }
    }

    /// For a call whose contributions lie in the entry records: this rank's buffers, and every rank's payload.
    pub fn find_payloads<'r>(
        &mut self,
        rank: usize,
        (input, output): (Run, Run),
        records: impl Iterator<Item = &'r EntryRecord>,
    ) {
        (self.inputs[rank], self.outputs[rank]) = (input.data, output.data);
        for (region, record) in self.regions.iter_mut().zip(records) {
            *region = record.payload.0.get().cast();
        }
    }

    /// Every rank's buffers and region by what the entry records name. What all ranks can do with all buffers: all see
    /// the same names, so all come to the same answer.
    pub fn find<'r>(
        &mut self,
        transport: &dyn Transport,
        channel: usize,
        plan: &Plan,
        (input, output): (Run, Run),
        records: impl Iterator<Item = &'r EntryRecord>,
    ) -> Result<Access> {
        let (collective, size) = (plan.descriptor.collective, plan.descriptor.data_type.size());
        let (mut access, mut found) = (Access::Direct, true);
        for (peer, record) in records.enumerate() {
            let arrival = record.arrival();
            let lengths = (plan.layout.input_len(collective, peer), plan.layout.output_len(collective, peer));
            for (which, (addresses, name, length, own)) in [
                (&mut self.inputs, arrival.input, lengths.0, input),
                (&mut self.outputs, arrival.output, lengths.1, output),
            ]
            .into_iter()
            .enumerate()
            {
                let is_here = length == 0 || !is_private(name) || transport.world() == 1;
                let is_away = !is_here && name != 0;
                access = access.max(match (is_here, is_away) {
                    (true, _) => Access::Direct,
                    (false, true) => Access::Read,
                    (false, false) => Access::Staged,
                });
                let is_own = peer == transport.rank();
                self.away[peer][which] = is_away && !is_own;
                addresses[peer] = match transport.address(peer, name, length * size) {
                    _ if is_own => own.data,
                    _ if is_away => std::ptr::without_provenance_mut((name & !PRIVATE) as usize),
                    Some(address) => address.as_ptr(),
                    None => std::ptr::null_mut(),
                };
                found &= length == 0 || name == 0 || !addresses[peer].is_null();
            }
            self.regions[peer] = match &plan.own {
                None => transport.region(peer, channel).as_ptr(),
                Some(own) => {
                    let address = transport.address(peer, arrival.region, own.loaded.region);
                    found &= own.loaded.region == 0 || address.is_some();
                    address.map_or(std::ptr::null_mut(), std::ptr::NonNull::as_ptr)
                }
            };
        }
        match found {
            true => Ok(access),
            false => Err(Error::system("finding a peer's memory", "it named some that it does not have")),
        }
    }
}
