// SPDX-License-Identifier: MPL-2.0
//! Devices: found, described, and what is made on them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::allocation::Allocation;
use super::backend::{Backend, EventId, Failure, MemoryKind};
use super::buffer::DeviceBuffer;
use super::capabilities::Capabilities;
#[cfg(all(feature = "cuda", target_os = "linux"))]
use super::cuda;
use super::event::Event;
use super::faults::FaultWords;
#[cfg(all(feature = "hip", target_os = "linux"))]
use super::hip;
use super::kernel::Kernel;
use super::mark::Pending;
use super::queue::Queue;
use super::stream::Stream;
use super::words::Words;
use crate::element::Element;
use crate::error::{Error, Result};

/// The variable that says which devices [`Device::auto`] takes.
const CHOICE: &str = "ANNULUS_DEVICE";

/// A device. Clones are the same device, and so is what is opened twice under one number.
#[derive(Clone)]
pub struct Device {
    pub(super) core: Arc<Core>,
}

impl Device {
    /// The simulated device of that number, which executes kernels on the CPU.
    ///
    /// There are as many as `ANNULUS_SIM_DEVICES` says, one if it is not set. They reach each other's memory, but for
    /// the pairs that `ANNULUS_SIM_UNREACHABLE` names: `0-1,2-3`. `ANNULUS_SIM=strict` makes them strict
    /// ([`strict`](super::strict)), with the seed that `ANNULUS_SIM_SEED` says, 0 if it is not set. All of these are read
    /// once in a process.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` where there is no device of that number, or a variable is not as above; `Unsupported` where
    /// the library was built without simulated devices, with the reason.
    pub fn simulated(index: usize) -> Result<Device> {
        let cores = simulated()?;
        let core = cores.get(index).ok_or_else(|| {
            Error::invalid(format!(
                "there is no simulated device {index}: there are {}, numbered from 0 on; set ANNULUS_SIM_DEVICES to \
                 have more",
                cores.len()
            ))
        })?;
        Ok(Device { core: core.clone() })
    }

    /// The strict simulated device of that number and seed, which looks at everything that kernels do
    /// ([`strict`](super::strict)). There are as many numbers as of other simulated devices.
    ///
    /// # Errors
    ///
    /// As [`Device::simulated`]; `Unsupported` in a build for ThreadSanitizer too.
    pub fn simulated_strict(index: usize, seed: u64) -> Result<Device> {
        Ok(Device { core: simulated_strict(index, seed)? })
    }

    /// How many simulated devices there are.
    ///
    /// # Errors
    ///
    /// As [`Device::simulated`].
    pub fn simulated_count() -> Result<usize> {
        Ok(simulated()?.len())
    }

    /// The NVIDIA device of that number, as the driver counts those that it shows to this process:
    /// `CUDA_VISIBLE_DEVICES` is obeyed.
    ///
    /// The first call for a device makes its context and loads the code of all kernels, which the driver compiles when it
    /// sees it for the first time: that can take seconds, and is done before anything runs on the device that could wait
    /// for it.
    ///
    /// # Errors
    ///
    /// `Unsupported` where there is no driver, where it is older than CUDA 12.0 or lacks a function, where it shows no
    /// device, for a device that has no code, and where the library was built without the feature `cuda`;
    /// `InvalidArgument` where there is no device of that number; `System` where the driver refuses.
    pub fn cuda(index: usize) -> Result<Device> {
        Ok(Device { core: cuda::device(index)? })
    }

    /// How many NVIDIA devices the driver shows to this process; not zero.
    ///
    /// # Errors
    ///
    /// `Unsupported` where there is none, as [`Device::cuda`].
    pub fn cuda_count() -> Result<usize> {
        cuda::count()
    }

    /// The AMD device of that number, as HIP counts those that it shows to this process: `HIP_VISIBLE_DEVICES` is obeyed.
    ///
    /// The first call for a device loads the code of all kernels, before anything runs on the device that could wait for
    /// it.
    ///
    /// # Errors
    ///
    /// `Unsupported` where HIP shows no device, for a device that has no code in this build nor in the folder that
    /// `ANNULUS_HIP_CODE` names, and where the library was built without the feature `hip`; `InvalidArgument` where there
    /// is no device of that number; `System` where HIP refuses.
    pub fn hip(index: usize) -> Result<Device> {
        Ok(Device { core: hip::device(index)? })
    }

    /// How many AMD devices HIP shows to this process; not zero.
    ///
    /// # Errors
    ///
    /// `Unsupported` where there is none, as [`Device::hip`].
    pub fn hip_count() -> Result<usize> {
        hip::count()
    }

    /// The device for the rank of that number on this host: device `local_rank` modulo how many there are. `Display`
    /// says which it is.
    ///
    /// It is an NVIDIA device, or where there is none, an AMD device. A simulated one is taken only where
    /// `ANNULUS_DEVICE=sim` asks for it; `ANNULUS_DEVICE` may be `cuda` or `hip` too, which takes no other.
    ///
    /// # Errors
    ///
    /// As [`Device::cuda`], [`Device::hip`] and [`Device::simulated`]; `InvalidArgument` where `ANNULUS_DEVICE` is anything
    /// else.
    pub fn auto(local_rank: usize) -> Result<Device> {
        type Kind = (fn() -> Result<usize>, fn(usize) -> Result<Device>);
        const CUDA: Kind = (Device::cuda_count, Device::cuda);
        const HIP: Kind = (Device::hip_count, Device::hip);
        const SIMULATED: Kind = (Device::simulated_count, Device::simulated);
        let choice = std::env::var_os(CHOICE);
        let kinds: &[Kind] = match choice.as_deref().map(|choice| choice.to_string_lossy()).as_deref() {
            None => &[CUDA, HIP],
            Some("cuda") => &[CUDA],
            Some("hip") => &[HIP],
            Some("sim") => return SIMULATED.1(local_rank % SIMULATED.0()?),
            Some(other) => {
                return Err(Error::invalid(format!(
                    "{CHOICE} is {other}, which this version does not know; choose `cuda`, `hip`, or `sim` for a device that \
                     is simulated on the CPU"
                )));
            }
        };
        let mut reasons = Vec::new();
        for (count, open) in kinds {
            match count() {
                Ok(count) => return open(local_rank % count),
                Err(Error::Unsupported(why)) => reasons.push(why.to_string()),
                Err(other) => return Err(other),
            }
        }
        Err(Error::unsupported(format!(
            "{}; or set {CHOICE}=sim to take a device that is simulated on the CPU",
            reasons.join("; ")
        )))
    }

    /// What the device is and has.
    pub fn capabilities(&self) -> &Capabilities {
        self.core.backend.capabilities()
    }

    /// Zeroed memory of this device, which no other device and no other process maps. Any length is legal.
    ///
    /// # Errors
    ///
    /// `System` where memory is exhausted; `InvalidArgument` for more elements than any memory holds.
    pub fn allocate<T: Element>(&self, elements: usize) -> Result<DeviceBuffer<T>> {
        DeviceBuffer::new(&self.core, elements, MemoryKind::Local)
    }

    /// Zeroed memory of this device that peers may map: kernels of devices that reach this one, and other processes to
    /// which it is exported. Each is an allocation of its own, never a part of a pool.
    ///
    /// # Errors
    ///
    /// `System` where memory or file descriptors are exhausted; `InvalidArgument` for more elements than any memory holds.
    pub fn allocate_mappable<T: Element>(&self, elements: usize) -> Result<DeviceBuffer<T>> {
        DeviceBuffer::new(&self.core, elements, MemoryKind::Mappable)
    }

    /// Zeroed memory of the host that kernels and copies of every device of the platform address, also of those that do
    /// not reach this one, and other processes to which it is exported. Each is an allocation of its own. Drivers wait
    /// for copies from the host to the host, so those are not to be enqueued.
    ///
    /// # Errors
    ///
    /// `System` where memory or file descriptors are exhausted, or no more may be pinned.
    pub(crate) fn allocate_hosted<T: Element>(&self, elements: usize) -> Result<DeviceBuffer<T>> {
        DeviceBuffer::new(&self.core, elements, MemoryKind::Hosted)
    }

    /// Lets go of what streams that are gone have done.
    pub(crate) fn let_go(&self) {
        self.core.sweep();
    }

    /// Unmaps what was [imported](Device::import) and has been dropped, on this device. A card's driver waits for all that
    /// runs there before it unmaps, so a dropped buffer stays mapped until the device is idle, or until this is called.
    ///
    /// Whoever exported memory of a card frees it only after that: synchronize the streams that used the imported buffer,
    /// drop it, call this, and let the exporter know (by a barrier, say); then the exporter drops its own.
    pub fn close_imports(&self) {
        self.core.sweep();
        self.core.backend.close_imports();
    }

    /// Zeroed words that the host and kernels of this device see while they run.
    ///
    /// # Errors
    ///
    /// `System` where memory is exhausted; `InvalidArgument` for more words than any memory holds.
    pub fn words(&self, count: usize) -> Result<Words> {
        Words::new(&self.core, count)
    }

    /// Words in which kernels report faults, and the sentence that `render` makes of a report.
    ///
    /// # Errors
    ///
    /// `System` where memory is exhausted.
    pub fn fault_words(
        &self,
        render: impl Fn(&[u32; FaultWords::COUNT]) -> Error + Send + Sync + 'static,
    ) -> Result<FaultWords> {
        FaultWords::new(&self.core, render)
    }

    /// A new stream.
    ///
    /// # Errors
    ///
    /// `System` where the device, or the operating system, has no more.
    pub fn stream(&self) -> Result<Stream> {
        Stream::new(&self.core, false)
    }

    /// A stream for what the library does by itself and waits for, and which waits for no call.
    ///
    /// A card has few queues for all streams, and where two share one, each waits for what the other was given before. So a
    /// rank would wait for its peer's calls, and those for that rank. Streams of the highest priority are believed to have
    /// queues of their own.
    pub(crate) fn urgent_stream(&self) -> Result<Stream> {
        Stream::new(&self.core, true)
    }

    /// A new event, which keeps the time.
    ///
    /// # Errors
    ///
    /// `System` where the device has no more.
    pub fn event(&self) -> Result<Event> {
        Event::new(&self.core)
    }

    /// The kernel of that name, loaded.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` where there is none of that name.
    pub fn kernel(&self, name: &str) -> Result<Kernel> {
        Kernel::new(&self.core, name)
    }

    /// Whether kernels and copies of this device can address mappable memory of the other.
    ///
    /// # Errors
    ///
    /// `System` where the driver does not say.
    pub fn reaches(&self, other: &Device) -> Result<bool> {
        self.core.reaches(&other.core)
    }

    /// The same of the device of that identity on the same platform, which another process may have opened. Of a device
    /// that this process does not see, the driver says nothing before its memory is mapped.
    pub(crate) fn reaches_identity(&self, identity: [u8; 16]) -> Result<bool> {
        self.core.backend.peer(identity).map_or(Ok(true), |index| self.core.reaches_number(index))
    }

    /// Lets this device address mappable memory of the other from now on. Copies see to that themselves.
    ///
    /// # Errors
    ///
    /// `Unsupported` where it cannot reach it.
    pub fn enable_peer(&self, other: &Device) -> Result<()> {
        self.core.enable_peer(&other.core)
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Device) -> bool {
        Arc::ptr_eq(&self.core, &other.core)
    }
}

impl Eq for Device {}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.core.fmt(f)
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Device").field(self.capabilities()).finish()
    }
}

/// The simulated devices of this process, for ever.
#[cfg(annulus_simulated)]
fn simulated() -> Result<&'static [Arc<Core>]> {
    static CORES: std::sync::OnceLock<Result<Vec<Arc<Core>>>> = std::sync::OnceLock::new();
    let cores = CORES.get_or_init(|| {
        let backends = super::host::devices()?;
        Ok(backends.into_iter().map(|backend| Core::new(Box::new(backend))).collect())
    });
    cores.as_deref().map_err(Clone::clone)
}

/// The strict ones that have been opened, for ever.
#[cfg(annulus_simulated)]
fn simulated_strict(index: usize, seed: u64) -> Result<Arc<Core>> {
    use std::collections::BTreeMap;
    /// By number and seed.
    static CORES: Mutex<BTreeMap<(usize, u64), Arc<Core>>> = Mutex::new(BTreeMap::new());
    let mut cores = CORES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(core) = cores.get(&(index, seed)) {
        return Ok(core.clone());
    }
    let core = Core::new(Box::new(super::host::strict_device(index, seed)?));
    cores.insert((index, seed), core.clone());
    Ok(core)
}

#[cfg(not(annulus_simulated))]
fn simulated_strict(_: usize, _: u64) -> Result<Arc<Core>> {
    simulated().map(|never| never[0].clone())
}

#[cfg(not(annulus_simulated))]
fn simulated() -> Result<&'static [Arc<Core>]> {
    Err(Error::unsupported(concat!("this build of Annulus has no simulated devices: ", env!("ANNULUS_NOT_SIMULATED"))))
}

/// What there is of a maker's devices in a build without them.
#[cfg(not(all(feature = "cuda", feature = "hip", target_os = "linux")))]
macro_rules! not_built {
    ($kind:ident, $feature:literal, $maker:literal) => {
        mod $kind {
            use super::*;

            pub fn device(_: usize) -> Result<Arc<Core>> {
                Err(Error::unsupported(concat!(
                    "this build of Annulus drives no ",
                    $maker,
                    " GPU: it has not the feature `",
                    $feature,
                    "`, or is not for Linux"
                )))
            }

            pub fn count() -> Result<usize> {
                device(0).map(|_| 0)
            }
        }
    };
}

#[cfg(not(all(feature = "cuda", target_os = "linux")))]
not_built!(cuda, "cuda", "NVIDIA");
#[cfg(not(all(feature = "hip", target_os = "linux")))]
not_built!(hip, "hip", "AMD");

/// What all handles of one device share. It is never dropped: what is of a device may outlive all its handles.
pub(super) struct Core {
    pub backend: Box<dyn Backend>,
    /// Events of marks that nobody holds any more.
    pub spare_events: Mutex<Vec<EventId>>,
    /// What streams that are gone may not have done yet.
    pub orphans: Mutex<VecDeque<Pending>>,
    pub queue: Queue,
    /// A stream for the device's part in copies between devices that do not reach each other.
    pub staging: Mutex<Option<Stream>>,
}

impl Core {
    #[cfg_attr(
        not(any(annulus_simulated, all(any(feature = "cuda", feature = "hip"), target_os = "linux"))),
        expect(dead_code, reason = "no backend is built")
    )]
    pub fn new(backend: Box<dyn Backend>) -> Arc<Core> {
        let (spare_events, orphans, queue, staging) = Default::default();
        Arc::new(Core { backend, spare_events, orphans, queue, staging })
    }

    /// Takes what a stream that is gone may not have done yet.
    pub fn adopt(&self, mut pending: VecDeque<Pending>) {
        self.orphans.lock().unwrap_or_else(PoisonError::into_inner).append(&mut pending);
        self.sweep();
    }

    /// Lets go of what streams that are gone have done meanwhile.
    pub fn sweep(&self) {
        let mut orphans = self.orphans.lock().unwrap_or_else(PoisonError::into_inner);
        // Orphans of several streams are in one row, so one that is not done says nothing of those behind it.
        let (done, left) = orphans.drain(..).partition::<VecDeque<_>, _>(|orphan| orphan.mark.has_passed());
        *orphans = left;
        drop(orphans);
        // With the lock given up: it may hold the last handle of anything.
        drop(done);
    }

    /// Lets kernels of this device address memory of an allocation, if they can.
    pub fn address(&self, allocation: &Allocation) -> Result<()> {
        if std::ptr::eq(self, &*allocation.core) {
            return Ok(());
        }
        match allocation.kind {
            MemoryKind::Pinned | MemoryKind::Hosted if self.same_platform(&allocation.core) => Ok(()),
            MemoryKind::Local => Err(Error::invalid(format!(
                "{self} cannot address a buffer that {} allocated for itself; allocate it with `allocate_mappable`",
                allocation.core
            ))),
            _ => self.enable_peer(&allocation.core),
        }
    }

    pub fn same_platform(&self, other: &Core) -> bool {
        self.backend.capabilities().platform == other.backend.capabilities().platform
    }

    fn index(&self) -> usize {
        self.backend.capabilities().index
    }

    pub fn reaches(&self, other: &Core) -> Result<bool> {
        if !self.same_platform(other) {
            return Ok(false);
        }
        self.reaches_number(other.index())
    }

    fn reaches_number(&self, index: usize) -> Result<bool> {
        self.backend.reaches(index).map_err(|failure| {
            self.failed(format_args!("asking whether it reaches device {index}"), &failure, "see the driver's own log")
        })
    }

    pub fn enable_peer(&self, other: &Core) -> Result<()> {
        if !self.reaches(other)? {
            return Err(Error::unsupported(format!(
                "{self} cannot address memory of {other}; copy through a buffer of its own instead"
            )));
        }
        self.backend.enable_peer(other.index()).map_err(|failure| {
            self.failed(format_args!("mapping memory of {other}"), &failure, "see the driver's own log")
        })
    }

    /// An error of this device: what was attempted, what it answered, and what may help.
    pub fn failed(&self, attempt: impl fmt::Display, failure: &Failure, remedy: &str) -> Error {
        Error::System(format!("{self}, {attempt}: {failure}; {remedy}").into())
    }

    pub fn too_long(&self, elements: usize, size: usize) -> Error {
        Error::invalid(format!("{self} has no memory for {elements} elements of {size} bytes; ask for fewer"))
    }
}

impl fmt::Display for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let capabilities = self.backend.capabilities();
        write!(f, "{} device {}", capabilities.platform, capabilities.index)
    }
}
