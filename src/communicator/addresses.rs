// SPDX-License-Identifier: MPL-2.0
//! Where the memory of a call is: the ranks' names for it, turned into addresses of this rank.
#![allow(unsafe_code)] // addresses go from thread to thread with the calls that they are of

use super::plan::Plan;
use crate::error::{Error, Result};
use crate::transport::Transport;
use crate::transport::page::EntryRecord;

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
}

// SAFETY: addresses are values; who dereferences them, and when, is the executor's affair.
unsafe impl Send for Addresses {}

impl Addresses {
    /// For `world` ranks, none of them known yet.
    pub fn of(world: usize) -> Self {
        let none = || vec![std::ptr::null_mut(); world];
        Addresses { inputs: none(), outputs: none(), regions: none() }
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

    /// Every rank's buffers and region by what the entry records name. True if all ranks can address all buffers: all
    /// see the same names, so all come to the same answer.
    pub fn find<'r>(
        &mut self,
        transport: &dyn Transport,
        channel: usize,
        plan: &Plan,
        (input, output): (Run, Run),
        records: impl Iterator<Item = &'r EntryRecord>,
    ) -> Result<bool> {
        let (collective, size) = (plan.descriptor.collective, plan.descriptor.data_type.size());
        let (mut direct, mut found) = (true, true);
        for (peer, record) in records.enumerate() {
            let arrival = record.arrival();
            let lengths = (plan.layout.input_len(collective, peer), plan.layout.output_len(collective, peer));
            for (addresses, name, length, own) in [
                (&mut self.inputs, arrival.input, lengths.0, input),
                (&mut self.outputs, arrival.output, lengths.1, output),
            ] {
                direct &= length == 0 || name != 0;
                addresses[peer] = match transport.address(peer, name, length * size) {
                    _ if peer == transport.rank() => own.data,
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
            true => Ok(direct || transport.world() == 1),
            false => Err(Error::system("finding a peer's memory", "it named some that it does not have")),
        }
    }
}
