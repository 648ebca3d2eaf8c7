// SPDX-License-Identifier: MPL-2.0
//! What to train, on what, and how; and all that can be checked of it before a rank starts.

use std::path::PathBuf;

use super::{Choice, Place};
use crate::data::{Order, Split, digits, mnist};
use crate::ddp::{BUCKET_BYTES, Fault, Recipe};
use crate::error::{Error, Result};
use crate::nn::{Mlp, Module, checkpoint};
use crate::optim::Rule;
use crate::perceptron::{LossScale, Precision};
use crate::tensor::Tensor;

/// Where the samples come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The embedded digits.
    Digits,
    /// A directory with the four files of MNIST.
    Directory(PathBuf),
}

/// A run of training. The default reaches 97 % on the digits within a second or two.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// How many ranks.
    pub ranks: usize,
    /// Where they train.
    pub device: Choice,
    /// The samples.
    pub data: Source,
    /// The widths of the hidden layers.
    pub hidden: Vec<usize>,
    /// How many passes are made over all samples.
    pub epochs: u64,
    /// Samples a rank takes in a step.
    pub batch: usize,
    /// The optimizer and its settings.
    pub rule: Rule,
    /// In what is computed. On the CPU, f32 alone.
    pub precision: Precision,
    /// What parameters are drawn and samples are shuffled by.
    pub seed: u64,
    /// Whether samples are shuffled, before the split and in each epoch, or taken in file order.
    pub shuffle: bool,
    /// After how many steps to stop, if before the end.
    pub steps: Option<u64>,
    /// Where to write the parameters, once verified.
    pub save: Option<PathBuf>,
    /// Where to take the first parameters from, instead of drawing them.
    pub weights: Option<PathBuf>,
    /// A bucket of gradients is closed once it has so many bytes.
    pub bucket_bytes: usize,
    /// On devices, whether steps are captured and replayed. The bits are the same.
    pub replay: bool,
    /// What goes wrong on purpose. For tests of the verification.
    pub fault: Option<Fault>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            ranks: 2,
            device: Choice::Cpu,
            data: Source::Digits,
            hidden: vec![64, 64],
            epochs: 30,
            batch: 32,
            rule: Rule::Sgd { rate: 0.1, momentum: 0.9 },
            precision: Precision::F32,
            seed: 0,
            shuffle: true,
            steps: None,
            save: None,
            weights: None,
            bucket_bytes: BUCKET_BYTES,
            replay: true,
            fault: None,
        }
    }
}

/// A run that can start: the data was read, and everything fits together. Shared by the ranks of a process.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Where ranks train.
    pub place: Place,
    /// All that decides the bits of the run.
    pub recipe: Recipe,
    /// The samples.
    pub split: Split,
    /// The first parameters, in the order of registration.
    pub start: Vec<Vec<f32>>,
}

impl Config {
    /// Reads the data and the weights, and checks the settings, each by what will use it.
    ///
    /// # Errors
    ///
    /// One sentence that names what is wrong: a file, a setting, a shape, or a place where nothing can be saved.
    pub fn prepare(&self) -> Result<Prepared> {
        if self.ranks == 0 {
            return Err(Error::invalid("0 ranks cannot train: at least one is needed"));
        }
        self.rule.build(Vec::new())?;
        if let Some(path) = &self.save {
            checkpoint::check_writable(path)?;
        }
        let place = self.device.place()?;
        self.check_precision(&place)?;
        let order = if self.shuffle { Order::Shuffled(self.seed) } else { Order::File };
        let split = match &self.data {
            Source::Digits => digits::load(order)?,
            Source::Directory(directory) => mnist::load(directory)?,
        };
        let mut widths = vec![split.train.width()];
        widths.extend(&self.hidden);
        widths.push(split.train.classes());
        let recipe = Recipe {
            widths,
            seed: self.seed,
            order,
            ranks: self.ranks,
            batch: self.batch,
            epochs: self.epochs,
            steps: self.steps,
            rule: self.rule,
            precision: self.precision,
        };
        recipe.sampler(split.train.len())?;
        let model = Mlp::new(&recipe.widths, recipe.seed)?;
        if let Some(path) = &self.weights {
            checkpoint::load(path, &model.named_parameters())?;
        }
        let start = model.parameters().iter().map(Tensor::to_vec).collect::<Result<_>>()?;
        Ok(Prepared { place, recipe, split, start })
    }

    fn check_precision(&self, place: &Place) -> Result<()> {
        let precision = self.precision;
        if place.is_cpu() && precision != Precision::F32 {
            let places = Choice::kinds().join(" or --device ");
            return Err(Error::invalid(format!(
                "the CPU trains in f32 alone, and ranks would train on {place}; for {precision}, choose --device \
                 {places}"
            )));
        }
        let scale = precision.loss_scale();
        scale.map_or(Ok(()), LossScale::check)?;
        match self.fault {
            Some(Fault::Overflow { .. }) if scale.is_none() => Err(Error::invalid(format!(
                "an overflow skips a step where the loss is scaled: in f16, not in {precision}"
            ))),
            _ => Ok(()),
        }
    }
}
