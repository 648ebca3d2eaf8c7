// SPDX-License-Identifier: MPL-2.0
//! Memory of simulated devices, and its names for other processes.
//!
//! Mappable memory is a sealed memfd of its own, which stays open as long as the allocation; other memory is anonymous,
//! so that nobody can map it. A handle says in which process and under which descriptor the memfd is found, and its
//! memfd's name, which is 128 random bits: neither a number that was used again nor any other file is taken for it.
//! A memfd has no name in any directory, so nothing is left behind by whatever end.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use rustix::process::{Resource, getrlimit};
use rustix::rand::GetRandomFlags;

use super::super::backend::{Address, Failure, Handle, MemoryKind};
use super::{refused, strict, system};

/// How much one call to the kernel commits.
const COMMIT_STEP: usize = 4 << 20;

/// All memory of this process's simulated devices, by its address.
#[derive(Default)]
pub(super) struct Memory(Mutex<HashMap<Address, Mapping>>);

/// One allocation, or one import.
struct Mapping {
    data: NonNull<u8>,
    bytes: usize,
    /// Where others find it, if they may.
    exported: Option<(OwnedFd, u128)>,
}

// SAFETY: a mapping is an address and a descriptor, neither bound to a thread.
unsafe impl Send for Mapping {}

impl Memory {
    fn mappings(&self) -> MutexGuard<'_, HashMap<Address, Mapping>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, mapping: Mapping) -> Address {
        let address = mapping.data.as_ptr().expose_provenance() as Address;
        strict::add_memory(address, mapping.bytes);
        self.mappings().insert(address, mapping);
        address
    }

    /// Zeroed memory; not more than `most` bytes, which is a guard against numbers that are too large.
    pub fn allocate(&self, bytes: usize, kind: MemoryKind, most: u64) -> Result<Address, Failure> {
        if bytes as u64 > most {
            return Err(refused("allocate", Errno::NOMEM, format!("the device has {most} bytes")));
        }
        let exported = match kind {
            MemoryKind::Mappable => Some(sealed_memfd(bytes)?),
            _ => None,
        };
        let mut mapping = Mapping::new(bytes, exported.as_ref().map(|(file, _)| file))?;
        mapping.exported = exported;
        Ok(self.insert(mapping))
    }

    pub fn free(&self, address: Address) -> Result<(), Failure> {
        let mapping = self.mappings().remove(&address);
        mapping.map(drop).ok_or_else(|| refused("free", Errno::FAULT, format!("no memory begins at {address:#x}")))
    }

    pub fn export(&self, address: Address) -> Result<Handle, Failure> {
        let mappings = self.mappings();
        let exported = mappings.get(&address).and_then(|mapping| mapping.exported.as_ref());
        let (file, token) =
            exported.ok_or_else(|| refused("export", Errno::INVAL, format!("no mappable memory at {address:#x}")))?;
        let name = Name {
            process: std::process::id(),
            descriptor: file.as_raw_fd(),
            bytes: mappings[&address].bytes,
            token: *token,
        };
        Ok(name.to_handle())
    }

    pub fn import(&self, handle: &Handle) -> Result<(Address, usize), Failure> {
        let name = Name::from_handle(handle)
            .ok_or_else(|| refused("import", Errno::INVAL, "these bytes are no name of simulated memory"))?;
        if name.process == std::process::id() {
            return Err(refused("import", Errno::INVAL, "the memory is this very process's; use the buffer itself"));
        }
        let file = name.open()?;
        let mapping = Mapping::new(name.bytes, Some(&file))?;
        Ok((self.insert(mapping), name.bytes))
    }
}

impl Mapping {
    /// Maps a file, or new anonymous memory.
    fn new(bytes: usize, file: Option<&OwnedFd>) -> Result<Mapping, Failure> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // Room for it, and for a page behind it that nobody may access: where memory ends, no other begins.
        let room = bytes.saturating_add(rustix::param::page_size());
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing that exists.
        let reserved = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                room,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        };
        let data = NonNull::new(reserved.map_err(|errno| system("mmap", errno))?.cast::<u8>());
        let data = data.ok_or_else(|| refused("mmap", Errno::FAULT, "the address is zero"))?;
        // From here on it is unmapped by `drop`, whatever fails.
        let mapping = Mapping { data, bytes, exported: None };
        // SAFETY: the range is a part of the mapping made above, which nobody else knows of.
        let mapped = unsafe {
            let (to, fixed) = (data.as_ptr().cast(), MapFlags::FIXED);
            match file {
                Some(file) => rustix::mm::mmap(to, bytes, protection, MapFlags::SHARED | fixed, file, 0),
                None => rustix::mm::mmap_anonymous(to, bytes, protection, MapFlags::PRIVATE | fixed),
            }
        };
        mapped.map_err(|errno| system("mmap", errno))?;
        // SAFETY: the range is the mapping made above; the advice leaves its bytes as they are.
        unsafe { rustix::mm::madvise(data.as_ptr().cast(), bytes, Advice::LinuxDontFork) }
            .map_err(|errno| system("madvise", errno))?;
        Ok(mapping)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        strict::remove_memory(self.data.as_ptr().expose_provenance() as Address);
        // It cannot be refused: the range is a mapping.
        // SAFETY: the mapping was made by `new`, and whoever frees it promised that nobody uses it any more.
        let _ = unsafe { rustix::mm::munmap(self.data.as_ptr().cast(), self.bytes + rustix::param::page_size()) };
    }
}

/// A memfd of so many bytes, all of them committed, that nobody can make smaller; and what its name ends in.
fn sealed_memfd(bytes: usize) -> Result<(OwnedFd, u128), Failure> {
    let mut random = [0; 16];
    rustix::rand::getrandom(&mut random, GetRandomFlags::empty()).map_err(|errno| system("getrandom", errno))?;
    let token = u128::from_ne_bytes(random);
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 do not know the flag that says that it is not to be executed; some systems ask for it.
    let file = match rustix::fs::memfd_create(file_name(token), flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(file_name(token), flags),
        other => other,
    };
    let file = file.map_err(|errno| system("memfd_create", errno))?;
    // Growing a file beyond this limit is not refused but punished with a deadly signal.
    if let Some(limit) = getrlimit(Resource::Fsize).current.filter(|limit| *limit < bytes as u64) {
        return Err(refused(
            "ftruncate",
            Errno::FBIG,
            format!("the largest file allowed (ulimit -f) is {limit} bytes"),
        ));
    }
    rustix::fs::ftruncate(&file, bytes as u64).map_err(|errno| system("ftruncate", errno))?;
    // Exhausted memory is an error here, and not a fault at the first touch. In steps, since a signal that interrupts
    // the kernel undoes the whole call.
    for start in (0..bytes).step_by(COMMIT_STEP) {
        let step = COMMIT_STEP.min(bytes - start) as u64;
        rustix::io::retry_on_intr(|| rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, start as u64, step))
            .map_err(|errno| system("fallocate", errno))?;
    }
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
        .map_err(|errno| system("fcntl", errno))?;
    Ok((file, token))
}

fn file_name(token: u128) -> String {
    format!("annulus-device-{token:032x}")
}

const MAGIC: [u8; 8] = *b"annulus1";

/// What a handle says.
struct Name {
    process: u32,
    descriptor: i32,
    bytes: usize,
    token: u128,
}

impl Name {
    fn to_handle(&self) -> Handle {
        let mut handle = [0; 64];
        handle[..8].copy_from_slice(&MAGIC);
        handle[8..12].copy_from_slice(&self.process.to_le_bytes());
        handle[12..16].copy_from_slice(&self.descriptor.to_le_bytes());
        handle[16..24].copy_from_slice(&(self.bytes as u64).to_le_bytes());
        handle[24..40].copy_from_slice(&self.token.to_le_bytes());
        handle
    }

    fn from_handle(handle: &Handle) -> Option<Self> {
        let (magic, rest) = handle.split_first_chunk::<8>()?;
        let (process, rest) = rest.split_first_chunk()?;
        let (descriptor, rest) = rest.split_first_chunk()?;
        let (bytes, rest) = rest.split_first_chunk()?;
        let (token, _) = rest.split_first_chunk()?;
        let bytes = usize::try_from(u64::from_le_bytes(*bytes)).ok()?;
        (*magic == MAGIC && bytes > 0).then_some(Name {
            process: u32::from_le_bytes(*process),
            descriptor: i32::from_le_bytes(*descriptor),
            bytes,
            token: u128::from_le_bytes(*token),
        })
    }

    /// The memfd, opened anew in this process.
    fn open(&self) -> Result<OwnedFd, Failure> {
        let path = format!("/proc/{}/fd/{}", self.process, self.descriptor);
        let gone = || refused("import", Errno::NOENT, format!("process {} has this memory no more", self.process));
        // Before it is opened: to open another file than memory could have effects.
        let expected = format!("/memfd:{}", file_name(self.token));
        let target = rustix::fs::readlink(&path, Vec::new()).map_err(|errno| match errno {
            Errno::NOENT => gone(),
            errno => refused("import", errno, format!("{path} cannot be read ({errno})")),
        })?;
        if !target.to_string_lossy().starts_with(&expected) {
            return Err(gone());
        }
        let file = rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| refused("import", errno, format!("{path} cannot be opened ({errno})")))?;
        let size = rustix::fs::fstat(&file).map_err(|errno| system("fstat", errno))?.st_size as u64;
        let seals = rustix::fs::fcntl_get_seals(&file).map_err(|errno| system("fcntl", errno))?;
        // The descriptor may have been used again since its name was read, so both are asked of what was opened.
        let own = format!("/proc/self/fd/{}", file.as_raw_fd());
        let opened = rustix::fs::readlink(own, Vec::new()).map_err(|errno| system("readlink", errno))?;
        let right = opened.to_string_lossy().starts_with(&expected) && size == self.bytes as u64;
        if !right || !seals.contains(SealFlags::SHRINK) {
            return Err(gone());
        }
        Ok(file)
    }
}
