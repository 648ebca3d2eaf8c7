// SPDX-License-Identifier: MPL-2.0
//! How ranks come to have a communicator on their devices: what they agree on, what they share, and the proof that what
//! one writes arrives at the others.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::super::Communicator;
use super::super::failure::Reporter;
use super::close::outlive;
use super::exchange::{agree, exchange};
use super::history::{self, History};
use super::programs::Schedules;
use super::regions::REGIONS;
use super::room::{Agreed, Room};
use super::watchdog::Watchdog;
use super::{DeviceCommunicator, fault, locked};
use crate::driver::{self, Device, DeviceBuffer, FaultWords, Stream, WeakStream, Words};
use crate::element::DataType;
use crate::error::{Error, Result};
use crate::kernel::{Arena, Kernel, RANKS, STATE_BYTES};
use crate::transport::Transport;

/// Calls by which the ranks test what they have agreed on, before there are others.
pub(super) const SELF_TESTS: u32 = 2;

/// One rank's membership: everything that kernels and those who wait for them need.
pub(super) struct Members {
    pub rank: usize,
    pub world: usize,
    pub device: Device,
    /// The same on all ranks.
    pub layout: Arena,
    pub room: Room,
    /// Whether ranks meet in memory of the host, since some devices do not reach each other; the same on all ranks.
    pub hosted: bool,
    /// By rank. Streams of calls never write to them: a fault is explained by what is read from them.
    pub arenas: Vec<DeviceBuffer<u8>>,
    /// By rank: where a rank packs what a launch is to read, `layout.half` bytes. Region 1.
    pub packs: Vec<DeviceBuffer<u8>>,
    pub state: DeviceBuffer<u64>,
    /// Addresses of regions, by region and rank.
    pub table: DeviceBuffer<u64>,
    /// By region and rank; the first two are the arenas and the packs.
    pub regions: Mutex<Vec<Vec<DeviceBuffer<u8>>>>,
    pub abort: Words,
    pub kernels: HashMap<Kernel, driver::Kernel>,
    /// For what calls do not wait for. No call is enqueued on it: a fault is explained by what is read through it.
    pub stream: Stream,
    pub reporter: Arc<Reporter>,
    pub transport: Arc<dyn Transport>,
    /// Those that calls were enqueued on.
    pub streams: Mutex<Vec<WeakStream>>,
    patience: AtomicU64,
}

impl Members {
    /// How long a wait of a kernel may take, in nanoseconds.
    pub fn patience(&self) -> u64 {
        // Relaxed: a number by itself.
        self.patience.load(Ordering::Relaxed)
    }

    pub fn set_patience(&self, timeout: Duration) {
        let nanoseconds = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX).min(1 << 62);
        // Relaxed: as above.
        self.patience.store(nanoseconds, Ordering::Relaxed);
    }

    /// Memory of this rank that peers see.
    pub fn allocate_shared(&self, bytes: usize) -> Result<DeviceBuffer<u8>> {
        allocate_shared(&self.device, self.hosted, bytes)
    }

    /// The failure of this communicator, if there was one.
    pub fn failure(&self, faults: &FaultWords) -> Result<()> {
        self.reporter.failure().or_else(|| faults.first()).map_or(Ok(()), Err)
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        // Of a communicator that was closed nothing is left here.
        let regions = std::mem::take(self.regions.get_mut().unwrap_or_else(PoisonError::into_inner));
        if self.lends() {
            outlive(regions.into_iter().filter_map(|buffers| buffers.into_iter().nth(self.rank)));
        }
    }
}

fn allocate_shared(device: &Device, hosted: bool, bytes: usize) -> Result<DeviceBuffer<u8>> {
    if hosted { device.allocate_hosted(bytes) } else { device.allocate_mappable(bytes) }
}

impl Communicator {
    /// A communicator of the same ranks on device memory: this rank's is of `device`. Collective; this communicator
    /// stays as it is. Ranks may have devices of their own or share them. Where two of the devices do not reach each
    /// other, all calls go through pinned memory of the host, which takes longer and has the same bits.
    ///
    /// Ranks that share an NVIDIA card as threads wait for one another on streams of one process, of which a card attends to
    /// 8 at a time unless `CUDA_DEVICE_MAX_CONNECTIONS` asks for more: set it to 32 before the program starts, which more
    /// than two such ranks must. Ranks that share one as processes take turns there, milliseconds each, unless NVIDIA's
    /// multi-process service (MPS) runs. While ranks wait for one another they occupy much of a card that they share: a
    /// kernel that must be resident as a whole (a cooperative launch) may have to wait for them, so no rank may need one
    /// before it comes to its call.
    ///
    /// Memory: each rank has room for three times what a launch moves from and to other buffers. That is 16 MiB on simulated
    /// devices, through the host and on small cards, and about a thousandth of the smallest card's memory else, at most
    /// 128 MiB: so 384 MiB a rank on a card of 141 GB. Schedules have
    /// [8 MiB](DeviceCommunicator::SCHEDULE_MEMORY) more, and messages 1 MiB for each rank.
    ///
    /// ```no_run
    /// use annulus::driver::Device;
    /// use annulus::{ReduceOp, run};
    ///
    /// run(4, |comm| {
    ///     let gpus = comm.on(&Device::simulated(0)?)?;
    ///     let stream = gpus.device().stream()?;
    ///     let buffer = gpus.allocate::<f32>(1000)?;
    ///     stream.fill(&buffer, comm.rank() as f32)?;
    ///     gpus.all_reduce_in_place(&buffer, ReduceOp::Sum, &stream)?; // enqueued; returns at once
    ///     assert_eq!(stream.read(&buffer)?, [6.0; 1000]);
    ///     Ok(())
    /// })?;
    /// # Ok::<(), annulus::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// On all ranks: `Unsupported` for more than 16 ranks, for devices of different kinds, where more ranks share a
    /// device than it has room for, and where ranks share an NVIDIA card as said above and the environment does not allow
    /// it; `System` where memory is exhausted; and the failures of every collective.
    pub fn on(&self, device: &Device) -> Result<DeviceCommunicator> {
        let world = self.world_size();
        if world > RANKS {
            return Err(Error::unsupported(format!(
                "kernels meet among {RANKS} ranks at the most, and there are {world}; split the communicator"
            )));
        }
        let control = self.duplicate()?;
        let kernels = agree(&control, "loading kernels", kernels(device))?;
        let Agreed { room, hosted, staged } = Agreed::new(&control, device, &kernels)?;
        #[cfg(annulus_corrupt)]
        let hosted = super::corrupt::hosted(hosted);
        let layout = Arena::new(world, DeviceCommunicator::LOW_LATENCY, staged);
        let parts = || {
            let arena = allocate_shared(device, hosted, layout.bytes as usize)?;
            let (state, table) = (device.allocate(STATE_BYTES / 8)?, device.allocate(REGIONS * world)?);
            let pack = allocate_shared(device, hosted, layout.half as usize)?;
            let journal = history::allocate(device)?;
            Ok((arena, pack, state, table, device.words(1)?, journal, device.urgent_stream()?))
        };
        let (arena, pack, state, table, abort, journal, stream) =
            agree(&control, "allocating what calls on devices need", parts())?;
        let arenas = exchange(&control, device, &arena)?;
        #[cfg(annulus_corrupt)]
        let arenas = super::corrupt::lost(arenas, self.rank(), device)?;
        let members = Members {
            rank: self.rank(),
            world,
            device: device.clone(),
            layout,
            room,
            hosted,
            arenas,
            packs: exchange(&control, device, &pack)?,
            state,
            table,
            regions: Mutex::default(),
            abort,
            kernels,
            stream,
            reporter: control.reporter.clone(),
            transport: control.transport().clone(),
            streams: Mutex::default(),
            patience: AtomicU64::default(),
        };
        members.set_patience(self.timeout.get());
        let members = Arc::new(members);
        let start = || {
            members.add_region(members.arenas.clone())?;
            members.add_region(members.packs.clone())?;
            let (faults, explaining) = fault_words(&members)?;
            Ok((faults, explaining))
        };
        let (faults, explaining) = agree(&control, "preparing calls on devices", start())?;
        let (history, schedules) = (History::new(journal, members.stream.clone()), Schedules::new(&control, &members)?);
        let control = Arc::new(Mutex::new(control));
        let watchdog = Watchdog::start(members.clone(), faults.clone(), control.clone());
        let watchdog = agree(&locked(&control), "preparing calls on devices", watchdog)?;
        let made = DeviceCommunicator {
            members,
            faults,
            explaining,
            path: Cell::default(),
            history,
            schedules,
            watchdog,
            control,
        };
        made.test_self().map_err(|error| fault::of_self_test(&made.members, error))?;
        made.history.clear();
        Ok(made)
    }
}

/// Who makes a sentence of what a kernel reports. Streams that have watched a communicator hold it, and so do notes of
/// the memory that calls use: it must not hold that memory longer than the communicator does.
struct Explainer {
    /// While the communicator lives.
    members: Mutex<Option<Arc<Members>>>,
    report: OnceLock<Words>,
    reporter: Arc<Reporter>,
}

impl Explainer {
    fn explain(&self) -> Error {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match (members, self.report.get()) {
            (Some(members), Some(report)) => fault::explain(&members, report),
            _ => self.reporter.report(Error::Aborted(
                "a call failed whose communicator had been dropped; keep it until its calls have been done".into(),
            )),
        }
    }
}

/// The communicator's hold on what explaining needs.
pub(super) struct Explaining(Arc<Explainer>);

impl Drop for Explaining {
    fn drop(&mut self) {
        let members = self.0.members.lock().unwrap_or_else(PoisonError::into_inner).take();
        // With the lock given up: it may be the last holder.
        drop(members);
    }
}

/// What kernels report by, in words of this communicator.
fn fault_words(members: &Arc<Members>) -> Result<(FaultWords, Explaining)> {
    let explainer = Arc::new(Explainer {
        members: Mutex::new(Some(members.clone())),
        report: OnceLock::new(),
        reporter: members.reporter.clone(),
    });
    let explaining = Explaining(explainer.clone());
    let faults = members.device.fault_words(move |_| explainer.explain())?;
    explaining.0.report.get_or_init(|| faults.words().clone());
    Ok((faults, explaining))
}

/// Every kernel by which calls are made.
fn kernels(device: &Device) -> Result<HashMap<Kernel, driver::Kernel>> {
    let all_reduces = [Kernel::OneShot, Kernel::TwoShot, Kernel::Ring, Kernel::LowLatency];
    let folds = [Kernel::Reduce, Kernel::ReduceScatter, Kernel::Fold, Kernel::FoldPartials];
    let typed = all_reduces.into_iter().chain(folds).flat_map(|of| DataType::ALL.map(of));
    let moves = [Kernel::AllGather, Kernel::Broadcast, Kernel::Scatter, Kernel::Gather, Kernel::AllToAll];
    let all = typed.chain(moves).chain([Kernel::Barrier, Kernel::Flags, Kernel::Messages, Kernel::Relay]);
    all.map(|kernel| Ok((kernel, device.kernel(&kernel.to_string())?))).collect()
}
