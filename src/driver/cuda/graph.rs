// SPDX-License-Identifier: MPL-2.0
//! Graphs: captured on one stream, made ready, launched. An id is the driver's handle of what can be launched.
#![allow(unsafe_code)]

use std::ptr;

use super::super::backend::{GraphId, StreamId};
use super::context::Entered;
use super::library::Fault;
use super::memory::raw;
use super::sys::{CUgraph, CUgraphExec, CUstreamCaptureMode};

/// Begins a capture that leaves everybody else in peace: other threads may allocate meanwhile, and so may this one.
///
/// # Safety
/// The stream lives and captures nothing.
pub(super) unsafe fn begin(driver: &Entered, stream: StreamId) -> Result<(), Fault> {
    // SAFETY: the caller's promise.
    unsafe { driver.cuStreamBeginCapture_v2(raw(stream), CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED) }
}

/// Ends a capture and makes what was captured ready: also on the device, so that its first launch allocates nothing.
///
/// # Safety
/// The stream lives and captures.
pub(super) unsafe fn end(driver: &Entered, stream: StreamId) -> Result<GraphId, Fault> {
    let mut graph = ptr::null_mut();
    // SAFETY: the caller's promise; the pointer is to a variable of ours.
    unsafe { driver.cuStreamEndCapture(raw(stream), &mut graph) }?;
    // SAFETY: the graph is the one that was captured.
    let ready = unsafe { ready(driver, graph, stream) };
    // SAFETY: what can be launched is a copy of it.
    unsafe { driver.cuGraphDestroy(graph) }?;
    ready
}

/// # Safety
/// The graph and the stream live.
unsafe fn ready(driver: &Entered, graph: CUgraph, stream: StreamId) -> Result<GraphId, Fault> {
    let mut executable = ptr::null_mut();
    // SAFETY: the pointer is to a variable of ours; the rest is the caller's promise.
    unsafe { driver.cuGraphInstantiateWithFlags(&mut executable, graph, 0) }?;
    // SAFETY: as above.
    if let Err(fault) = unsafe { driver.cuGraphUpload(executable, raw(stream)) } {
        // SAFETY: nobody has been told of it.
        let _ = unsafe { driver.cuGraphExecDestroy(executable) };
        return Err(fault);
    }
    Ok(GraphId(executable.expose_provenance() as u64))
}

pub(super) fn raw_graph(graph: GraphId) -> CUgraphExec {
    ptr::with_exposed_provenance_mut(graph.0 as usize)
}
