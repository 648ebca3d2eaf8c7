// SPDX-License-Identifier: MPL-2.0
//! Where the memory of a call is: the ranks' names for it, turned into addresses of this rank.
#![allow(unsafe_code)] // addresses go from thread to thread with the calls that they are of

use super::plan::Plan;
use crate::error::{Error, Result};
use crate::schedule::{Access, Buffer, Place};
use crate::transport::page::EntryRecord;
use crate::transport::{Arrival, PRIVATE, Transport, is_private};

/// A run of a rank's own memory. Null and empty where a rank has none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub data: *mut u8,
    pub bytes: usize,
}

// SAFETY: an address and a length; the memory behind it is lent to the engine until the call has ended.
unsafe impl Send for Run {}

/// The memory of one call, as this rank addresses it: one pointer a rank. The entries of buffers that a program may not
/// reach mean nothing, and loading has checked that it does not.
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

    /// The memory that a program reaches: this rank's buffers and every rank's region; and every rank's buffers, by what
    /// the entry records name, unless it `needs` none. `records` are read only for what they name.
    pub fn find<'r>(
        &mut self,
        transport: &dyn Transport,
        channel: usize,
        plan: &Plan,
        (input, output): (Run, Run),
        needs: Access,
        records: impl Iterator<Item = &'r EntryRecord>,
    ) -> Result<()> {
        let (rank, size) = (transport.rank(), plan.descriptor.data_type.size());
        (self.inputs[rank], self.outputs[rank]) = (input.data, output.data);
        let mut found = true;
        for (peer, record) in records.enumerate() {
            if needs != Access::Staged && peer != rank {
                let arrival = record.arrival();
                let lengths = lengths(plan, peer);
                for (which, (addresses, name, length)) in
                    [(&mut self.inputs, arrival.input, lengths.0), (&mut self.outputs, arrival.output, lengths.1)]
                        .into_iter()
                        .enumerate()
                {
                    let is_away = within_reach(name, length, transport.world()) == Access::Read;
                    self.away[peer][which] = is_away;
                    addresses[peer] = match transport.address(peer, name, length * size) {
                        _ if is_away => std::ptr::without_provenance_mut((name & !PRIVATE) as usize),
                        Some(address) => address.as_ptr(),
                        None => std::ptr::null_mut(),
                    };
                    found &= length == 0 || name == 0 || !addresses[peer].is_null();
                }
            }
            self.regions[peer] = match &plan.own {
                None => transport.region(peer, channel).as_ptr(),
                Some(own) => {
                    let address = transport.address(peer, record.arrival().region, own.loaded.region);
                    found &= own.loaded.region == 0 || address.is_some();
                    address.map_or(std::ptr::null_mut(), std::ptr::NonNull::as_ptr)
                }
            };
        }
        match found {
            true => Ok(()),
            false => Err(Error::system("finding a peer's memory", "it named some that it does not have")),
        }
    }
}

/// What all ranks can do with a rank's buffers, by what it said when it arrived.
pub(crate) fn reach(plan: &Plan, rank: usize, arrival: &Arrival) -> Access {
    let (world, (input, output)) = (plan.layout.world(), lengths(plan, rank));
    within_reach(arrival.input, input, world).max(within_reach(arrival.output, output, world))
}

/// Elements of a rank's input and output.
fn lengths(plan: &Plan, rank: usize) -> (usize, usize) {
    let collective = plan.descriptor.collective;
    (plan.layout.input_len(collective, rank), plan.layout.output_len(collective, rank))
}

/// What all ranks can do with a buffer of this name.
fn within_reach(name: u64, length: usize, world: usize) -> Access {
    match length == 0 || !is_private(name) || world == 1 {
        true => Access::Direct,
        false if name != 0 => Access::Read,
        false => Access::Staged,
    }
}
