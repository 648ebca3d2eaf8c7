// SPDX-License-Identifier: MPL-2.0
//! Streams: a queue of operations, and a thread that does them one after the other. It ends when the stream is closed
//! and the queue empty.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::ffi::c_void;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::super::backend::{Address, Failure, HostFunction};
use super::event::Record;
use super::execution::{Launch, Processor};
use super::refused;

/// What a stream does. Whoever enqueues one answers for its addresses (see `Backend`).
#[derive(Clone)]
pub(super) enum Operation {
    Copy { to: Address, from: Address, bytes: usize },
    Fill { to: Address, pattern: u64, width: usize, count: usize },
    Call { function: HostFunction, data: Address },
    Launch(Arc<Launch>),
    Record(Arc<Record>),
    Wait(Arc<Record>),
    Graph(Arc<Recorded>),
}

/// Captured operations, in their order.
pub(super) struct Recorded(Vec<Operation>);

/// A stream, as its thread and those that enqueue see it.
#[derive(Default)]
pub(super) struct Stream {
    queue: Mutex<Queue>,
    /// There is something to do, or nothing will ever be again.
    work: Condvar,
    /// An operation has been done.
    progress: Condvar,
}

#[derive(Default)]
struct Queue {
    operations: VecDeque<Operation>,
    enqueued: u64,
    done: u64,
    closed: bool,
    capture: Option<Vec<Operation>>,
    /// The first.
    failure: Option<Failure>,
}

impl Stream {
    /// A stream whose kernels run on `processor`.
    pub fn start(processor: Arc<Processor>) -> io::Result<Arc<Stream>> {
        let stream = Arc::new(Stream::default());
        let own = stream.clone();
        std::thread::Builder::new().name("annulus-stream".into()).spawn(move || own.serve(&processor))?;
        Ok(stream)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To the queue, or into the capture.
    pub fn enqueue(&self, operation: Operation) {
        let mut queue = self.queue();
        if let Some(capture) = &mut queue.capture {
            return capture.push(operation);
        }
        queue.operations.push_back(operation);
        queue.enqueued += 1;
        self.work.notify_one();
    }

    pub fn synchronize(&self) -> Result<(), Failure> {
        let queue = self.queue();
        if queue.capture.is_some() {
            return Err(refused("synchronize_stream", Errno::BUSY, "the stream captures a graph"));
        }
        let target = queue.enqueued;
        let waited = self.progress.wait_while(queue, |queue| queue.done < target);
        let queue = waited.unwrap_or_else(PoisonError::into_inner);
        queue.failure.clone().map_or(Ok(()), Err)
    }

    pub fn begin_capture(&self) {
        self.queue().capture = Some(Vec::new());
    }

    pub fn end_capture(&self) -> Recorded {
        Recorded(self.queue().capture.take().unwrap_or_default())
    }

    pub fn close(&self) {
        self.queue().closed = true;
        self.work.notify_one();
    }

    /// What the stream's thread does.
    fn serve(&self, processor: &Processor) {
        let mut launches = 0;
        loop {
            let queue = self.queue();
            let idle = |queue: &mut Queue| queue.operations.is_empty() && !queue.closed;
            let mut queue = self.work.wait_while(queue, idle).unwrap_or_else(PoisonError::into_inner);
            let Some(operation) = queue.operations.pop_front() else { return };
            drop(queue);
            self.perform(&operation, processor, &mut launches);
            drop(operation);
            self.queue().done += 1;
            self.progress.notify_all();
        }
    }

    fn perform(&self, operation: &Operation, processor: &Processor, launches: &mut u64) {
        match operation {
            Operation::Copy { to, from, bytes } => {
                // SAFETY: By the promise of whoever enqueued it, both ranges are memory of that many bytes which this
                // process maps, they do not overlap, and nobody uses them meanwhile but as a copy allows.
                unsafe { std::ptr::copy_nonoverlapping(*from as *const u8, *to as *mut u8, *bytes) };
            }
            Operation::Fill { to, pattern, width, count } => fill(*to, *pattern, *width, *count),
            // SAFETY: by the same promise, the function may be called with its data until this is done.
            Operation::Call { function, data } => unsafe { function(*data as *mut c_void) },
            Operation::Launch(launch) => {
                *launches += 1;
                // SAFETY: by the same promise, the argument is the kernel's and its memory is there.
                if let Err(failure) = unsafe { launch.run(processor, *launches) } {
                    self.queue().failure.get_or_insert(failure);
                }
            }
            Operation::Record(record) => {
                let failure = self.queue().failure.clone();
                record.pass(failure);
            }
            // What the other stream has failed with is that stream's to report.
            Operation::Wait(record) => drop(record.wait()),
            Operation::Graph(graph) => {
                graph.0.iter().for_each(|operation| self.perform(operation, processor, launches));
            }
        }
    }
}

/// Stores the lowest `width` bytes of `pattern`, `count` times.
fn fill(to: Address, pattern: u64, width: usize, count: usize) {
    let bytes = pattern.to_le_bytes();
    let range = std::ptr::with_exposed_provenance_mut::<u8>(to as usize);
    if bytes[..width].iter().all(|byte| *byte == bytes[0]) {
        // SAFETY: by the promise of whoever enqueued the fill, the range has `width * count` bytes.
        return unsafe { range.write_bytes(bytes[0], width * count) };
    }
    for index in 0..count {
        // SAFETY: as above; the pattern has at least `width` bytes.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), range.add(index * width), width) };
    }
}
