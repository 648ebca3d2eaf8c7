// SPDX-License-Identifier: MPL-2.0
//! `annulus schedule`: draws a schedule, and proves it.

use annulus::communicator::Question;
use annulus::schedule::{self, Access, Collective, Fault, Layout};
use annulus::{DataType, Error, ReduceOp, Result, run as run_threads};

use crate::bench::{self, On};
use crate::output;

/// Draw a collective's schedule, and prove that it is right
///
/// Prints each rank's steps and what the proof says. Exits with status 1 if the schedule is wrong. With --explain: which
/// algorithm would run, why, what the model predicts, and what was measured on this machine (see `annulus tune`); on
/// devices, by which kernel or schedule, in how many launches.
#[derive(clap::Args)]
pub struct Args {
    /// all_reduce, reduce_scatter, all_gather, broadcast, barrier, reduce, scatter, gather, all_to_all, scan or
    /// exclusive_scan
    #[arg(value_parser = collective)]
    collective: Collective,
    /// one_shot, direct, pull, staged, ring, tree, recursive_doubling, recursive_halving or bruck, as far as there is one
    /// for the collective; barrier or dissemination for a barrier. To explain it on devices: a kernel's name, or
    /// schedule: and one of these
    #[arg(long, value_name = "NAME", required_unless_present = "explain")]
    algorithm: Option<String>,
    /// Number of ranks
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    ranks: u16,
    /// Elements a rank: of the whole buffer in an all_reduce, broadcast, reduce or scan, of one part in the others
    #[arg(long, value_name = "ELEMENTS", default_value_t = 8)]
    length: usize,
    /// For ranks that cannot address each other's buffers
    #[arg(long)]
    staged: bool,
    /// Say what would run, and why, of f32 in place: among processes with plain memory if --staged, else allocated
    #[arg(long)]
    explain: bool,
    /// Which devices to explain it for, with --explain: cpu (the host), cuda, hip, or sim: simulated ones, as many as
    /// ANNULUS_SIM_DEVICES says. Devices are dealt to ranks
    #[arg(long, value_name = "KIND", default_value = "cpu", requires = "explain", value_parser = bench::on)]
    device: On,
}

fn collective(name: &str) -> Result<Collective, String> {
    bench::one_of(name, Collective::ALL.map(|collective| (collective.name(), collective)))
}

pub fn run(args: &Args) -> Result<u8> {
    let Args { collective, ranks, length, staged, .. } = args;
    let Some(algorithm) = args.algorithm.as_ref().filter(|_| !args.explain) else { return explain(args) };
    let access = if *staged { Access::Staged } else { Access::Direct };
    let Some(schedule) = schedule::named(*collective, algorithm, access, None) else {
        let entry_alone = (*collective == Collective::Barrier).then_some("barrier");
        let names: Vec<&str> = entry_alone.into_iter().chain(schedule::names(*collective)).collect();
        let names = names.join(", ");
        return Err(Error::invalid(format!("--algorithm {algorithm}: for {collective} there is {names}")));
    };
    let layout = Layout::uniform((*ranks).into(), *length);
    let verified = schedule::verify(&*schedule, &layout);
    if let Err(Fault::Declaration(sentence)) = &verified {
        // The built-in schedules declare what is right; what is asked of them is not.
        return Err(Error::invalid(format!("--ranks {ranks} --length {length}: {sentence}")));
    }
    let _ = output::print(&schedule::draw(&*schedule, &layout))?;
    Ok(u8::from(verified.is_err()))
}

fn explain(args: &Args) -> Result<u8> {
    let Args { collective, ranks, length, staged, device, .. } = *args;
    let ranks = usize::from(ranks);
    let op = collective.folds().then_some(ReduceOp::Sum);
    let question =
        Question { collective, data_type: DataType::F32, op, count: length, in_place: true, allocated: !staged };
    let said = match (device, &args.algorithm) {
        (On::Cpu, None) => question.among(ranks, true)?.to_string(),
        (On::Cpu, Some(name)) => {
            return Err(Error::invalid(format!(
                "--explain --algorithm {name}: what is asked for by name on the host runs; leave --explain out to see \
                 it drawn, or explain it on devices with --device sim"
            )));
        }
        (on, name) => on_devices(on, &question, ranks, name.as_deref())?,
    };
    let _ = output::print(&format!("{said}\n"))?;
    Ok(0)
}

/// What rank 0 of so many would do on such devices.
fn on_devices(on: On, question: &Question, ranks: usize, algorithm: Option<&str>) -> Result<String> {
    // Before so many threads are made.
    if ranks > annulus::kernel::RANKS {
        return Err(Error::invalid(format!(
            "--ranks {ranks}: kernels meet among {} at the most",
            annulus::kernel::RANKS
        )));
    }
    let explained = run_threads(ranks, |comm| {
        let device = on.device(comm.rank())?.ok_or_else(|| Error::invalid("the CPU is no device"))?;
        let gpus = comm.on(&device)?;
        gpus.set_algorithm(algorithm)?;
        gpus.explain(question)
    })?;
    let said = explained.first().map_or_else(String::new, ToString::to_string);
    let caveat = "\nshapes are those of simulated devices, which execute kernels on the CPU";
    Ok(said + if on == On::Simulated { caveat } else { "" })
}
