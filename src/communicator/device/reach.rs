// SPDX-License-Identifier: MPL-2.0
//! Whether every rank's device addresses the memory of every other's.
//!
//! The driver says so of devices that a process sees. It may see its own alone (`CUDA_VISIBLE_DEVICES` for each rank), and
//! there are machines on which cards' memory is not mapped in other processes at all; so ranks that are processes try it.

use super::super::Communicator;
use super::close::outlive;
use super::exchange::agree;
use crate::driver::{Device, IpcHandle, Platform};
use crate::error::Result;

/// Whether some rank's device cannot address another's memory; the same on all ranks. Collective.
pub(super) fn is_confined(comm: &Communicator, device: &Device, identities: &[[u8; 16]]) -> Result<bool> {
    let reaches: Result<Vec<bool>> = identities.iter().map(|other| device.reaches_identity(*other)).collect();
    let reaches = agree(comm, "reaching other ranks' devices", reaches)?;
    if is_any(comm, reaches.contains(&false))? {
        return Ok(true);
    }
    let is_card = device.capabilities().platform != Platform::Simulated;
    Ok(is_card && comm.transport_kind() != "threads" && !is_mapped(comm, device)?)
}

/// Whether each process can map what the others allocate.
fn is_mapped(comm: &Communicator, device: &Device) -> Result<bool> {
    let own = agree(comm, "allocating device memory for other ranks to map", device.allocate_mappable::<u8>(1))?;
    // No name of an allocation is nothing but zeros: its length is in it.
    let name = own.export().map_or([0; IpcHandle::BYTES], |name| name.to_bytes());
    let mut names = vec![0; IpcHandle::BYTES * comm.world_size()];
    comm.all_gather(&name, &mut names)?;
    let (names, _) = names.as_chunks::<{ IpcHandle::BYTES }>();
    if names.contains(&[0; IpcHandle::BYTES]) {
        return Ok(false);
    }
    let is_mapped = |name| device.import::<u8>(&IpcHandle::from_bytes(name)).is_ok();
    let fails = names.iter().enumerate().any(|(rank, name)| rank != comm.rank() && !is_mapped(name));
    device.close_imports();
    // Where all have said this, nobody maps anything any more.
    let fails_somewhere = is_any(comm, fails);
    if fails_somewhere.is_err() {
        outlive([own]);
    }
    Ok(!fails_somewhere?)
}

/// Whether it is so on some rank.
fn is_any(comm: &Communicator, is: bool) -> Result<bool> {
    let mut all = vec![0_u8; comm.world_size()];
    comm.all_gather(&[u8::from(is)], &mut all)?;
    Ok(all.contains(&1))
}
