// SPDX-License-Identifier: MPL-2.0
//! Memory of simulated devices. What other processes find is a mapping with a name (`mapping`), which says of which
//! device it is; other memory is anonymous, so that nobody can map it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::super::backend::{Address, Failure, Handle, MemoryKind};
use super::super::capabilities::Capabilities;
use super::super::mapping::{Mapping, refused};
use super::strict;

/// Instead of a device's number: memory of the host.
const HOST: u32 = u32::MAX;

/// All memory of this process's simulated devices, by its address.
#[derive(Default)]
pub(super) struct Memory(Mutex<HashMap<Address, Mapping>>);

impl Memory {
    fn mappings(&self) -> MutexGuard<'_, HashMap<Address, Mapping>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, mapping: Mapping) -> Address {
        let address = mapping.address();
        strict::add_memory(address, mapping.bytes());
        self.mappings().insert(address, mapping);
        address
    }

    /// Zeroed memory of a device; not more than it has, which is a guard against numbers that are too large.
    pub fn allocate(&self, bytes: usize, kind: MemoryKind, of: &Capabilities) -> Result<Address, Failure> {
        if bytes as u64 > of.memory {
            return Err(refused("allocate", Errno::NOMEM, format!("the device has {} bytes", of.memory)));
        }
        let mapping = match kind {
            MemoryKind::Mappable => Mapping::named(bytes, of.index as u32),
            MemoryKind::Hosted => Mapping::named(bytes, HOST),
            _ => Mapping::anonymous(bytes),
        };
        Ok(self.insert(mapping?))
    }

    pub fn free(&self, address: Address) -> Result<(), Failure> {
        let mapping = self.mappings().remove(&address);
        strict::remove_memory(address);
        mapping.map(drop).ok_or_else(|| refused("free", Errno::FAULT, format!("no memory begins at {address:#x}")))
    }

    pub fn export(&self, address: Address) -> Result<Handle, Failure> {
        let handle = self.mappings().get(&address).and_then(Mapping::handle);
        handle.ok_or_else(|| refused("export", Errno::INVAL, format!("no mappable memory at {address:#x}")))
    }

    /// Memory of another process, for a device that reaches the memory of those devices.
    pub fn import(
        &self,
        handle: &Handle,
        reaches: impl Fn(usize) -> Result<bool, Failure>,
    ) -> Result<(Address, usize), Failure> {
        let mapping = Mapping::import(handle)?;
        let (bytes, device) = (mapping.bytes(), mapping.label());
        if device != HOST && !reaches(device as usize)? {
            return Err(refused("import", Errno::ACCESS, format!("it is of device {device}, which is out of reach")));
        }
        Ok((self.insert(mapping), bytes))
    }
}
