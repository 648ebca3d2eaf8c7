// SPDX-License-Identifier: MPL-2.0
//! Streams and events.
#![allow(unsafe_code)]

use std::ptr;

use super::{Card, Graph, Memory};
use crate::driver::cuda::Fault;
use crate::driver::cuda::sys::{CUevent, CUstream, CUstreamCaptureMode};

impl Card {
    /// A stream that does not wait for the default stream.
    pub fn stream(&self) -> Result<Stream<'_>, Fault> {
        const NON_BLOCKING: u32 = 1;
        let mut stream = ptr::null_mut();
        // SAFETY: the pointer is to a variable of ours.
        unsafe { self.driver.cuStreamCreate(&mut stream, NON_BLOCKING) }?;
        Ok(Stream { card: self, stream })
    }

    /// The same, of the highest priority.
    pub fn urgent_stream(&self) -> Result<Stream<'_>, Fault> {
        const NON_BLOCKING: u32 = 1;
        // Beyond the highest of any card, for which the driver takes it.
        const HIGHEST: i32 = -1000;
        let mut stream = ptr::null_mut();
        // SAFETY: the pointer is to a variable of ours.
        unsafe { self.driver.cuStreamCreateWithPriority(&mut stream, NON_BLOCKING, HIGHEST) }?;
        Ok(Stream { card: self, stream })
    }

    /// An event that keeps the time, or not.
    pub fn event(&self, timed: bool) -> Result<Event<'_>, Fault> {
        const DISABLE_TIMING: u32 = 2;
        let mut event = ptr::null_mut();
        // SAFETY: the pointer is to a variable of ours.
        unsafe { self.driver.cuEventCreate(&mut event, if timed { 0 } else { DISABLE_TIMING }) }?;
        Ok(Event { card: self, event })
    }
}

/// An ordered queue of work.
pub(in super::super) struct Stream<'a> {
    card: &'a Card,
    pub(super) stream: CUstream,
}

impl<'a> Stream<'a> {
    /// Waits until it is empty.
    pub fn synchronize(&self) -> Result<(), Fault> {
        // SAFETY: the stream lives.
        unsafe { self.card.driver.cuStreamSynchronize(self.stream) }
    }

    /// What is enqueued from now on waits for what the event stands for.
    pub fn wait(&self, event: &Event) -> Result<(), Fault> {
        // SAFETY: both live.
        unsafe { self.card.driver.cuStreamWaitEvent(self.stream, event.event, 0) }
    }

    /// Writes the first word of `memory`.
    pub fn write_value(&self, memory: &impl Memory, value: u32) -> Result<(), Fault> {
        // SAFETY: the stream lives, and the memory has a word.
        unsafe { self.card.driver.cuStreamWriteValue32_v2(self.stream, memory.address(), value, 0) }
    }

    /// Waits until the first word of `memory` is at least `value`.
    pub fn wait_value(&self, memory: &impl Memory, value: u32) -> Result<(), Fault> {
        const AT_LEAST: u32 = 0;
        // SAFETY: the stream lives, and the memory has a word.
        unsafe { self.card.driver.cuStreamWaitValue32_v2(self.stream, memory.address(), value, AT_LEAST) }
    }

    /// What is enqueued from now on becomes a graph.
    pub fn begin_capture(&self) -> Result<(), Fault> {
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream lives.
        unsafe { self.card.driver.cuStreamBeginCapture_v2(self.stream, mode) }
    }

    /// The graph of what was enqueued since.
    pub fn end_capture(&self) -> Result<Graph<'a>, Fault> {
        let mut graph = ptr::null_mut();
        // SAFETY: the stream lives; the pointer is to a variable of ours.
        unsafe { self.card.driver.cuStreamEndCapture(self.stream, &mut graph) }?;
        Ok(Graph { card: self.card, graph })
    }
}

/// A point in a stream.
pub(in super::super) struct Event<'a> {
    card: &'a Card,
    event: CUevent,
}

impl Event<'_> {
    /// It stands for what was enqueued so far.
    pub fn record(&self, stream: &Stream) -> Result<(), Fault> {
        // SAFETY: both live.
        unsafe { self.card.driver.cuEventRecord(self.event, stream.stream) }
    }

    pub fn synchronize(&self) -> Result<(), Fault> {
        // SAFETY: the event lives.
        unsafe { self.card.driver.cuEventSynchronize(self.event) }
    }

    /// Nanoseconds on the device since `earlier`; both keep the time and have passed.
    pub fn nanoseconds_since(&self, earlier: &Event) -> Result<f64, Fault> {
        let mut milliseconds = 0.0;
        // SAFETY: both live; the pointer is to a variable of ours.
        unsafe { self.card.driver.cuEventElapsedTime(&mut milliseconds, earlier.event, self.event) }?;
        Ok(f64::from(milliseconds) * 1e6)
    }
}
