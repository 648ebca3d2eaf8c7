// SPDX-License-Identifier: MPL-2.0
//! `annulus bench`: times a collective over a range of sizes.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use annulus::bench::{Machine, Measurement, Memory, Modes, Plot, Results, Subject, Sweep, Table, pin};
use annulus::driver::Device;
use annulus::schedule::Collective;
use annulus::{Communicator, DataType, DeviceCommunicator, Error, ReduceOp, Result, run as run_threads};
use clap::ArgGroup;

use crate::output::print;
use crate::world::{World, join, launch_this};

/// Time a collective over a range of sizes
///
/// Prints nccl-tests' table: a time is the median over calls of the slowest rank's, sizes and bandwidths are as
/// nccl-tests defines them, #wrong counts output elements. Each rank is pinned to a core; a barrier precedes each call,
/// outside the clock. On devices a call is enqueued on a stream, which is then synchronised; a simulated device executes
/// kernels on the CPU, and nothing it shows is a figure of a GPU. Sizes are bytes, or 64K, 16M, 1G in powers of 1024.
/// Started by annulus launch, torchrun, mpirun or srun, it joins that world. Exits with status 1 if an element is wrong.
#[derive(clap::Args)]
#[command(group(ArgGroup::new("measured").multiple(true).requires("collective").args(MEASURED)))]
pub struct Args {
    /// What to call: all_reduce, reduce_scatter, all_gather, broadcast, barrier, reduce, scatter, gather, all_to_all, scan,
    /// exclusive_scan, or send_recv (each rank sends to the next). Optional with --compare
    #[arg(value_parser = subject, required_unless_present = "compare")]
    collective: Option<Subject>,
    /// Number of ranks [default: 2, or what the launcher says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    ranks: Option<u16>,
    /// Ranks are processes, started by this command, rather than threads
    #[arg(long)]
    pub processes: bool,
    /// On which memory: cpu; cuda or hip: that of NVIDIA's or AMD's devices; or sim: that of simulated ones, as many as
    /// ANNULUS_SIM_DEVICES says. Devices are dealt to ranks
    #[arg(long, value_name = "KIND", default_value = "cpu", value_parser = on)]
    device: On,
    /// allocated: peers map it; plain: any slice, or any buffer of a device
    #[arg(long, value_name = "KIND", default_value = "plain", value_parser = memory)]
    memory: Memory,
    /// f64, f32, f16, bf16, i8, u8, i16, u16, i32, u32, i64 or u64
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = data_type)]
    dtype: DataType,
    /// sum, prod, min, max or avg; of integers also band, bor or bxor
    #[arg(long, default_value = "sum", value_parser = op)]
    op: ReduceOp,
    /// auto, or a name that `annulus schedule` knows; on devices such a name behind `schedule:`, and all_reduce also
    /// has the kernels low_latency, one_shot, two_shot and ring; several are measured in turn
    #[arg(long, value_name = "NAME,..", default_value = "auto", value_delimiter = ',')]
    algorithm: Vec<String>,
    /// The first size
    #[arg(long, value_name = "BYTES", default_value = "8", value_parser = bytes)]
    begin: usize,
    /// The last size
    #[arg(long, value_name = "BYTES", default_value = "64M", value_parser = bytes)]
    end: usize,
    /// Each size is the one before times this
    #[arg(long, default_value_t = 2)]
    factor: usize,
    /// Timed calls of each size [default: 2000 up to 64K, 200 up to 4M, 30 above]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    iterations: Option<u32>,
    /// In place alone
    #[arg(long, conflicts_with = "out_of_place")]
    in_place: bool,
    /// Out of place alone
    #[arg(long)]
    out_of_place: bool,
    /// Check the first and the last call alone, and leave buffers untouched in between, as the benchmarks of MPI do
    #[arg(long)]
    unchecked: bool,
    /// One JSON object a line: the machine, then each size and mode
    #[arg(long)]
    json: bool,
    /// Draw time and bus bandwidth over sizes, a line for each algorithm and mode, as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// What earlier benchmarks printed with --json, drawn too
    #[arg(long, value_name = "FILE,..", value_delimiter = ',', requires = "plot")]
    compare: Vec<PathBuf>,
}

/// What is asked for where no algorithm is.
const AUTO: &str = "auto";

/// The arguments that say what is measured, and say nothing without a collective.
const MEASURED: [&str; 15] = [
    "ranks",
    "processes",
    "device",
    "memory",
    "dtype",
    "op",
    "algorithm",
    "begin",
    "end",
    "factor",
    "iterations",
    "in_place",
    "out_of_place",
    "unchecked",
    "json",
];

/// On which memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    Cpu,
    Simulated,
    Cuda,
    Hip,
}

impl On {
    /// The device of a rank; none on the CPU.
    pub fn device(self, local_rank: usize) -> Result<Option<Device>> {
        Ok(match self {
            On::Cpu => None,
            On::Simulated => Some(Device::simulated(local_rank % Device::simulated_count()?)?),
            On::Cuda => Some(Device::cuda(local_rank % Device::cuda_count()?)?),
            On::Hip => Some(Device::hip(local_rank % Device::hip_count()?)?),
        })
    }
}

pub fn run(args: &Args) -> Result<u8> {
    let plot = args.plot.as_deref().map(Plot::at).transpose()?;
    let compared = args.compare.iter().map(|file| Results::read(file)).collect::<Result<Vec<_>>>()?;
    let Some(subject) = args.collective else {
        plot.map_or(Ok(()), |plot| plot.write(&compared))?;
        return Ok(0);
    };
    let bench = Bench { args, sweeps: args.sweeps(subject)?, plot, compared };
    let check = |ranks| {
        bench.sweeps.iter().try_for_each(|sweep| match args.device {
            On::Cpu => sweep.check(ranks),
            On::Simulated | On::Cuda | On::Hip => sweep.check_on_devices(ranks),
        })
    };
    match World::of(args.ranks.map(Into::into), args.processes, 2)? {
        World::Processes(ranks) => check(ranks).and_then(|()| launch_this(ranks)),
        World::Threads(ranks) => {
            check(ranks)?;
            let start = Instant::now();
            let statuses = run_threads(ranks, |comm| bench.rank(&comm, start.elapsed()))?;
            Ok(statuses.into_iter().max().unwrap_or(0))
        }
        World::Joined(ranks) => {
            check(ranks)?;
            let start = Instant::now();
            let comm = join()?;
            bench.rank(&comm, start.elapsed())
        }
    }
}

impl Args {
    /// One sweep an algorithm.
    fn sweeps(&self, subject: Subject) -> Result<Vec<Sweep>> {
        if self.plot.is_some() && subject == Collective::Barrier.into() {
            return Err(Error::invalid("a barrier has no sizes to draw its time over: leave --plot out"));
        }
        let mut names = BTreeSet::new();
        if let Some(name) = self.algorithm.iter().find(|name| !names.insert(*name)) {
            return Err(Error::invalid(format!("--algorithm names {name} twice: once is enough")));
        }
        let sweep = |name: &String| Sweep {
            subject,
            memory: self.memory,
            data_type: self.dtype,
            op: self.op,
            algorithm: Some(name.clone()).filter(|name| name != AUTO),
            begin: self.begin,
            end: self.end,
            factor: self.factor,
            iterations: self.iterations.map(|iterations| iterations as usize),
            modes: match (self.out_of_place, self.in_place) {
                (true, _) => Modes::OutOfPlace,
                (_, true) => Modes::InPlace,
                _ => Modes::Both,
            },
            checked: !self.unchecked,
        };
        Ok(self.algorithm.iter().map(sweep).collect())
    }
}

/// What is to be done with a collective.
struct Bench<'a> {
    args: &'a Args,
    sweeps: Vec<Sweep>,
    plot: Option<Plot>,
    compared: Vec<Results>,
}

impl Bench<'_> {
    /// One rank's part; `creation` is how long its communicator took. Rank 0 alone writes. Returns the exit status.
    fn rank(&self, comm: &Communicator, creation: Duration) -> Result<u8> {
        let Bench { args, sweeps, plot, compared } = self;
        // Before this thread has one core alone.
        let machine = Machine::this();
        let on_device = Instant::now();
        let gpus = match args.device.device(comm.local_rank())? {
            None => {
                pin(comm.rank())?;
                None
            }
            // Not pinned: the work is the device's, or that of its threads.
            Some(device) => Some(comm.on(&device)?),
        };
        let creation = creation + gpus.as_ref().map_or(Duration::ZERO, |_| on_device.elapsed());
        let joined = gpus;
        let gpus = joined.as_ref();
        let kind = gpus.map(|gpus| gpus.device().capabilities().platform.to_string());
        let mut failure = None;
        let mut write = |text: &str| {
            print(text).unwrap_or_else(|error| {
                failure = Some(error);
                ControlFlow::Break(())
            })
        };
        let mut open = match comm.rank() {
            0 if args.json => write(&args.head_json(&machine, comm, kind.as_deref(), creation)),
            _ => ControlFlow::Continue(()),
        };
        let mut results = Results::on(machine.clone());
        for sweep in sweeps {
            let mut table = Table::new(sweep.modes).of_device(kind.as_deref());
            if comm.rank() == 0 && !args.json && open.is_continue() {
                open = write(&(args.head(sweep, &machine, comm, kind.as_deref(), creation) + &table.head()));
            }
            let report = |measured: &[Measurement]| {
                results.measurements.extend_from_slice(measured);
                let text = match args.json {
                    true => measured.iter().fold(String::new(), |text, mode| text + &mode.json().to_string() + "\n"),
                    false => table.line(measured),
                };
                if open.is_continue() {
                    open = write(&text);
                }
                // A picture is of all there is to measure, whoever reads the text.
                if plot.is_some() { ControlFlow::Continue(()) } else { open }
            };
            match gpus {
                None => sweep.run(comm, report),
                Some(gpus) => sweep.run_on(gpus, comm, report),
            }?;
            if comm.rank() == 0 && !args.json && open.is_continue() {
                open = write(&table.end());
            }
        }
        joined.map_or(Ok(()), DeviceCommunicator::close)?;
        if let Some(error) = failure {
            return Err(error);
        }
        let wrong: u64 = results.measurements.iter().map(|mode| mode.wrong).sum();
        if let Some(plot) = plot.as_ref().filter(|_| comm.rank() == 0) {
            plot.write(&[&[results], compared.as_slice()].concat())?;
        }
        Ok(u8::from(wrong > 0))
    }
}

impl Args {
    /// What a table is of, as comment lines.
    fn head(
        &self,
        sweep: &Sweep,
        machine: &Machine,
        comm: &Communicator,
        device: Option<&str>,
        creation: Duration,
    ) -> String {
        let Sweep { subject, memory, data_type, op, algorithm, .. } = sweep;
        let algorithm = algorithm.as_deref().unwrap_or(AUTO);
        let op = if subject.folds() { format!(", {op}") } else { String::new() };
        let checked = if self.unchecked { "the first and the last call" } else { "every output of every call" };
        let mut head = format!("# {machine}\n");
        // Writing to a String does not fail.
        if let Some(caveat) = Measurement::caveat(device) {
            let _ = writeln!(head, "# {caveat}");
        }
        let pinned = device.map_or("pinned".to_owned(), |kind| format!("on {kind} devices"));
        let _ = writeln!(
            head,
            "# {subject} of {data_type}{op}; {} ranks as {}, {pinned}; {memory} memory; algorithm {algorithm}",
            comm.world_size(),
            comm.transport_kind(),
        );
        let _ = writeln!(
            head,
            "# created in {:.2} ms, {} KiB of shared memory a rank; time is the median of the slowest rank's; checked: {checked}",
            creation.as_secs_f64() * 1e3,
            comm.footprint() >> 10,
        );
        head
    }

    fn head_json(&self, machine: &Machine, comm: &Communicator, device: Option<&str>, creation: Duration) -> String {
        let head = serde_json::json!({
            "machine": machine.json(),
            "device": device,
            "caveat": Measurement::caveat(device),
            "creation_ms": creation.as_secs_f64() * 1e3,
            "footprint_bytes": comm.footprint(),
            "checked": !self.unchecked,
        });
        head.to_string() + "\n"
    }
}

fn subject(name: &str) -> Result<Subject, String> {
    one_of(name, Subject::all().map(|subject| (subject.name(), subject)).collect::<Vec<_>>())
}

/// What goes by that name.
pub fn on(name: &str) -> Result<On, String> {
    one_of(name, [("cpu", On::Cpu), ("cuda", On::Cuda), ("hip", On::Hip), ("sim", On::Simulated)])
}

fn memory(name: &str) -> Result<Memory, String> {
    one_of(name, Memory::ALL.map(|memory| (memory.name(), memory)))
}

fn data_type(name: &str) -> Result<DataType, String> {
    one_of(name, DataType::ALL.map(|data_type| (data_type.name(), data_type)))
}

fn op(name: &str) -> Result<ReduceOp, String> {
    one_of(name, ReduceOp::ALL.map(|op| (op.name(), op)))
}

/// What goes by that name, or a sentence with the names that there are.
pub fn one_of<T>(name: &str, all: impl Into<Vec<(&'static str, T)>>) -> Result<T, String> {
    let all: Vec<(&str, T)> = all.into();
    let names = all.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let found = all.into_iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| value).ok_or_else(|| format!("give one of {names}"))
}

/// A number of bytes, as 8, 64K, 16M or 1G in powers of 1024.
pub fn bytes(text: &str) -> Result<usize, String> {
    let (number, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let bytes = number.parse::<usize>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| "give a number of bytes above 0, as 8, 64K, 16M or 1G".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, expected) in [("8", 8), ("64K", 65536), ("3k", 3072), ("16M", 16 << 20), ("1G", 1 << 30)] {
            assert_eq!(bytes(text), Ok(expected));
        }
        for text in ["", "K", "0", "-1", "1.5M", "8B", "99999999999999999999", "18446744073709551615K", "é"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_that_are_not_there_are_answered_with_those_that_are() {
        assert_eq!(subject("all_gather"), Ok(Collective::AllGather.into()));
        assert_eq!(subject("send_recv"), Ok(Subject::SendRecv));
        assert_eq!(op("xor"), Err("give one of sum, prod, min, max, avg, band, bor, bxor".to_owned()));
    }
}
