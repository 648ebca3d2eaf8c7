// SPDX-License-Identifier: MPL-2.0
//! A replica on the CPU.

use std::rc::Rc;

use super::replica::{Replica, fill};
use super::{Config, Prepared};
use crate::communicator::Communicator;
use crate::data::{Dataset, Epoch};
use crate::ddp::{Ddp, Fault, Times};
use crate::element::ReduceOp;
use crate::error::Result;
use crate::nn::{Mlp, Module};
use crate::optim::Optimizer;
use crate::perceptron::{MemoryReport, Scaling};
use crate::record::{Clock, Ticks};
use crate::tensor::{Tensor, no_grad};

/// Rows that are tested at a time.
const TESTED_AT_A_TIME: usize = 256;

pub(super) struct OnCpu<'a> {
    data: &'a Dataset,
    model: Mlp,
    ddp: Ddp,
    optimizer: Box<dyn Optimizer>,
    /// This rank's, since they were asked for last.
    losses: Vec<f32>,
    fault: Option<Fault>,
    made: u64,
    clock: Clock,
    begin: Ticks,
}

impl<'a> OnCpu<'a> {
    /// Collective.
    pub fn new(comm: &Rc<Communicator>, config: &Config, prepared: &'a Prepared) -> Result<Self> {
        let recipe = &prepared.recipe;
        let model = Mlp::new(&recipe.widths, recipe.seed)?;
        if comm.rank() == 0 {
            fill(&model, &prepared.start)?;
        }
        let mut ddp = Ddp::new(comm.clone(), &model.parameters(), config.bucket_bytes)?;
        if let Some(fault) = config.fault {
            ddp.plant(fault)?;
        }
        let optimizer = recipe.rule.build(model.parameters())?;
        let (losses, fault, made, clock) = (Vec::new(), config.fault, 0, Clock::new());
        let data = &prepared.split.train;
        Ok(OnCpu { data, model, ddp, optimizer, losses, fault, made, begin: clock.now(), clock })
    }
}

impl Replica for OnCpu<'_> {
    fn begin(&mut self) {
        self.begin = self.clock.now();
    }

    fn arrange(&mut self, _: &Epoch) -> Result<()> {
        Ok(())
    }

    fn step(&mut self, epoch: &Epoch, step: usize, rank: usize) -> Result<()> {
        let batch = self.data.batch(epoch.share(step, rank))?;
        let loss = self.model.forward(&batch.inputs)?.cross_entropy(&batch.labels, epoch.denominator(step))?;
        if !(self.fault == Some(Fault::StaleGradient) && self.made == 1) {
            self.optimizer.zero_grad()?;
        }
        loss.backward()?;
        self.ddp.finish()?;
        self.optimizer.step()?;
        self.losses.push(loss.item()?);
        self.made += 1;
        Ok(())
    }

    fn losses(&mut self) -> Result<Vec<f32>> {
        let mut losses = std::mem::take(&mut self.losses);
        self.ddp.blocking(|comm| comm.all_reduce_in_place(&mut losses, ReduceOp::Avg))?;
        Ok(losses)
    }

    fn times(&mut self) -> Result<Times> {
        self.ddp.times(self.clock.now() - self.begin)
    }

    fn tested_at_a_time(&self) -> usize {
        TESTED_AT_A_TIME
    }

    fn logits(&self, inputs: &Tensor) -> Result<Tensor> {
        no_grad(|| self.model.forward(inputs))
    }

    fn parameters(&self) -> Result<Vec<Vec<f32>>> {
        self.model.parameters().iter().map(Tensor::to_vec).collect()
    }

    fn scaling(&self) -> Result<Option<Scaling>> {
        Ok(None)
    }

    fn products(&self) -> Option<String> {
        None
    }

    fn memory(&self) -> Option<MemoryReport> {
        None
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
