// SPDX-License-Identifier: MPL-2.0
//! What `annulus train` does: ranks train a perceptron on real data, and prove that the result is that of one rank.
//!
//! A [`Config`] says what to do; [`Config::prepare`] reads the data and checks all that can be wrong before any rank
//! starts; [`run`] is one rank's work, the same as a thread and as a process, on the CPU and on a device. It goes
//! through four parts: the steps; the test on the held-out samples, dealt to the ranks; the comparison of the replicas;
//! and on rank 0 the same run by one rank, from code that shares nothing with the exchange of gradients.
//!
//! ```
//! use annulus::train::{self, Config};
//!
//! let config = Config { ranks: 3, epochs: 1, ..Config::default() };
//! let prepared = config.prepare()?;
//! let reports = annulus::run(3, |comm| train::run(comm, &config, &prepared, &|_| ()))?;
//! assert!(reports[0].is_verified());
//! # Ok::<(), annulus::Error>(())
//! ```

mod config;
mod cpu;
mod device;
mod place;
mod replica;
mod report;

use std::rc::Rc;
use std::time::Duration;

use half::{bf16, f16};

pub use config::{Config, Prepared, Source};
pub use place::{Choice, Place};
pub use report::Report;

use self::cpu::OnCpu;
use self::device::OnDevice;
use self::replica::{Replica, fill};
use crate::communicator::Communicator;
use crate::data::Dataset;
use crate::ddp::one_rank::{self, Outcome};
use crate::ddp::{self, Fault, Named, Times};
use crate::driver::Device;
use crate::element::ReduceOp;
use crate::error::{Error, Result};
use crate::nn::{Mlp, Module, checkpoint, correct};
use crate::perceptron::{Precision, Scaling};
use crate::schedule::partition::part;

/// How far a rank is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    /// One more step was made.
    Step,
    /// One more epoch was made, with this mean loss.
    Epoch(f64),
    /// One rank alone begins to repeat the run. Rank 0 only.
    Verifying,
    /// It has repeated one more step. Rank 0 only.
    Verified,
}

/// How long ranks wait for the verification, which takes about as long as all ranks' computing together. A rank that
/// dies in it is noticed at once, whatever the deadline.
const VERIFICATION: Duration = Duration::from_secs(24 * 60 * 60);

/// One rank's part of a run, from the first parameters to the verified last ones. Collective; `observe` is told how far
/// this rank is. Rank 0 writes the checkpoint, if one was asked for and the run is verified.
///
/// # Errors
///
/// `InvalidArgument` if the communicator has not as many ranks as the configuration; `Unsupported` or `System` where a
/// device cannot be had; the failures of every collective; rank 0's `System`, if the checkpoint cannot be written. A
/// failed verification is not an error: the report says so.
pub fn run(comm: Communicator, config: &Config, prepared: &Prepared, observe: &dyn Fn(Event)) -> Result<Report> {
    let recipe = &prepared.recipe;
    if comm.world_size() != recipe.ranks {
        let (have, want) = (comm.world_size(), recipe.ranks);
        return Err(Error::invalid(format!("the run is for {want} ranks, and the communicator has {have}")));
    }
    let comm = Rc::new(comm);
    let device = prepared.place.device(comm.local_rank())?;
    let mut replica: Box<dyn Replica> = match &device {
        None => Box::new(OnCpu::new(&comm, config, prepared)?),
        Some(device) => match recipe.precision {
            Precision::F32 => Box::new(OnDevice::<f32>::new(&comm, device, config, prepared)?),
            Precision::Bf16 => Box::new(OnDevice::<bf16>::new(&comm, device, config, prepared)?),
            Precision::F16(_) => Box::new(OnDevice::<f16>::new(&comm, device, config, prepared)?),
        },
    };
    let trained = steps(&comm, &mut *replica, config, prepared, observe)?;
    let ranks = gather_times(&comm, trained.times)?;
    let test_accuracy = test(&comm, &*replica, &prepared.split.test)?;

    let model = Mlp::new(&recipe.widths, recipe.seed)?;
    fill(&model, &replica.parameters()?)?;
    let parameters = ddp::snapshot(&model.named_parameters())?;
    let replicas = ddp::replica_difference(&comm, &parameters)?;
    let scaling = replica.scaling()?;
    let one_rank = match comm.rank() {
        0 => {
            let right = on_one_rank(device.as_ref(), config, prepared, observe)?;
            difference_from(&right, &parameters, &trained.step_losses, scaling, recipe.ranks)?
        }
        _ => None,
    };
    comm.set_timeout(VERIFICATION);
    let mut equal = [u8::from(one_rank.is_none())];
    comm.broadcast_in_place(&mut equal, 0)?;
    let (products, memory) = (replica.products(), replica.memory());
    replica.close()?;

    let slowest = ranks.iter().map(|times| times.compute + times.wait + times.transfer).max().unwrap_or_default();
    let report = Report {
        device: prepared.place.name(),
        test_accuracy,
        losses: trained.losses,
        step_losses: trained.step_losses,
        replicas_identical: replicas.is_none(),
        equal_to_one_rank: equal == [1],
        differences: replicas.map(|difference| difference.to_string()).into_iter().chain(one_rank).collect(),
        parameters_checksum: ddp::checksum(&parameters),
        scaling,
        products,
        memory,
        samples: trained.samples,
        seconds: slowest.as_secs_f64(),
        ranks,
    };
    if let Some(path) = config.save.as_ref().filter(|_| comm.rank() == 0 && report.is_verified()) {
        checkpoint::save(path, &model.named_parameters())?;
    }
    Ok(report)
}

/// What the steps leave, apart from the parameters.
struct Trained {
    losses: Vec<f64>,
    step_losses: Vec<f32>,
    samples: u64,
    times: Times,
}

fn steps(
    comm: &Communicator,
    replica: &mut dyn Replica,
    config: &Config,
    prepared: &Prepared,
    observe: &dyn Fn(Event),
) -> Result<Trained> {
    let (recipe, data, rank) = (&prepared.recipe, &prepared.split.train, comm.rank());
    let sampler = recipe.sampler(data.len())?;
    let taken = if config.fault == Some(Fault::SwappedRanks) { swapped(rank, recipe.ranks) } else { rank };
    let (mut losses, mut step_losses, mut samples) = (Vec::new(), Vec::new(), 0);
    // No rank's clock runs while another is still preparing.
    comm.barrier()?;
    replica.begin();
    for (number, steps) in recipe.epochs(&sampler) {
        let epoch = sampler.epoch(number);
        replica.arrange(&epoch)?;
        for step in 0..steps {
            if let Some(Fault::SleepyRank(sleepy, late)) = config.fault
                && sleepy == rank
            {
                std::thread::sleep(late);
            }
            replica.step(&epoch, step, taken)?;
            observe(Event::Step);
        }
        // Each rank's losses become the global batches': one small call an epoch.
        let of_epoch = replica.losses()?;
        let weights: Vec<usize> = (0..steps).map(|step| epoch.batch(step).len()).collect();
        let in_all: usize = weights.iter().sum();
        let sum: f64 = of_epoch.iter().zip(&weights).map(|(loss, weight)| f64::from(*loss) * *weight as f64).sum();
        losses.push(sum / in_all as f64);
        samples += in_all as u64;
        step_losses.extend(of_epoch);
        observe(Event::Epoch(sum / in_all as f64));
    }
    Ok(Trained { losses, step_losses, samples, times: replica.times()? })
}

/// The last two ranks for each other; see [`Fault::SwappedRanks`].
fn swapped(rank: usize, ranks: usize) -> usize {
    match ranks - rank {
        1 => ranks.saturating_sub(2),
        2 => ranks - 1,
        _ => rank,
    }
}

/// Collective. Every rank's times, on every rank.
fn gather_times(comm: &Communicator, times: Times) -> Result<Vec<Times>> {
    let own = [times.compute, times.wait, times.transfer, times.overlapped].map(|time| time.as_nanos() as u64);
    let mut all = vec![0; own.len() * comm.world_size()];
    comm.all_gather(&own, &mut all)?;
    let ranks = all.chunks_exact(own.len()).map(|rank| {
        let time = |place: usize| Duration::from_nanos(rank[place]);
        Times { compute: time(0), wait: time(1), transfer: time(2), overlapped: time(3) }
    });
    Ok(ranks.collect())
}

/// Collective. The fraction of the test samples that the model gets right; each rank tests a part of them.
fn test(comm: &Communicator, replica: &dyn Replica, data: &Dataset) -> Result<f64> {
    let own: Vec<usize> = part(data.len(), comm.world_size(), comm.rank()).collect();
    let mut right = [0_u64];
    for samples in own.chunks(replica.tested_at_a_time()) {
        let batch = data.batch(samples)?;
        right[0] += correct(&replica.logits(&batch.inputs)?, &batch.labels)? as u64;
    }
    comm.all_reduce_in_place(&mut right, ReduceOp::Sum)?;
    Ok(right[0] as f64 / data.len().max(1) as f64)
}

/// The same run by one rank, on the same kind of device, and what has become of its loss scale.
fn on_one_rank(
    device: Option<&Device>,
    config: &Config,
    prepared: &Prepared,
    observe: &dyn Fn(Event),
) -> Result<(Outcome, Option<Scaling>)> {
    observe(Event::Verifying);
    let Prepared { recipe, start, .. } = prepared;
    let (data, after_step) = (&prepared.split.train, || observe(Event::Verified));
    let Some(device) = device else { return Ok((one_rank::train(recipe, data, start, after_step)?, None)) };
    let train = match recipe.precision {
        Precision::F32 => ddp::device::one_rank::train::<f32>,
        Precision::Bf16 => ddp::device::one_rank::train::<bf16>,
        Precision::F16(_) => ddp::device::one_rank::train::<f16>,
    };
    train(device, recipe, config.fault, data, start, after_step)
}

/// Where the ranks' run first differs from that of one rank, as a sentence.
fn difference_from(
    (right, right_scaling): &(Outcome, Option<Scaling>),
    parameters: &[Named],
    step_losses: &[f32],
    scaling: Option<Scaling>,
    ranks: usize,
) -> Result<Option<String>> {
    let whose = (format!("after {ranks} ranks"), "after one");
    if let Some(difference) = ddp::first_difference(parameters, &right.parameters, (&whose.0, whose.1))? {
        return Ok(Some(difference.to_string()));
    }
    let mut pairs = step_losses.iter().zip(&right.step_losses);
    if let Some(step) = pairs.position(|(ours, right)| ours.to_bits() != right.to_bits()) {
        let (ours, right) = (step_losses[step], right.step_losses[step]);
        return Ok(Some(format!("the loss of step {step} is {ours} {} and {right} {}", whose.0, whose.1)));
    }
    let is_same = scaling == *right_scaling;
    Ok((!is_same).then(|| format!("the loss scale is {scaling:?} {} and {right_scaling:?} {}", whose.0, whose.1)))
}
