// SPDX-License-Identifier: MPL-2.0
//! Gradients in buckets, averaged over the ranks while the backward pass still runs.
//!
//! The backward pass yields gradients from the last layer to the first. So the parameters are laid into buckets in
//! reverse order; each bucket is one piece of shared memory, and each gradient is a view of its part. When the last
//! gradient of a bucket is final, a hook moves the bucket into an all-reduce, and the pass goes on with the layers
//! before. [`Ddp::finish`] waits for all and gives the buckets back: then every gradient is the average.
//!
//! ```text
//! parameters   layers.0.weight layers.0.bias | layers.1.weight layers.1.bias layers.2.weight layers.2.bias
//! bucket                      1              |                              0
//! backward     <--------------- start 1 ---- | <----- start 0 -------------------------------------
//! ```
//!
//! Buckets are started in their order on every rank, since calls are matched by their number: one that is ready before
//! its predecessors waits for them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use super::Fault;
use super::times::{Ledger, Times};
use crate::communicator::{Communicator, Pending, Shared};
use crate::element::ReduceOp;
use crate::error::{Error, Result};
use crate::record::Ticks;
use crate::tensor::{Hook, Lent, Storage, Tensor};

/// The size of a bucket if none is given. On one host a call costs microseconds, so that small buckets, which start
/// early, are worth more than few calls; and small models have several.
pub const BUCKET_BYTES: usize = 16 << 10;

/// Calls that a communicator has in flight before a start waits.
const IN_FLIGHT: usize = 8;

/// Averages the gradients of a model's parameters over the ranks of a communicator.
///
/// ```
/// use std::rc::Rc;
///
/// use annulus::ddp::{BUCKET_BYTES, Ddp};
/// use annulus::nn::{Mlp, Module};
/// use annulus::optim::{Optimizer, Sgd};
/// use annulus::run;
/// use annulus::tensor::Tensor;
///
/// let weights = run(2, |comm| {
///     let model = Mlp::new(&[3, 2], comm.rank() as u64)?; // different, until `Ddp::new`
///     let mut ddp = Ddp::new(Rc::new(comm), &model.parameters(), BUCKET_BYTES)?;
///     let mut optimizer = Sgd::new(model.parameters(), 0.1, 0.9)?;
///     for sample in [1.0, 2.0] {
///         optimizer.zero_grad()?;
///         let inputs = Tensor::new(vec![sample, 0.0, 1.0], &[1, 3])?;
///         model.forward(&inputs)?.cross_entropy(&[1], 1.0)?.backward()?;
///         ddp.finish()?;
///         optimizer.step()?;
///     }
///     model.layers[0].weight.to_vec()
/// })?;
/// assert_eq!(weights[0], weights[1]);
/// # Ok::<(), annulus::Error>(())
/// ```
pub struct Ddp {
    reducer: Rc<RefCell<Reducer>>,
    _hooks: Vec<Hook>,
}

impl Ddp {
    /// Collective. Gives every rank the parameters of rank 0, and from now on averages the gradients of every backward
    /// pass. A bucket is closed once it holds `bucket_bytes`; a parameter is never divided.
    ///
    /// Every rank gives the same parameters, in their order of registration.
    ///
    /// # Errors
    ///
    /// If a tensor is not a parameter or is borrowed; `Mismatch` if the ranks' parameters differ in length; the
    /// failures of every collective.
    pub fn new(comm: Rc<Communicator>, parameters: &[Tensor], bucket_bytes: usize) -> Result<Self> {
        for parameter in parameters {
            comm.broadcast_in_place(&mut parameter.values_mut()?, 0)?;
        }
        let backward: Vec<&Tensor> = parameters.iter().rev().collect();
        let lengths: Vec<usize> = backward.iter().map(|parameter| parameter.len()).collect();
        let groups = grouped(&lengths, bucket_bytes.div_ceil(size_of::<f32>()));
        let mut buckets = Vec::with_capacity(groups.len());
        for (number, group) in groups.iter().enumerate() {
            let memory = comm.allocate::<f32>(lengths[group.clone()].iter().sum())?;
            let memory = Rc::new(Lent::new(format!("gradient bucket {number}"), memory));
            let mut begin = 0;
            for parameter in &backward[group.clone()] {
                parameter.set_grad_storage(Storage::view(memory.clone(), begin..begin + parameter.len())?)?;
                begin += parameter.len();
            }
            buckets.push(Bucket { memory, ready: vec![false; group.len()] });
        }
        let reducer = Rc::new(RefCell::new(Reducer {
            comm,
            buckets,
            started: 0,
            in_flight: VecDeque::new(),
            ledger: Ledger::new(),
            fault: None,
        }));
        let mut hooks = Vec::with_capacity(parameters.len());
        for (number, group) in groups.into_iter().enumerate() {
            for (place, parameter) in backward[group].iter().enumerate() {
                let reducer = reducer.clone();
                hooks.push(parameter.on_grad(move || borrowed(&reducer)?.ready(number, place))?);
            }
        }
        Ok(Ddp { reducer, _hooks: hooks })
    }

    /// Waits until every bucket is averaged, and gives the buckets back. Call it after each backward pass, before the
    /// optimizer's step. A bucket of which the pass left out a gradient is started here, so that the ranks make the
    /// same calls whatever each of them left out.
    ///
    /// # Errors
    ///
    /// The failures of every collective. The buckets in flight are then lost, and gradients in them are away.
    pub fn finish(&mut self) -> Result<()> {
        borrowed(&self.reducer)?.finish()
    }

    /// How many buckets there are.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` while gradients are being averaged: from within a hook of one.
    pub fn buckets(&self) -> Result<usize> {
        Ok(borrowed(&self.reducer)?.buckets.len())
    }

    /// Makes a blocking call of one's own between steps, and accounts for its time as for that of the buckets.
    ///
    /// # Errors
    ///
    /// Those of the call.
    pub fn blocking<T>(&mut self, call: impl FnOnce(&Communicator) -> Result<T>) -> Result<T> {
        let mut reducer = borrowed(&self.reducer)?;
        let since = reducer.ledger.now();
        let result = call(&reducer.comm)?;
        let record = reducer.comm.last_call();
        reducer.ledger.blocked(since, record);
        reducer.ledger.settle();
        Ok(result)
    }

    /// Where the time went, if the steps so far took `wall` ticks of [`Clock`](crate::record::Clock).
    ///
    /// # Errors
    ///
    /// As [`buckets`](Self::buckets).
    pub fn times(&self, wall: Ticks) -> Result<Times> {
        Ok(borrowed(&self.reducer)?.ledger.times(wall))
    }

    /// From now on this goes wrong. For tests of what shall notice it.
    ///
    /// # Errors
    ///
    /// As [`buckets`](Self::buckets).
    pub fn plant(&mut self, fault: Fault) -> Result<()> {
        borrowed(&self.reducer)?.fault = Some(fault);
        Ok(())
    }
}

/// The state that the hooks share. They never run within each other, unless a user's own hook calls `Ddp`.
fn borrowed(reducer: &RefCell<Reducer>) -> Result<std::cell::RefMut<'_, Reducer>> {
    reducer.try_borrow_mut().map_err(|_| Error::invalid("gradients are being averaged: call Ddp outside of that"))
}

/// Some parameters' gradients, in one piece.
struct Bucket {
    memory: Rc<Lent<Shared<f32>>>,
    /// Which gradients are final in this backward pass.
    ready: Vec<bool>,
}

struct Reducer {
    comm: Rc<Communicator>,
    buckets: Vec<Bucket>,
    /// Buckets below this were started in this backward pass.
    started: usize,
    /// The numbers of the buckets that are away, and their calls.
    in_flight: VecDeque<(usize, Pending<Shared<f32>>)>,
    ledger: Ledger,
    fault: Option<Fault>,
}

impl Reducer {
    /// A gradient is final. Starts every bucket whose turn has come.
    fn ready(&mut self, bucket: usize, place: usize) -> Result<()> {
        self.buckets[bucket].ready[place] = true;
        while self.buckets.get(self.started).is_some_and(|next| next.ready.iter().all(|ready| *ready)) {
            self.start_next()?;
        }
        Ok(())
    }

    fn start_next(&mut self) -> Result<()> {
        let number = self.started;
        self.started += 1;
        if number == 0 && self.fault == Some(Fault::SkippedBucket) {
            return Ok(());
        }
        // The start would wait by itself; so this wait is accounted for.
        if self.in_flight.len() == IN_FLIGHT {
            self.wait_for_first()?;
        }
        let op = if self.fault == Some(Fault::ReciprocalAverage) { ReduceOp::Sum } else { ReduceOp::Avg };
        let memory = self.buckets[number].memory.take()?;
        self.in_flight.push_back((number, self.comm.start_all_reduce_in_place(memory, op)?));
        Ok(())
    }

    fn wait_for_first(&mut self) -> Result<()> {
        let Some((number, pending)) = self.in_flight.pop_front() else { return Ok(()) };
        let (call, since) = (pending.call(), self.ledger.now());
        let mut memory = pending.wait()?;
        self.ledger.blocked(since, self.comm.record(call));
        if self.fault == Some(Fault::ReciprocalAverage) {
            let reciprocal = 1.0 / self.comm.world_size() as f32;
            memory.iter_mut().for_each(|gradient| *gradient *= reciprocal);
        }
        self.buckets[number].memory.give_back(memory)
    }

    fn finish(&mut self) -> Result<()> {
        while self.started < self.buckets.len() {
            self.start_next()?;
        }
        while !self.in_flight.is_empty() {
            self.wait_for_first()?;
        }
        self.ledger.settle();
        self.started = 0;
        self.buckets.iter_mut().for_each(|bucket| bucket.ready.fill(false));
        Ok(())
    }
}

/// Cuts a list of lengths into groups, each closed once it reaches `enough`.
pub(super) fn grouped(lengths: &[usize], enough: usize) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let (mut begin, mut sum) = (0, 0);
    for (place, length) in lengths.iter().enumerate() {
        sum += length;
        if sum >= enough || place + 1 == lengths.len() {
            groups.push(begin..place + 1);
            (begin, sum) = (place + 1, 0);
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn groups_are_closed_when_they_have_enough() {
        assert_eq!(grouped(&[10, 640, 64, 4096, 64, 4096], 4096), [0..4, 4..6]);
        assert_eq!(grouped(&[5, 5, 5], 0), [0..1, 1..2, 2..3]);
        assert_eq!(grouped(&[5, 5, 5], 100), std::slice::from_ref(&(0..3)));
        assert_eq!(grouped(&[], 1), []);
    }
}
