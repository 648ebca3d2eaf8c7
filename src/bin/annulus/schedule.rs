// SPDX-License-Identifier: MPL-2.0
//! `annulus schedule`: draws a schedule, and proves it.

use annulus::communicator::Question;
use annulus::schedule::{self, Access, Collective, Fault, Layout};
use annulus::{DataType, Error, ReduceOp, Result};

use crate::{bench, output};

/// Draw a collective's schedule, and prove that it is right
///
/// Prints each rank's steps and what the proof says. Exits with status 1 if the schedule is wrong. With --explain: which
/// algorithm would run, why, what the model predicts, and what was measured on this machine (see `annulus tune`).
#[derive(clap::Args)]
pub struct Args {
    /// all_reduce, reduce_scatter, all_gather, broadcast, barrier, reduce, scatter, gather, all_to_all, scan or
    /// exclusive_scan
    #[arg(value_parser = collective)]
    collective: Collective,
    /// one_shot, direct, pull, staged, ring, tree, recursive_doubling, recursive_halving or bruck, as far as there is one
    /// for the collective; barrier or dissemination for a barrier
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
    #[arg(long, conflicts_with = "algorithm")]
    explain: bool,
}

fn collective(name: &str) -> Result<Collective, String> {
    bench::one_of(name, Collective::ALL.map(|collective| (collective.name(), collective)))
}

pub fn run(args: &Args) -> Result<u8> {
    let Args { collective, ranks, length, staged, .. } = args;
    let Some(algorithm) = &args.algorithm else { return explain(args) };
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
    let Args { collective, ranks, length, staged, .. } = *args;
    let op = collective.folds().then_some(ReduceOp::Sum);
    let question =
        Question { collective, data_type: DataType::F32, op, count: length, in_place: true, allocated: !staged };
    let _ = output::print(&format!("{}\n", question.among(ranks.into(), true)?))?;
    Ok(0)
}
