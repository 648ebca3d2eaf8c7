// SPDX-License-Identifier: MPL-2.0
//! The losses of a rank's steps, until they are read.
//!
//! A step leaves those of its rows in device memory, and the host adds them when it reads them: on a device one thread
//! would, since they have an order, and each step would wait for it.

use crate::driver::{DeviceBuffer, Stream};
use crate::error::{Error, Result};
use crate::perceptron::{DeviceTensor, Memory, TensorClass, mean_loss};

/// Losses that are read at a time: 1 MiB, for which a device has pinned memory. To pin more, a driver may wait for what
/// runs, and with it for ranks that wait for this one.
const AT_A_TIME: usize = 1 << 18;

/// What became of the steps since it was read last.
pub(super) struct Losses {
    /// The losses of their rows, one step's behind the other's.
    of_rows: DeviceTensor<f32>,
    /// Theirs, once they are read.
    means: DeviceTensor<f32>,
    /// The rows of each step, and what their sum is divided by.
    steps: Vec<(usize, f32)>,
    /// All of their rows.
    rows: usize,
}

impl Losses {
    /// Room for so many steps, of so many rows each.
    pub fn new(memory: &Memory, rows: usize, steps: usize, stream: &Stream) -> Result<Self> {
        let class = TensorClass::Losses;
        Ok(Losses {
            of_rows: memory.lasting(class, rows.saturating_mul(steps), stream)?,
            means: memory.lasting(class, steps, stream)?,
            steps: Vec::new(),
            rows: 0,
        })
    }

    /// Whether there is room for one step more.
    pub fn check_room(&self) -> Result<()> {
        if self.steps.len() < self.means.len() {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{} steps were made since losses were read, and there is room for no more: read them",
            self.steps.len()
        )))
    }

    /// Enqueues that the losses of a step are kept: those of its rows, which come first.
    pub fn take(&mut self, losses: &DeviceBuffer<f32>, rows: usize, denominator: f32, stream: &Stream) -> Result<()> {
        stream.copy(&losses.part(..rows)?, &self.of_rows.part(self.rows..self.rows + rows)?)?;
        self.steps.push((rows, denominator));
        self.rows += rows;
        Ok(())
    }

    /// The loss of each step, in device memory, where ranks average them. Waits for the steps.
    pub fn means(&self, stream: &Stream) -> Result<DeviceBuffer<f32>> {
        let mut of_rows = Vec::with_capacity(self.rows);
        while of_rows.len() < self.rows {
            let end = self.rows.min(of_rows.len() + AT_A_TIME);
            of_rows.extend(stream.read(&self.of_rows.part(of_rows.len()..end)?)?);
        }
        let mut rest = &of_rows[..];
        let each = self.steps.iter().map(|(rows, denominator)| {
            let (losses, others) = rest.split_at(*rows);
            rest = others;
            mean_loss(losses, *denominator)
        });
        let means = self.means.part(..self.steps.len())?;
        stream.write(&means, &each.collect::<Vec<_>>())?;
        Ok(means)
    }

    /// They were read.
    pub fn forget(&mut self) {
        self.steps.clear();
        self.rows = 0;
    }
}
