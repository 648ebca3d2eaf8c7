// SPDX-License-Identifier: MPL-2.0
//! The simulated device: a backend that executes everything on the CPU, the library's own kernels included.
//!
//! A stream is a thread (`stream`), an event a place that threads wait for (`event`), a graph a list of operations.
//! Device memory is the process's own memory, so every simulated device addresses everything; which devices reach each
//! other is what they have been told (`settings`), and copies keep to it. Kernels run by `kernels/host` (`execution`),
//! on a device that has room for so many blocks, like a card; or, on a strict device, by `kernels/host/strict`, which
//! looks at everything that they do (`strict`).
#![allow(unsafe_code)]

mod event;
mod execution;
mod memory;
mod settings;
mod stream;
mod strict;
mod table;

use std::ffi::{CString, c_void};
use std::path::Path;
use std::sync::{Arc, LazyLock};

use rustix::io::Errno;

use self::event::Event;
use self::execution::{Processor, Quick};
use self::memory::Memory;
use self::settings::Settings;
use self::stream::{Operation, Recorded, Stream};
use self::strict::Strict;
use self::table::Table;
#[cfg(all(feature = "cuda", target_os = "linux"))]
use super::backend::Whole;
use super::backend::{
    Address, Backend, EventId, Failure, Function, FunctionId, GraphId, Grid, Handle, HostFunction, MemoryKind, StreamId,
};
use super::capabilities::{Capabilities, Platform};
use super::mapping::refused;
use crate::error::{Error, Result};

/// What all simulated devices of this process share.
static STREAMS: LazyLock<Table<Stream>> = LazyLock::new(Table::default);
static EVENTS: LazyLock<Table<Event>> = LazyLock::new(Table::default);
static GRAPHS: LazyLock<Table<Recorded>> = LazyLock::new(Table::default);
static MEMORY: LazyLock<Memory> = LazyLock::new(Memory::default);

/// One simulated device.
pub(super) struct Simulated {
    capabilities: Capabilities,
    settings: Arc<Settings>,
    processor: Arc<Processor>,
}

/// As many devices as the environment asks for, and of the kind that it asks for. To be called once: their processors live
/// for ever.
pub(super) fn devices() -> Result<Vec<Simulated>> {
    let settings = Arc::new(Settings::from_environment()?);
    if settings.strict.is_some() {
        available()?;
    }
    Ok((0..settings.devices).map(|index| Simulated::new(index, settings.strict, &settings)).collect())
}

/// A strict device of that seed and number, or why there is none. Its processor lives for ever.
pub(super) fn strict_device(index: usize, seed: u64) -> Result<Simulated> {
    let settings = Arc::new(Settings::from_environment()?);
    available()?;
    if index >= settings.devices {
        return Err(Error::invalid(format!(
            "there is no simulated device {index}: there are {}, numbered from 0 on; set ANNULUS_SIM_DEVICES to have more",
            settings.devices
        )));
    }
    Ok(Simulated::new(index, Some(seed), &settings))
}

/// Whether there can be strict devices.
fn available() -> Result<()> {
    let sentence = |why| Error::unsupported(format!("this build of Annulus has no strict devices: {why}"));
    strict::obstacle().map_or(Ok(()), |why| Err(sentence(why)))
}

/// Adds the kernels of a file to those of strict devices.
pub(super) fn add_kernels(source: &Path) -> Result<()> {
    available()?;
    strict::add_kernels(source).map_err(|why| {
        Error::invalid(format!("the kernels of {} cannot be added to strict devices: {why}", source.display()))
    })
}

/// Bytes of the argument of the kernel of that name.
#[cfg(all(test, feature = "cuda"))]
pub(super) fn argument_bytes(name: &str) -> Option<usize> {
    execution::find(&CString::new(name).ok()?).map(|(_, bytes)| bytes)
}

impl Simulated {
    fn new(index: usize, strict: Option<u64>, settings: &Arc<Settings>) -> Self {
        let quick = Quick::new();
        let model = quick.model();
        let information = rustix::system::sysinfo();
        let capabilities = Capabilities {
            platform: Platform::Simulated,
            index,
            identity: (index as u128).to_le_bytes(),
            name: strict.map_or("CPU".into(), |seed| format!("CPU, strict, seed {seed}")),
            multiprocessors: model.multiprocessors,
            warp: model.warp,
            threads_per_block: model.threads_per_block,
            shared_per_block: model.shared_per_block,
            memory: (information.totalram as u64).saturating_mul(u64::from(information.mem_unit)),
        };
        let processor = strict.map_or(Processor::Quick(quick), |seed| Processor::Strict(Strict::new(seed)));
        Simulated { capabilities, settings: settings.clone(), processor: Arc::new(processor) }
    }

    fn enqueue(&self, call: &'static str, stream: StreamId, operation: Operation) -> Result<(), Failure> {
        STREAMS.get(call, stream.0)?.enqueue(operation);
        Ok(())
    }
}

// SAFETY: Memory is mapped in pages, more than 256 bytes; ids count up; a stream does its operations in order, one at a
// time, and an event is passed by the operation that records it (`stream`). Locks order one thread's operations before
// those of another that waited for its event.
unsafe impl Backend for Simulated {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn remark(&self) -> Option<String> {
        match &*self.processor {
            Processor::Quick(_) => None,
            Processor::Strict(strict) => strict.take_unwritten(),
        }
    }

    fn peer(&self, identity: [u8; 16]) -> Option<usize> {
        let index = usize::try_from(u128::from_le_bytes(identity)).ok()?;
        (index < self.settings.devices).then_some(index)
    }

    fn reaches(&self, other: usize) -> Result<bool, Failure> {
        if other >= self.settings.devices {
            return Err(refused("reaches", Errno::NODEV, format!("there is no simulated device {other}")));
        }
        Ok(self.settings.reaches(self.capabilities.index, other))
    }

    fn enable_peer(&self, other: usize) -> Result<(), Failure> {
        if self.reaches(other)? {
            return Ok(());
        }
        Err(refused("enable_peer", Errno::ACCESS, format!("device {other} is out of reach")))
    }

    fn allocate(&self, bytes: usize, kind: MemoryKind) -> Result<Address, Failure> {
        MEMORY.allocate(bytes, kind, &self.capabilities)
    }

    unsafe fn free(&self, address: Address, _: MemoryKind) -> Result<(), Failure> {
        MEMORY.free(address)
    }

    unsafe fn export(&self, address: Address) -> Result<(Handle, u64, u64), Failure> {
        Ok((MEMORY.export(address)?, 0, 0))
    }

    fn import(&self, handle: &Handle, _: u64, _: MemoryKind) -> Result<(Address, usize), Failure> {
        MEMORY.import(handle, |device| self.reaches(device))
    }

    #[cfg(all(feature = "cuda", target_os = "linux"))]
    fn inspect(&self, address: Address) -> Result<Whole, Failure> {
        Err(refused("inspect", Errno::NOTSUP, format!("{address:#x} is no memory of simulated devices")))
    }

    fn create_stream(&self, _: bool) -> Result<StreamId, Failure> {
        let stream = Stream::start(self.processor.clone()).map_err(|error| Failure {
            call: "starting a thread",
            code: error.raw_os_error().unwrap_or_default(),
            meaning: error.to_string(),
        })?;
        Ok(StreamId(STREAMS.insert(stream)))
    }

    unsafe fn destroy_stream(&self, stream: StreamId) {
        if let Some(stream) = STREAMS.remove(stream.0) {
            stream.close();
        }
    }

    unsafe fn synchronize_stream(&self, stream: StreamId) -> Result<(), Failure> {
        STREAMS.get("synchronize_stream", stream.0)?.synchronize()
    }

    fn create_event(&self, _: bool) -> Result<EventId, Failure> {
        Ok(EventId(EVENTS.insert(Arc::default())))
    }

    unsafe fn destroy_event(&self, event: EventId) {
        EVENTS.remove(event.0);
    }

    unsafe fn record_event(&self, event: EventId, stream: StreamId) -> Result<(), Failure> {
        let record = EVENTS.get("record_event", event.0)?.record();
        self.enqueue("record_event", stream, Operation::Record(record))
    }

    unsafe fn wait_event(&self, stream: StreamId, event: EventId) -> Result<(), Failure> {
        match EVENTS.get("wait_event", event.0)?.last() {
            Some(record) => self.enqueue("wait_event", stream, Operation::Wait(record)),
            None => Ok(()),
        }
    }

    unsafe fn synchronize_event(&self, event: EventId) -> Result<(), Failure> {
        EVENTS.get("synchronize_event", event.0)?.last().map_or(Ok(()), |record| record.wait())
    }

    unsafe fn has_passed(&self, event: EventId) -> Result<bool, Failure> {
        Ok(EVENTS.get("has_passed", event.0)?.last().is_none_or(|record| record.time().is_some()))
    }

    unsafe fn nanoseconds(&self, from: EventId, to: EventId) -> Result<f64, Failure> {
        let time = |event: EventId| {
            let time = EVENTS.get("nanoseconds", event.0)?.last().and_then(|record| record.time());
            time.ok_or_else(|| refused("nanoseconds", Errno::AGAIN, "one of the events has not passed"))
        };
        Ok(time(to)?.saturating_duration_since(time(from)?).as_nanos() as f64)
    }

    unsafe fn copy(&self, to: Address, from: Address, bytes: usize, stream: StreamId) -> Result<(), Failure> {
        self.enqueue("copy", stream, Operation::Copy { to, from, bytes })
    }

    unsafe fn copy_between(
        &self,
        to: (usize, Address),
        from: (usize, Address),
        bytes: usize,
        stream: StreamId,
    ) -> Result<(), Failure> {
        self.enable_peer(to.0)?;
        self.enable_peer(from.0)?;
        self.enqueue("copy_between", stream, Operation::Copy { to: to.1, from: from.1, bytes })
    }

    unsafe fn fill(
        &self,
        to: Address,
        pattern: u64,
        width: usize,
        count: usize,
        stream: StreamId,
    ) -> Result<(), Failure> {
        self.enqueue("fill", stream, Operation::Fill { to, pattern, width, count })
    }

    unsafe fn call_host(&self, function: HostFunction, data: *mut c_void, stream: StreamId) -> Result<(), Failure> {
        self.enqueue("call_host", stream, Operation::Call { function, data: data as Address })
    }

    fn function(&self, name: &str) -> Result<Option<Function>, Failure> {
        let Ok(name) = CString::new(name) else { return Ok(None) };
        Ok(self
            .processor
            .find(&name)?
            .map(|(kernel, argument_bytes)| Function { id: FunctionId(kernel), argument_bytes: Some(argument_bytes) }))
    }

    unsafe fn resident_blocks(&self, _: FunctionId, threads: u32, shared: u32) -> Result<u32, Failure> {
        Ok(self.processor.resident(threads, shared))
    }

    unsafe fn launch(
        &self,
        function: FunctionId,
        grid: Grid,
        together: bool,
        argument: &[u8],
        stream: StreamId,
    ) -> Result<(), Failure> {
        let room = self.processor.resident(grid.threads, grid.shared);
        if room == 0 || (together && grid.blocks > room) {
            return Err(refused("launch", Errno::NOSPC, format!("there is room for {room} blocks of this shape")));
        }
        let launch = execution::Launch::new(function.0, grid, argument);
        self.enqueue("launch", stream, Operation::Launch(Arc::new(launch)))
    }

    unsafe fn begin_capture(&self, stream: StreamId) -> Result<(), Failure> {
        STREAMS.get("begin_capture", stream.0)?.begin_capture();
        Ok(())
    }

    unsafe fn end_capture(&self, stream: StreamId) -> Result<GraphId, Failure> {
        let recorded = STREAMS.get("end_capture", stream.0)?.end_capture();
        Ok(GraphId(GRAPHS.insert(Arc::new(recorded))))
    }

    unsafe fn launch_graph(&self, graph: GraphId, stream: StreamId) -> Result<(), Failure> {
        let graph = GRAPHS.get("launch_graph", graph.0)?;
        self.enqueue("launch_graph", stream, Operation::Graph(graph))
    }

    unsafe fn destroy_graph(&self, graph: GraphId) {
        GRAPHS.remove(graph.0);
    }
}
