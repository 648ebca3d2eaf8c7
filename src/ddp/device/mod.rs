// SPDX-License-Identifier: MPL-2.0
//! Data-parallel training in device memory: samples, model, gradients and the optimizer's state stay there, and nothing
//! crosses to the host in a step.
//!
//! All gradients are one buffer that peers see, the last layer's first, cut into buckets between layers. As soon as a
//! bucket's gradients have been enqueued on the rank's first stream, its all-reduce is enqueued on the second, in place;
//! the first goes on with the layers before. The driver's notes of who uses which bytes put the two in order: a bucket
//! is reduced when its gradients are there, and the optimizer steps when all buckets have been. That holds as well for
//! captured steps, which are a graph for each box of this picture; that of one rank alone is one graph.
//!
//! ```text
//! compute   forward, loss | layer 2, layer 1 | layer 0 ...... |              | update
//! exchange                                   | bucket 0 ..... | bucket 1 ... |
//! ```
//!
//! | file | subject |
//! |---|---|
//! | `step` | what a step enqueues, in pieces |
//! | `graphs` | captured steps |
//! | `losses` | those of steps, until they are read |
//! | `times` | how long the exchange took, and how much of that the computing waited for |
//! | `one_rank` | the same run by one rank on one device, without communicator or bucket |

mod graphs;
mod losses;
pub mod one_rank;
mod step;
mod times;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use self::graphs::Graphs;
use self::losses::Losses;
use self::step::{Parts, Piece, Share, buckets};
use self::times::Exchanges;
use super::{Fault, Times};
use crate::communicator::Communicator;
use crate::driver::{Device, Graph, Stream};
use crate::element::ReduceOp;
use crate::error::{Error, Result};
use crate::optim::Rule;
use crate::perceptron::{Layout, LossScale, MemoryReport, Number, Perceptron, Samples, Scaling, Update};
use crate::record::{Clock, Ticks};

/// What a rank on a device is to train.
#[derive(Debug, Clone)]
pub struct Settings<'a> {
    /// The model's widths, the input's first and the number of classes last.
    pub widths: &'a [usize],
    /// The most samples of a rank in a step.
    pub rows: usize,
    /// The most steps between two calls of [`DeviceDdp::losses`]. Until then the losses of all their rows are kept in
    /// device memory, 4 bytes each.
    pub steps: usize,
    /// The optimizer.
    pub rule: Rule,
    /// How the loss is scaled, if it is: as it should be in f16.
    pub loss_scale: Option<LossScale>,
    /// How many bytes of gradients close a bucket. A layer is never divided.
    pub bucket_bytes: usize,
    /// Whether a step is captured when it is [rehearsed](DeviceDdp::rehearse) or else first occurs, and replayed from
    /// then on, instead of enqueued anew. The bits are the same.
    pub replay: bool,
}

/// One rank's replica of a model in device memory, whose gradients are averaged over the ranks of a communicator.
///
/// ```no_run
/// use annulus::ddp::{BUCKET_BYTES, DeviceDdp, device::Settings};
/// use annulus::driver::Device;
/// use annulus::nn::{Mlp, Module};
/// use annulus::optim::Rule;
/// use annulus::run;
/// use annulus::tensor::Tensor;
///
/// let widths = [3, 2];
/// let rule = Rule::Sgd { rate: 0.1, momentum: 0.9 };
/// let settings = Settings {
///     widths: &widths,
///     rows: 1,
///     steps: 10,
///     rule,
///     loss_scale: None,
///     bucket_bytes: BUCKET_BYTES,
///     replay: true,
/// };
/// let start = Mlp::new(&widths, 0)?.parameters().iter().map(Tensor::to_vec).collect::<Result<Vec<_>, _>>()?;
/// let weights = run(2, |comm| {
///     let mut ddp = DeviceDdp::<f32>::new(&comm, &Device::simulated(0)?, &settings, &start)?;
///     for _ in 0..10 {
///         ddp.step(&[1.0, 0.0, comm.rank() as f32], &[1], 1.0)?; // enqueued; returns at once
///     }
///     assert_eq!(ddp.losses()?.len(), 10);
///     ddp.parameters()
/// })?;
/// assert_eq!(weights[0], weights[1]);
/// # Ok::<(), annulus::Error>(())
/// ```
pub struct DeviceDdp<T: Number> {
    parts: Parts<T>,
    replay: bool,
    graphs: Graphs,
    compute: Stream,
    exchange: Stream,
    /// What steps pick their batches from, if they do.
    samples: Option<Samples<T>>,
    /// What became of steps since it was read last.
    losses: Losses,
    exchanges: Exchanges,
    /// Steps in all.
    made: u64,
    clock: Clock,
    begin: Ticks,
}

impl<T: Number> DeviceDdp<T> {
    /// Collective. A replica on this rank's device, with the parameters that rank 0 passes as `start`, in the order of
    /// registration; the others' are not looked at.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the parameters are not those of a perceptron of these widths, or a setting is out of its
    /// range; as [`Communicator::on`].
    pub fn new(comm: &Communicator, device: &Device, settings: &Settings<'_>, start: &[Vec<f32>]) -> Result<Self> {
        let layout = Layout::new(settings.widths)?;
        let first = if comm.rank() == 0 { Some(layout.pack(start)?) } else { None };
        // One rank has nobody to send a part to while it computes the rest.
        let enough = if comm.world_size() == 1 { usize::MAX } else { settings.bucket_bytes.div_ceil(size_of::<T>()) };
        let buckets = buckets(&layout, enough);
        let host = comm;
        let comm = comm.on(device)?;
        let (compute, exchange) = (device.stream()?, device.stream()?);
        let gradients = comm.allocate(layout.elements())?;
        let model = Perceptron::new(layout, settings.rows, gradients, settings.loss_scale, &compute)?;
        let update = Update::new(settings.rule, &model, &compute)?;
        check_products(host, model.products())?;
        // For the write, a driver may pin memory, and wait then for what runs on the device: so nobody broadcasts before.
        // Whoever has failed comes to the barrier as well.
        let written = first.map_or(Ok(()), |first| compute.write(model.weights(), &first));
        host.barrier()?;
        written?;
        comm.broadcast_in_place(model.weights(), 0, &compute)?;
        model.round(&compute)?;
        compute.synchronize()?;
        let losses = Losses::new(model.memory(), settings.rows, settings.steps, &compute)?;
        let clock = Clock::new();
        let ddp = DeviceDdp {
            parts: Parts { comm, model, update, pass: None, buckets, fault: None },
            replay: settings.replay,
            graphs: Graphs::default(),
            samples: None,
            losses,
            exchanges: Exchanges::default(),
            made: 0,
            begin: clock.now(),
            clock,
            compute,
            exchange,
        };
        let loaded = ddp.load(settings.rows);
        host.barrier()?;
        loaded.map(|()| ddp)
    }

    /// Collective, before any step, of the ranks of `comm`. Makes ready what this rank's steps of these numbers of rows
    /// and denominators take: what `new` does not know. Where a library makes the matrix products, it loads code for so
    /// many rows; and where steps are [replayed](Settings::replay), they are captured. A step that was not rehearsed does
    /// both when it first occurs, and a driver may wait then for all that runs on the device: also for kernels of ranks
    /// that share it, which may wait for this one.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` where a share is too large; the failures of every call on devices.
    pub fn rehearse(&mut self, comm: &Communicator, steps: &[(usize, f32)]) -> Result<()> {
        let rehearsed = steps.iter().try_for_each(|(rows, denominator)| {
            self.load(*rows)?;
            self.graphs_of(Share { rows: *rows, denominator: *denominator, accumulate: false }).map(drop)
        });
        // Whoever has failed comes to the barrier as well.
        comm.barrier()?;
        rehearsed
    }

    /// Has what makes the products load what it takes for so many rows.
    fn load(&self, rows: usize) -> Result<()> {
        self.parts.model.rehearse(rows, &self.compute)?;
        self.compute.synchronize()
    }

    /// The graphs of such a step's pieces, if it is to be replayed.
    fn graphs_of(&mut self, share: Share) -> Result<Option<Arc<[Graph]>>> {
        if !self.replay || !self.parts.is_as_captured() {
            return Ok(None);
        }
        let streams = [&self.compute, &self.exchange];
        self.graphs.of(&mut self.parts, share, |piece| piece.stream_of(streams).clone())
    }

    /// Who makes the matrix products: the library of the device's vendor, by its name, or else the own kernel, and then
    /// why.
    ///
    /// # Errors
    ///
    /// That reason.
    pub fn products(&self) -> std::result::Result<&str, &str> {
        self.parts.model.products()
    }

    /// Enqueues a step on this rank's share of a batch: inputs, one row after the other, and a label a row.
    /// `denominator` as in [`Tensor::cross_entropy`](crate::tensor::Tensor::cross_entropy). All ranks make the same
    /// steps, whatever their shares.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the share is too large or uneven, or losses have not been read for too long; the failures of
    /// every call on devices.
    pub fn step(&mut self, inputs: &[T], labels: &[u32], denominator: f32) -> Result<()> {
        self.losses.check_room()?;
        self.parts.model.load(inputs, labels, &self.compute)?;
        self.enqueue(labels.len(), denominator)
    }

    /// Writes samples to the device, which must have the memory: inputs, one sample after the other, and a label each.
    /// From now on [`step_on`](Self::step_on) makes batches of them, in the order that [`arrange`](Self::arrange) says.
    ///
    /// # Errors
    ///
    /// As [`Samples::new`].
    pub fn keep(&mut self, inputs: &[T], labels: &[u32]) -> Result<()> {
        self.samples = Some(Samples::new(self.parts.model.memory(), inputs, labels, &self.compute)?);
        Ok(())
    }

    /// Says in which order later steps have the samples that were [kept](Self::keep): by their numbers, some or all.
    ///
    /// # Errors
    ///
    /// As [`Samples::arrange`]; `InvalidArgument` if none were kept.
    pub fn arrange(&self, order: &[usize]) -> Result<()> {
        self.kept()?.arrange(order, &self.compute)
    }

    /// As [`step`](Self::step), on the samples at these places of their order: this rank's share of a batch, of which
    /// nothing passes by the host.
    ///
    /// # Errors
    ///
    /// As [`step`](Self::step); `InvalidArgument` if there are no samples at these places.
    pub fn step_on(&mut self, places: Range<usize>, denominator: f32) -> Result<()> {
        self.losses.check_room()?;
        let rows = places.len();
        self.parts.model.pick(self.kept()?, places, &self.compute)?;
        self.enqueue(rows, denominator)
    }

    fn kept(&self) -> Result<&Samples<T>> {
        self.samples.as_ref().ok_or_else(|| Error::invalid("there are no samples to make batches of; keep some first"))
    }

    /// Enqueues a step on the batch that was loaded.
    fn enqueue(&mut self, rows: usize, denominator: f32) -> Result<()> {
        let accumulate = self.parts.fault == Some(Fault::StaleGradient) && self.made == 1;
        let share = Share { rows, denominator, accumulate };
        let overflows = self.parts.overflows(self.made);
        let graphs = self.graphs_of(share)?;
        let streams = [&self.compute, &self.exchange];
        for (place, piece) in self.parts.pieces().into_iter().enumerate() {
            match piece {
                Piece::Gradients(_) | Piece::Alone => {}
                Piece::Average(_) => self.exchanges.begins(&self.compute, &self.exchange)?,
                Piece::Update => self.exchanges.computed(&self.compute)?,
            }
            match &graphs {
                Some(graphs) => graphs[place].launch(piece.stream_of(streams))?,
                None => self.parts.enqueue(piece, share, piece.stream_of(streams))?,
            }
            match piece {
                Piece::Average(_) => self.exchanges.ends(&self.exchange)?,
                Piece::Gradients(0) if overflows => self.parts.overflow(&self.compute)?,
                _ => {}
            }
        }
        self.losses.take(self.parts.model.losses(), rows, denominator, &self.compute)?;
        self.made += 1;
        Ok(())
    }

    /// Waits for all that was enqueued. Collective. The losses of the steps since this was called last, each the average
    /// of the ranks'.
    ///
    /// # Errors
    ///
    /// The failures of every call on devices.
    pub fn losses(&mut self) -> Result<Vec<f32>> {
        let means = self.losses.means(&self.compute)?;
        self.parts.comm.all_reduce_in_place(&means, ReduceOp::Avg, &self.compute)?;
        let means = self.compute.read(&means)?;
        self.exchange.synchronize()?;
        self.exchanges.settle()?;
        self.losses.forget();
        Ok(means)
    }

    /// What has become of the loss scale after all steps that were enqueued, the same on all ranks; `None` if the loss
    /// is not scaled.
    ///
    /// # Errors
    ///
    /// The failures of every call on devices.
    pub fn scaling(&self) -> Result<Option<Scaling>> {
        self.parts.model.scaling(&self.compute)
    }

    /// The parameters, in the order of registration, after all steps that were enqueued.
    ///
    /// # Errors
    ///
    /// The failures of every call on devices.
    pub fn parameters(&self) -> Result<Vec<Vec<f32>>> {
        self.parts.model.layout().unpack(&self.compute.read(self.parts.model.weights())?)
    }

    /// The logits of so many rows of inputs, at most as many as a step has; one row after the other.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if these are too many, or not whole rows; the failures of every call on devices.
    pub fn logits(&self, inputs: &[T], rows: usize) -> Result<Vec<T>> {
        self.parts.model.load(inputs, &vec![0; rows], &self.compute)?;
        let pass = self.parts.model.forward(rows, &self.compute)?;
        self.compute.read(pass.logits()?)
    }

    /// What this rank's tensors have of the device's memory, had, and had at the most. What collectives have besides is
    /// not in it.
    pub fn memory(&self) -> MemoryReport {
        self.parts.model.memory().report()
    }

    /// The most rows of a step.
    pub fn most_rows(&self) -> usize {
        self.parts.model.most_rows()
    }

    /// How many buckets there are.
    pub fn buckets(&self) -> usize {
        self.parts.buckets.len()
    }

    /// How many steps were captured: one for each number of rows and denominator.
    pub fn captured(&self) -> usize {
        self.graphs.len()
    }

    /// From here on the time of the steps is counted.
    pub fn begin(&mut self) {
        self.begin = self.clock.now();
    }

    /// Where the time went, from [`begin`](Self::begin) until now, if losses were just read. A device does not say how
    /// long it waited for other ranks, so that is part of `transfer`.
    pub fn times(&self) -> Times {
        self.exchanges.times(self.clock.duration(self.clock.now().saturating_sub(self.begin)))
    }

    /// Collective. Ends it as [`DeviceCommunicator::close`](crate::DeviceCommunicator::close) does: no rank maps another's
    /// memory any more. A replica that is dropped leaves without waiting.
    ///
    /// # Errors
    ///
    /// On all ranks the first failure of a step, or of a rank that did not come to close.
    pub fn close(self) -> Result<()> {
        let DeviceDdp { parts, graphs, compute, exchange, .. } = self;
        // They keep what they use.
        drop(graphs);
        let synchronized = compute.synchronize().and(exchange.synchronize());
        let closed = parts.comm.close();
        synchronized.and(closed)
    }

    /// From now on this goes wrong. For tests of what shall notice it.
    pub fn plant(&mut self, fault: Fault) {
        self.parts.fault = Some(fault);
    }
}

/// Collective. All ranks' products must be made by the same library, or all by the own kernel: others round otherwise.
fn check_products(comm: &Communicator, own: std::result::Result<&str, &str>) -> Result<()> {
    const LONGEST: usize = 64;
    let name = own.unwrap_or("the own kernel").as_bytes();
    let mut padded = [0_u8; LONGEST];
    padded[..name.len().min(LONGEST)].copy_from_slice(&name[..name.len().min(LONGEST)]);
    let mut all = vec![0_u8; LONGEST * comm.world_size()];
    comm.all_gather(&padded, &mut all)?;
    let name = |rank: usize| {
        let name = &all[LONGEST * rank..LONGEST * (rank + 1)];
        String::from_utf8_lossy(name).trim_end_matches('\0').to_owned()
    };
    match (1..comm.world_size()).find(|rank| name(*rank) != name(0)) {
        None => Ok(()),
        Some(rank) => Err(Error::Mismatch(
            format!(
                "matrix products are made by {} on rank 0 and by {} on rank {rank}, which round otherwise; give all ranks \
                 the same libraries, or set ANNULUS_PRODUCTS=own on all",
                name(0),
                name(rank)
            )
            .into(),
        )),
    }
}

impl<T: Number> fmt::Debug for DeviceDdp<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceDdp({} buckets, {:?})", self.parts.buckets.len(), self.parts.comm)
    }
}
