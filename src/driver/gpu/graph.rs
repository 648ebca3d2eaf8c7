// SPDX-License-Identifier: MPL-2.0
//! Graphs: captured on one stream, made ready, launched. An id is the driver's handle of what can be launched.
#![allow(unsafe_code)]

use std::ptr;

use super::super::backend::{GraphId, StreamId};
use super::calls::Object;
use super::context::Entered;
use super::fault::Fault;
use super::memory::raw;

/// Begins a capture that leaves everybody else in peace: other threads may allocate meanwhile, and so may this one.
///
/// # Safety
/// The stream lives.
pub(super) unsafe fn is_capturing(driver: &Entered, stream: StreamId) -> Result<bool, Fault> {
    let mut status = 0;
    // SAFETY: the caller's promise; the pointer is to a variable of ours.
    unsafe { driver.is_capturing(&mut status, raw(stream)) }?;
    Ok(status != 0)
}

/// # Safety
/// The stream lives and captures nothing.
pub(super) unsafe fn begin(driver: &Entered, stream: StreamId) -> Result<(), Fault> {
    // SAFETY: the caller's promise.
    unsafe { driver.begin_capture(raw(stream)) }
}

/// Ends a capture and makes what was captured ready: also on the device, so that its first launch allocates nothing.
///
/// # Safety
/// The stream lives and captures.
pub(super) unsafe fn end(driver: &Entered, stream: StreamId) -> Result<GraphId, Fault> {
    let mut graph = ptr::null_mut();
    // SAFETY: the caller's promise; the pointer is to a variable of ours.
    unsafe { driver.end_capture(raw(stream), &mut graph) }?;
    // SAFETY: the graph is the one that was captured.
    let ready = unsafe { ready(driver, graph, stream) };
    // SAFETY: what can be launched is a copy of it.
    unsafe { driver.destroy_graph(graph) }?;
    ready
}

/// # Safety
/// The graph and the stream live.
unsafe fn ready(driver: &Entered, graph: Object, stream: StreamId) -> Result<GraphId, Fault> {
    let mut executable = ptr::null_mut();
    // SAFETY: the pointer is to a variable of ours; the rest is the caller's promise.
    unsafe { driver.instantiate(&mut executable, graph) }?;
    // SAFETY: as above.
    if let Err(fault) = unsafe { driver.upload(executable, raw(stream)) } {
        // SAFETY: nobody has been told of it.
        let _ = unsafe { driver.destroy_executable(executable) };
        return Err(fault);
    }
    Ok(GraphId(executable.expose_provenance() as u64))
}

pub(super) fn raw_graph(graph: GraphId) -> Object {
    ptr::with_exposed_provenance_mut(graph.0 as usize)
}
