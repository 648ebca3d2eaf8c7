// SPDX-License-Identifier: MPL-2.0
//! `annulus train`: its arguments, how its ranks start, and how it ends. What it prints is in `print`.

mod print;

use std::io::Write;
use std::path::PathBuf;

use super::world::{self, World};
use annulus::ddp::Fault;
use annulus::optim::Rule;
use annulus::perceptron::{LossScale, Precision};
use annulus::train::{self, Choice, Config, Event, Prepared, Report, Source};
use annulus::{Communicator, Error, Result};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};

/// Train a perceptron on several ranks, and prove that the result is that of one rank, bit for bit.
#[derive(clap::Args)]
pub struct Args {
    /// How many ranks. Started by annulus launch, torchrun, mpirun or srun, as many as that world has
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    ranks: Option<usize>,
    /// Ranks are processes instead of threads
    #[arg(long)]
    pub processes: bool,
    /// Where to train: `auto` (GPUs if there are any, else the CPU), `cpu`, `cuda`, `hip`, or `sim` (simulated
    /// devices)
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: Choice,
    /// On devices, in what to compute: `f32`, `bf16`, or `f16`, with a scaled loss; weights are updated in f32
    #[arg(long, value_name = "PRECISION", default_value = "f32")]
    precision: Precision,
    /// With f16, what the loss is scaled by at first, a power of two [default: 65536]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    loss_scale: Option<f32>,
    /// On devices, enqueue each step's kernels anew, instead of replaying a captured step
    #[arg(long)]
    eager: bool,
    /// `digits`, or a directory with the four files of MNIST, plain or gzipped
    #[arg(long, value_name = "digits|DIR", default_value = "digits")]
    data: PathBuf,
    /// Widths of the hidden layers
    #[arg(long, value_name = "WIDTHS", value_delimiter = ',', default_value = "64,64")]
    hidden: Vec<usize>,
    /// How many passes are made over all samples
    #[arg(long, value_name = "E", default_value_t = 30, allow_negative_numbers = true)]
    epochs: u64,
    /// Samples a rank takes in a step
    #[arg(long, value_name = "B", default_value_t = 32, allow_negative_numbers = true)]
    batch: usize,
    /// The optimizer
    #[arg(long, value_enum, default_value_t = Optimizer::Sgd)]
    optimizer: Optimizer,
    /// The learning rate [default: 0.1 with sgd, 0.01 with adamw]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    lr: Option<f32>,
    /// The momentum of sgd [default: 0.9]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    momentum: Option<f32>,
    /// What parameters are drawn and samples are shuffled by
    #[arg(long, value_name = "S", default_value_t = 0, allow_negative_numbers = true)]
    seed: u64,
    /// Take samples in file order
    #[arg(long)]
    no_shuffle: bool,
    /// Stop after this many steps
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    steps: Option<u64>,
    /// Write the verified parameters to this safetensors file
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Start from the parameters in this safetensors file
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
    /// Let something go wrong, to see the verification fail
    #[arg(long, value_name = "FAULT", hide = true)]
    plant: Option<Fault>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Optimizer {
    Sgd,
    Adamw,
}

/// Runs the command. Status 1 stands for a run that is not what one rank would have come to.
pub fn run(args: &Args) -> Result<u8> {
    let mut config = args.config()?;
    match World::of(args.ranks, args.processes, config.device.place()?.ranks())? {
        World::Threads(ranks) => {
            config.ranks = ranks;
            let prepared = config.prepare()?;
            let reports = annulus::run(ranks, |comm| rank_main(comm, &config, &prepared)).map_err(Error::from)?;
            conclude(args, &config, &reports[0], "threads")
        }
        World::Processes(ranks) => {
            config.ranks = ranks;
            // What is wrong with the arguments is said once, here, and not by every rank.
            config.prepare()?;
            world::launch_this(ranks)
        }
        World::Joined(ranks) => {
            config.ranks = ranks;
            let prepared = config.prepare()?;
            let comm = world::join()?;
            let (rank, kind) = (comm.rank(), comm.transport_kind());
            let report = rank_main(comm, &config, &prepared)?;
            // Rank 0 speaks for all. Were the others to fail as well, a launcher would end it before it has spoken.
            if rank == 0 { conclude(args, &config, &report, kind) } else { Ok(0) }
        }
    }
}

impl Args {
    fn config(&self) -> Result<Config> {
        let defaults = Config::default();
        let rule = match (self.optimizer, self.momentum) {
            (Optimizer::Sgd, momentum) => Rule::Sgd { rate: self.lr.unwrap_or(0.1), momentum: momentum.unwrap_or(0.9) },
            (Optimizer::Adamw, None) => Rule::AdamW { rate: self.lr.unwrap_or(0.01) },
            (Optimizer::Adamw, Some(_)) => {
                return Err(Error::invalid("--momentum belongs to sgd: leave it out with --optimizer adamw"));
            }
        };
        let precision = match (self.precision, self.loss_scale) {
            (precision, None) => precision,
            (Precision::F16(scale), Some(start)) => Precision::F16(LossScale { start, ..scale }),
            (other, Some(_)) => {
                return Err(Error::invalid(format!("--loss-scale belongs to f16: leave it out with {other}")));
            }
        };
        let data =
            if self.data.as_os_str() == "digits" { Source::Digits } else { Source::Directory(self.data.clone()) };
        Ok(Config {
            ranks: self.ranks.unwrap_or(defaults.ranks),
            device: self.device,
            data,
            hidden: self.hidden.clone(),
            epochs: self.epochs,
            batch: self.batch,
            rule,
            precision,
            seed: self.seed,
            shuffle: !self.no_shuffle,
            steps: self.steps,
            save: self.save.clone(),
            weights: self.weights.clone(),
            replay: !self.eager,
            fault: self.plant,
            ..defaults
        })
    }
}

/// One rank, as a thread or as a process.
fn rank_main(comm: Communicator, config: &Config, prepared: &Prepared) -> Result<Report> {
    if comm.rank() != 0 {
        return train::run(comm, config, prepared, &|_| ());
    }
    // Before the bar, which is on standard error as well, and hidden where that is no terminal.
    say(&format!("annulus: training on {}", prepared.place));
    let recipe = &prepared.recipe;
    let bar = ProgressBar::new(recipe.total_steps(&recipe.sampler(prepared.split.train.len())?));
    let style = ProgressStyle::with_template("{prefix:10} {wide_bar} {pos}/{len} steps {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix("training");
    let report = train::run(comm, config, prepared, &|event| match event {
        Event::Step | Event::Verified => bar.inc(1),
        Event::Epoch(loss) => bar.set_message(format!("loss {loss:.4}")),
        Event::Verifying => {
            bar.reset();
            bar.set_prefix("verifying");
        }
    });
    bar.finish_and_clear();
    report
}

/// Prints the report and says how the process ends.
fn conclude(args: &Args, config: &Config, report: &Report, transport: &str) -> Result<u8> {
    let text = match args.json {
        true => format!("{}\n", print::as_json(config, report, transport)),
        false => print::as_tables(config, report, transport),
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| Error::system("printing the report", error))?;
    for difference in &report.differences {
        say(&format!("annulus: verification failed: {difference}"));
    }
    if let Some(path) = config.save.as_ref().filter(|_| !report.is_verified()) {
        say(&format!("annulus: {} was not written, since the parameters are not verified", path.display()));
    }
    Ok(u8::from(!report.is_verified()))
}

/// Tells the user something on standard error. If nobody listens, nothing is lost.
fn say(sentence: &str) {
    let _ = writeln!(std::io::stderr(), "{sentence}");
}
