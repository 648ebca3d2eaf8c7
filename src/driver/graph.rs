// SPDX-License-Identifier: MPL-2.0
//! Graphs: operations captured once and launched often; and functions of the host, which may be among them.
#![allow(unsafe_code)]

use std::any::Any;
use std::ffi::c_void;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use super::backend::GraphId;
use super::device::{Core, Device};
use super::faults::FaultWords;
use super::mark::Mark;
use super::queue::weight_of;
use super::stream::{Captured, Stream};
use crate::error::{Error, Result};

/// Operations of one stream, captured by [`Stream::capture`]. It shares the ownership of all that they use. Clones are
/// the same graph.
#[derive(Clone)]
pub struct Graph {
    core: Arc<GraphCore>,
}

struct GraphCore {
    device: Arc<Core>,
    id: GraphId,
    captured: Captured,
    /// What the operations may report faults by.
    faults: Vec<FaultWords>,
    /// Behind its last launch. One launch follows the other, also on different streams.
    last: Mutex<Option<Arc<Mark>>>,
}

impl Stream {
    /// Captures what `work` enqueues on this stream, instead of doing it. The graph uses the very buffers, so each
    /// launch works on what is in them then.
    ///
    /// # Errors
    ///
    /// What `work` returns; `InvalidArgument` where the stream captures already. Meanwhile the stream refuses what
    /// waits for the host or for another stream.
    pub fn capture(&self, work: impl FnOnce(&Stream) -> Result<()>) -> Result<Graph> {
        self.begin_capture()?;
        let mut capture = Capturing(Some(self));
        let worked = work(self);
        capture.0 = None;
        let (id, captured) = self.end_capture()?;
        let device = self.core.device.clone();
        let core = GraphCore { device, id, captured, faults: self.watched().all(), last: Mutex::default() };
        let graph = Graph { core: Arc::new(core) };
        worked.map(|()| graph)
    }

    /// Enqueues a call of a function of the host, which runs on a thread of the driver. Operations behind it wait for
    /// it. It must not call this library: the driver's thread must not wait for the driver. A panic in it is a fault of
    /// the stream.
    ///
    /// # Errors
    ///
    /// `System` where the driver refuses.
    pub fn call(&self, function: impl Fn() + Send + Sync + 'static) -> Result<()> {
        let call = Arc::new(Call { function: Box::new(function), faults: self.fault_words().clone() });
        let data = Arc::as_ptr(&call).cast_mut().cast::<c_void>();
        self.enqueue("calling a function of the host", Vec::new(), vec![call], |backend, stream| {
            // SAFETY: the data is a `Call`, which is kept until the operation has been done.
            unsafe { backend.call_host(call_function, data, stream) }
        })
    }
}

/// A capture in progress, ended when `work` panics too: then what was captured goes.
struct Capturing<'a>(Option<&'a Stream>);

impl Drop for Capturing<'_> {
    fn drop(&mut self) {
        if let Some(stream) = self.0
            && let Ok((id, _)) = stream.end_capture()
        {
            // SAFETY: the graph was made just now and never launched.
            unsafe { stream.core.device.backend.destroy_graph(id) };
        }
    }
}

struct Call {
    function: Box<dyn Fn() + Send + Sync>,
    faults: FaultWords,
}

/// # Safety
/// `data` points to a `Call`.
unsafe extern "C" fn call_function(data: *mut c_void) {
    // SAFETY: the caller's promise; calls are only shared.
    let call = unsafe { &*data.cast::<Call>() };
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (call.function)())) {
        let words = sentence(&*panic);
        // Dropping what was thrown may panic again, and nothing may unwind into the driver.
        std::mem::forget(panic);
        let fault = format!("a function that a stream called panicked: {words}");
        call.faults.report(Error::Aborted(fault.into()));
    }
}

/// What a panic said, if it said something.
fn sentence(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<&str>().map(ToString::to_string);
    words.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it gave no reason".into())
}

impl Graph {
    /// Enqueues all that was captured. Buffers are ordered with other streams as if each operation had been enqueued.
    /// Launches of one graph follow one another, whatever their streams.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` on a stream of another device, or on one that captures; `System` where the driver refuses.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        let graph = &self.core;
        if !Arc::ptr_eq(&graph.device, &stream.core.device) {
            return Err(Error::invalid(format!(
                "a graph of {} cannot be launched on {stream}; use a stream of that device",
                graph.device
            )));
        }
        stream.refuse_in_capture("launch a graph")?;
        stream.watched().add_all(&graph.faults);
        let mut last = graph.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (usages, kept) = (graph.captured.usages.clone(), graph.clone());
        let mark = stream.enqueue_after(
            "launching a graph",
            usages,
            vec![kept],
            last.clone().filter(|mark| !mark.has_passed()),
            weight_of(graph.captured.operations),
            // SAFETY: the graph is of this device, lives as long as it is kept, and keeps all it uses.
            |backend, stream| unsafe { backend.launch_graph(graph.id, stream) },
        )?;
        *last = mark;
        Ok(())
    }

    /// The device whose graph it is.
    pub fn device(&self) -> Device {
        Device { core: self.core.device.clone() }
    }
}

impl Drop for GraphCore {
    fn drop(&mut self) {
        // SAFETY: this is the last holder, and launches that have not been done are holders.
        unsafe { self.device.backend.destroy_graph(self.id) };
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Graph({:?} of {})", self.core.id, self.core.device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_has_each_use_once() {
        // Where there is no C++ compiler, there is no such device.
        let Ok(device) = Device::simulated(0) else { return };
        let stream = device.stream().unwrap();
        let buffers = [(); 2].map(|()| device.allocate::<u32>(100).unwrap());
        let [one, other] = &buffers;
        let step = |stream: &Stream| {
            stream.fill(one, 1)?; // overwrites
            stream.fill(&one.part(..50)?, 2)?; // another range
            stream.copy(one, other) // reads, overwrites
        };
        let graph = stream.capture(|stream| (0..100).try_for_each(|_| step(stream))).unwrap();
        assert_eq!(graph.core.captured.usages.len(), 4);
        // What is ordered by them is as it was.
        let second = device.stream().unwrap();
        graph.launch(&stream).unwrap();
        let [mut filled, mut copied] = [vec![1; 100], vec![1; 100]];
        filled[..50].fill(2);
        copied[..50].fill(2);
        assert_eq!(second.read(other).unwrap(), copied);
        assert_eq!(second.read(one).unwrap(), filled);
    }
}
