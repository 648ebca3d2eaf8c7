// SPDX-License-Identifier: MPL-2.0
//! A replica in device memory.

use super::replica::Replica;
use super::{Config, Prepared};
use crate::communicator::Communicator;
use crate::data::Epoch;
use crate::ddp::device::Settings;
use crate::ddp::{DeviceDdp, Times};
use crate::driver::Device;
use crate::error::Result;
use crate::perceptron::{MemoryReport, Number, Scaling};
use crate::tensor::Tensor;

pub(super) struct OnDevice<T: Number> {
    ddp: DeviceDdp<T>,
    classes: usize,
}

impl<T: Number> OnDevice<T> {
    /// Collective.
    pub fn new(comm: &Communicator, device: &Device, config: &Config, prepared: &Prepared) -> Result<Self> {
        let (recipe, data) = (&prepared.recipe, &prepared.split.train);
        let sampler = recipe.sampler(data.len())?;
        let settings = Settings {
            widths: &recipe.widths,
            rows: recipe.batch,
            steps: sampler.steps(),
            rule: recipe.rule,
            loss_scale: recipe.precision.loss_scale(),
            bucket_bytes: config.bucket_bytes,
            replay: config.replay,
        };
        let mut ddp = DeviceDdp::new(comm, device, &settings, &prepared.start)?;
        ddp.keep(&rounded(data.features()), data.labels())?;
        // Steps are alike, but for an epoch's last, which may have fewer samples, and may never be made.
        let epoch = sampler.epoch(0);
        let made = recipe.epochs(&sampler).next().map_or(0, |(_, steps)| steps);
        let kinds = [0, made.saturating_sub(1)];
        let kinds = kinds.map(|step| (epoch.share(step, comm.rank()).len(), epoch.denominator(step)));
        ddp.rehearse(comm, &kinds)?;
        if let Some(fault) = config.fault {
            ddp.plant(fault);
        }
        Ok(OnDevice { ddp, classes: data.classes() })
    }
}

impl<T: Number> Replica for OnDevice<T> {
    fn begin(&mut self) {
        self.ddp.begin();
    }

    fn arrange(&mut self, epoch: &Epoch) -> Result<()> {
        self.ddp.arrange(epoch.samples())
    }

    fn step(&mut self, epoch: &Epoch, step: usize, rank: usize) -> Result<()> {
        self.ddp.step_on(epoch.places(step, rank), epoch.denominator(step))
    }

    fn losses(&mut self) -> Result<Vec<f32>> {
        self.ddp.losses()
    }

    fn times(&mut self) -> Result<Times> {
        Ok(self.ddp.times())
    }

    fn tested_at_a_time(&self) -> usize {
        self.ddp.most_rows()
    }

    fn logits(&self, inputs: &Tensor) -> Result<Tensor> {
        let rows = inputs.shape()[0];
        let logits = self.ddp.logits(&rounded(&inputs.values()?), rows)?;
        Tensor::new(logits.into_iter().map(T::wide).collect(), &[rows, self.classes])
    }

    fn parameters(&self) -> Result<Vec<Vec<f32>>> {
        self.ddp.parameters()
    }

    fn scaling(&self) -> Result<Option<Scaling>> {
        self.ddp.scaling()
    }

    fn products(&self) -> Option<String> {
        Some(match self.ddp.products() {
            Ok(library) => library.to_owned(),
            Err(why) => format!("own kernel, since {why}"),
        })
    }

    fn memory(&self) -> Option<MemoryReport> {
        Some(self.ddp.memory())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.ddp.close()
    }
}

/// Inputs as the layers take them.
fn rounded<T: Number>(inputs: &[f32]) -> Vec<T> {
    inputs.iter().copied().map(T::rounded).collect()
}
