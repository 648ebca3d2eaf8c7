// SPDX-License-Identifier: MPL-2.0
//! Device memory between processes of one host.
//!
//! A name travels (by any rendezvous), and the receiver maps the memory behind it. Names are of whole allocations, with
//! an offset. On simulated devices the memory lives as long as any process maps it; of CUDA and HIP that is not promised:
//! there an exporter keeps its buffer until all others have unmapped theirs ([`Device::close_imports`]).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::allocation::{Allocation, Notes};
use super::backend::{Handle, MemoryKind};
use super::buffer::DeviceBuffer;
use super::capabilities::Platform;
use super::device::Device;
use crate::element::{DataType, Element};
use crate::error::{Error, Result};

/// The name of a buffer for other processes of this host: what [`DeviceBuffer::export`] returns and [`Device::import`]
/// takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpcHandle {
    handle: Handle,
    /// Bytes from the allocation's beginning.
    offset: u64,
    elements: u64,
    data_type: u8,
    /// Whether it is memory of the host.
    hosted: bool,
    /// Bytes of the allocation, where whoever imports it has to be told.
    whole: u64,
}

impl IpcHandle {
    /// How many bytes [`IpcHandle::to_bytes`] returns.
    pub const BYTES: usize = 64 + 8 + 8 + 1 + 1 + 8;

    /// The name as bytes, to be sent.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..64].copy_from_slice(&self.handle);
        bytes[64..72].copy_from_slice(&self.offset.to_le_bytes());
        bytes[72..80].copy_from_slice(&self.elements.to_le_bytes());
        (bytes[80], bytes[81]) = (self.data_type, u8::from(self.hosted));
        bytes[82..].copy_from_slice(&self.whole.to_le_bytes());
        bytes
    }

    /// The name that was sent as these bytes. Whether it names anything is seen by [`Device::import`].
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]));
        IpcHandle {
            handle: std::array::from_fn(|byte| bytes[byte]),
            offset: word(64),
            elements: word(72),
            data_type: bytes[80],
            hosted: bytes[81] != 0,
            whole: word(82),
        }
    }
}

/// Notes of imported memory: a process that maps the same memory twice orders its uses all the same.
static IMPORTED: Mutex<Option<HashMap<Handle, Weak<Notes>>>> = Mutex::new(None);

fn notes_of(handle: &Handle) -> Arc<Notes> {
    let mut imported = IMPORTED.lock().unwrap_or_else(PoisonError::into_inner);
    let imported = imported.get_or_insert_default();
    imported.retain(|_, notes| notes.strong_count() > 0);
    let known = imported.get(handle).and_then(Weak::upgrade);
    known.unwrap_or_else(|| {
        let notes = Arc::default();
        imported.insert(*handle, Arc::downgrade(&notes));
        notes
    })
}

impl<T: Element> DeviceBuffer<T> {
    /// A name by which other processes map this buffer. The buffer's own process uses the buffer.
    ///
    /// On CUDA and HIP this buffer has to be kept until every other process has unmapped it, as
    /// [`Device::close_imports`] says, or has ended: what drivers do with memory that is freed before is not defined.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` where it was not made by [`Device::allocate_mappable`].
    #[allow(unsafe_code)]
    pub fn export(&self) -> Result<IpcHandle> {
        let device = &self.allocation.core;
        if !self.is_mappable() && !self.is_hosted() {
            return Err(Error::invalid(format!(
                "{device} exports only buffers that `allocate_mappable` made; this one is of another kind of memory"
            )));
        }
        // SAFETY: the memory is mappable or hosted, and lives as long as its allocation.
        let (handle, before, whole) = unsafe { device.backend.export(self.allocation.address) }.map_err(|failure| {
            let remedy = match self.is_hosted() || device.backend.capabilities().platform == Platform::Simulated {
                true => "see whether descriptors are exhausted (ulimit -n)",
                false => "where a machine does not let processes share a card's memory, let ranks be threads",
            };
            device.failed("exporting a buffer", &failure, remedy)
        })?;
        let (offset, elements) = (before + self.bytes().start as u64, self.len() as u64);
        Ok(IpcHandle { handle, offset, elements, data_type: T::DATA_TYPE as u8, hosted: self.is_hosted(), whole })
    }
}

impl Device {
    /// Maps a buffer of another process. What its process and this one do with it is ordered by themselves, by flags
    /// and the like: the notes that order streams are of one process. It is unmapped after it has been dropped:
    /// [`Device::close_imports`] says when.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` where the name is of a buffer of another element type, or is damaged; `System` where it is of this
    /// very process, where there is no such memory any more, or its process may not be looked into.
    pub fn import<T: Element>(&self, name: &IpcHandle) -> Result<DeviceBuffer<T>> {
        let core = &self.core;
        if name.data_type != T::DATA_TYPE as u8 {
            let found = DataType::ALL.into_iter().find(|own| *own as u8 == name.data_type);
            return Err(Error::invalid(format!(
                "the imported buffer is of {}, not of {}",
                found.map_or("an unknown type", DataType::name),
                T::DATA_TYPE
            )));
        }
        let kind = if name.hosted { MemoryKind::Hosted } else { MemoryKind::Imported };
        let (address, bytes) = core.backend.import(&name.handle, name.whole, kind).map_err(|failure| {
            core.failed(
                "importing a buffer",
                &failure,
                "both processes must run on one host as one user and see each other in /proc (containers: in one, or with \
                 --ipc=host and --pid=host), and the exporter must live and keep the buffer until it is imported",
            )
        })?;
        // From here on the mapping is given up by `drop`.
        let notes = notes_of(&name.handle);
        let allocation = Arc::new(Allocation { core: core.clone(), address, bytes, kind, notes, owner: None });
        let size = size_of::<T>() as u64;
        let end = name.elements.checked_mul(size).and_then(|length| length.checked_add(name.offset));
        if !name.offset.is_multiple_of(size) || end.is_none_or(|end| end > bytes as u64) {
            return Err(Error::invalid(format!(
                "the imported name is damaged: {} elements at byte {} of an allocation of {bytes} bytes",
                name.elements, name.offset
            )));
        }
        Ok(DeviceBuffer::of(allocation, (name.offset / size) as usize, name.elements as usize))
    }
}
