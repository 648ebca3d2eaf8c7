// SPDX-License-Identifier: MPL-2.0
//! A replica in device memory.

use super::replica::Replica;
use super::{Config, Prepared};
use crate::communicator::Communicator;
use crate::data::Batch;
use crate::ddp::device::Settings;
use crate::ddp::{DeviceDdp, Times};
use crate::driver::Device;
use crate::error::Result;
use crate::tensor::Tensor;

pub(super) struct OnDevice {
    ddp: DeviceDdp<f32>,
    classes: usize,
}

impl OnDevice {
    /// Collective.
    pub fn new(comm: &Communicator, device: &Device, config: &Config, prepared: &Prepared) -> Result<Self> {
        let (recipe, data) = (&prepared.recipe, &prepared.split.train);
        let settings = Settings {
            widths: &recipe.widths,
            rows: recipe.batch,
            steps: recipe.sampler(data.len())?.steps(),
            rule: recipe.rule,
            bucket_bytes: config.bucket_bytes,
            replay: config.replay,
        };
        let mut ddp = DeviceDdp::new(comm, device, &settings, &prepared.start)?;
        if let Some(fault) = config.fault {
            ddp.plant(fault);
        }
        Ok(OnDevice { ddp, classes: data.classes() })
    }
}

impl Replica for OnDevice {
    fn begin(&mut self) {
        self.ddp.begin();
    }

    fn step(&mut self, batch: &Batch, denominator: f32) -> Result<()> {
        self.ddp.step(&batch.inputs.values()?, &batch.labels, denominator)
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
        Tensor::new(self.ddp.logits(&inputs.values()?, rows)?, &[rows, self.classes])
    }

    fn parameters(&self) -> Result<Vec<Vec<f32>>> {
        self.ddp.parameters()
    }
}
