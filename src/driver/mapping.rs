// SPDX-License-Identifier: MPL-2.0
//! Memory of the host that other processes may map by a name: what simulated devices have for their own, and what every
//! device of a platform addresses, whichever it reaches.
//!
//! Such memory is a sealed memfd of its own, which stays open as long as the allocation. A handle says in which process
//! and under which descriptor the memfd is found, and its memfd's name, which is 128 random bits: neither a number that
//! was used again nor any other file is taken for it. A memfd has no name in any directory, so nothing is left behind
//! by whatever end; and its memory lives as long as any process maps it.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::{self, NonNull};

use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use rustix::process::{Resource, getrlimit};
use rustix::rand::GetRandomFlags;

use super::backend::{Address, Failure, Handle};

/// How much one call to the kernel commits.
const COMMIT_STEP: usize = 4 << 20;

/// What was refused for a reason of the operating system's.
pub(super) fn system(call: &'static str, errno: Errno) -> Failure {
    Failure { call, code: errno.raw_os_error(), meaning: errno.to_string() }
}

/// What was refused for a reason of our own.
pub(super) fn refused(call: &'static str, errno: Errno, meaning: impl Into<String>) -> Failure {
    Failure { call, code: errno.raw_os_error(), meaning: meaning.into() }
}

/// Mapped memory: new, or another process's.
pub(super) struct Mapping {
    data: NonNull<u8>,
    bytes: usize,
    /// Where others find it, if they may: the file, and the end of its name.
    named: Option<(OwnedFd, u128)>,
    /// What whoever made it says of it; it travels with the name.
    label: u32,
}

// SAFETY: a mapping is an address and a descriptor, neither bound to a thread.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Zeroed memory that nobody else can map.
    #[cfg_attr(not(annulus_simulated), expect(dead_code, reason = "it is for simulated devices"))]
    pub fn anonymous(bytes: usize) -> Result<Mapping, Failure> {
        Mapping::new(bytes, None)
    }

    /// Zeroed memory with a name.
    pub fn named(bytes: usize, label: u32) -> Result<Mapping, Failure> {
        let (file, token) = sealed_memfd(bytes)?;
        let mut mapping = Mapping::new(bytes, Some(&file))?;
        (mapping.named, mapping.label) = (Some((file, token)), label);
        Ok(mapping)
    }

    /// What another process has named. Any bytes may be tried.
    pub fn import(handle: &Handle) -> Result<Mapping, Failure> {
        let name = Name::from_handle(handle)
            .ok_or_else(|| refused("import", Errno::INVAL, "these bytes are no name of memory"))?;
        if name.process == std::process::id() {
            return Err(refused("import", Errno::INVAL, "the memory is this very process's; use the buffer itself"));
        }
        let mut mapping = Mapping::new(name.bytes, Some(&name.open()?))?;
        mapping.label = name.label;
        Ok(mapping)
    }

    pub fn address(&self) -> Address {
        self.data.as_ptr().expose_provenance() as Address
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    #[cfg_attr(not(annulus_simulated), expect(dead_code, reason = "it is for simulated devices"))]
    pub fn label(&self) -> u32 {
        self.label
    }

    /// Its name for other processes, if it has one.
    pub fn handle(&self) -> Option<Handle> {
        let (file, token) = self.named.as_ref()?;
        let (process, descriptor) = (std::process::id(), file.as_raw_fd());
        let name = Name { process, descriptor, bytes: self.bytes, token: *token, label: self.label };
        Some(name.to_handle())
    }

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
        let mapping = Mapping { data, bytes, named: None, label: 0 };
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
    format!("annulus-memory-{token:032x}")
}

const MAGIC: [u8; 8] = *b"annulus2";

/// What a handle says.
struct Name {
    process: u32,
    descriptor: i32,
    bytes: usize,
    token: u128,
    label: u32,
}

impl Name {
    fn to_handle(&self) -> Handle {
        let mut handle = [0; 64];
        handle[..8].copy_from_slice(&MAGIC);
        handle[8..12].copy_from_slice(&self.process.to_le_bytes());
        handle[12..16].copy_from_slice(&self.descriptor.to_le_bytes());
        handle[16..24].copy_from_slice(&(self.bytes as u64).to_le_bytes());
        handle[24..40].copy_from_slice(&self.token.to_le_bytes());
        handle[40..44].copy_from_slice(&self.label.to_le_bytes());
        handle
    }

    fn from_handle(handle: &Handle) -> Option<Self> {
        let (magic, rest) = handle.split_first_chunk::<8>()?;
        let (process, rest) = rest.split_first_chunk()?;
        let (descriptor, rest) = rest.split_first_chunk()?;
        let (bytes, rest) = rest.split_first_chunk()?;
        let (token, rest) = rest.split_first_chunk()?;
        let (label, _) = rest.split_first_chunk()?;
        let bytes = usize::try_from(u64::from_le_bytes(*bytes)).ok()?;
        (*magic == MAGIC && bytes > 0).then_some(Name {
            process: u32::from_le_bytes(*process),
            descriptor: i32::from_le_bytes(*descriptor),
            bytes,
            token: u128::from_le_bytes(*token),
            label: u32::from_le_bytes(*label),
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
