// SPDX-License-Identifier: MPL-2.0
//! Every built-in schedule that has an entry before it, as a program on real memory, against the reference of the fold
//! order that it declares: what is proved of symbols holds of elements. (Those that carry their entry run in
//! `tests/collectives.rs`.)

use std::sync::Arc;

use annulus::reference::check::{Request, compare};
use annulus::reference::{bits, inputs};
use annulus::schedule::{self, Collective, Entry, Layout, Schedule, Verified, verify};
use annulus::{Communicator, ReduceOp, bf16, run};

/// Elements of a segment.
const SEGMENT: usize = 64;

/// A schedule that was verified out of place and in place for one layout.
struct Case {
    schedule: Arc<dyn Schedule>,
    forms: [Verified; 2],
}

fn layouts(collective: Collective, world: usize) -> Vec<Layout> {
    // Elements of several segments of each schedule, and fewer than there are ranks.
    let mut layouts = vec![Layout::uniform(world, 307), Layout::uniform(world, 2)];
    if collective == Collective::AllToAll {
        let count = |from: usize, to: usize| from.min(to) * 977 % 3 * 40 + from * to;
        let row = |from| (0..world).map(|to| count(from, to)).collect::<Vec<_>>();
        layouts.push(Layout::matrix(&(0..world).map(row).collect::<Vec<_>>()));
    } else if collective.has_parts() {
        layouts.push(Layout::varying(&(0..world).map(|r| r * 977 % 3 * 50 + r).collect::<Vec<_>>()));
    }
    let with_root =
        |(i, layout): (usize, Layout)| if collective.has_root() { layout.with_root((i + 1) % world) } else { layout };
    layouts.into_iter().enumerate().map(with_root).collect()
}

fn cases(world: usize) -> Vec<Case> {
    let short = |schedule: Arc<dyn Schedule>| {
        let (collective, name, access) = (schedule.collective(), schedule.name(), schedule.access());
        schedule::named(collective, name, access, Some(SEGMENT)).expect("it is built in")
    };
    let schedules = schedule::built_in().into_iter().map(short).filter(|schedule| schedule.entry() == Entry::Barrier);
    let case = |(schedule, layout): (Arc<dyn Schedule>, Layout)| {
        let forms = [false, true].map(|in_place| verify(&*schedule, &layout.clone().in_place(in_place)));
        Case { schedule, forms: forms.map(|form| form.expect("it is proved elsewhere")) }
    };
    let with_layouts = |schedule: Arc<dyn Schedule>| {
        layouts(schedule.collective(), world).into_iter().map(move |l| (schedule.clone(), l))
    };
    schedules.flat_map(with_layouts).map(case).collect()
}

/// Runs both forms of a case, and compares all of the buffers.
fn call(comm: &Communicator, case: &Case, number: u64) {
    let (world, rank, op) = (comm.world_size(), comm.rank(), ReduceOp::Sum);
    let collective = case.schedule.collective();
    for verified in &case.forms {
        let layout = verified.layout();
        let lens: Vec<usize> = (0..world).map(|r| layout.input_len(collective, r)).collect();
        let inputs = inputs::cancelling::<bf16>(7, number, &lens);
        let expected = expected(verified, op, &inputs);
        let expected = expected.get(rank).map_or(&[][..], |output| output);
        let op = collective.folds().then_some(op);
        if !layout.is_in_place() {
            let mut recv = vec![bits::element(!0); layout.output_len(collective, rank)];
            comm.execute(verified, &inputs[rank], &mut recv, op).unwrap();
            compare(&recv, expected, rank).unwrap_or_else(|wrong| panic!("{} {collective}: {wrong}", verified.name()));
            continue;
        }
        // In place: what is no result stays as it was.
        let alias = layout.alias(collective, rank);
        let (input, output) = (alias.max(0) as usize, (-alias).max(0) as usize);
        let len = lens[rank].max(expected.len());
        let mut buffer = vec![bits::element(!0); len];
        buffer[input..input + lens[rank]].copy_from_slice(&inputs[rank]);
        let mut right = buffer.clone();
        right[output..output + expected.len()].copy_from_slice(expected);
        comm.execute_in_place(verified, &mut buffer, op).unwrap();
        compare(&buffer, &right, rank).unwrap_or_else(|wrong| panic!("{} {collective}: {wrong}", verified.name()));
    }
}

fn expected(verified: &Verified, op: ReduceOp, inputs: &[Vec<bf16>]) -> Vec<Vec<bf16>> {
    let (layout, order) = (verified.layout(), verified.fold_order());
    let (world, root) = (layout.world(), layout.root());
    let counts: Vec<usize> = (0..world).map(|r| layout.count(r)).collect();
    let pairs = |from: usize| (0..world).map(|to| layout.pair(from, to)).collect();
    let matrix: Vec<Vec<usize>> = (0..world).map(pairs).collect();
    let request = match verified.collective() {
        Collective::AllReduce => Request::AllReduce { order, op },
        Collective::ReduceScatter => Request::ReduceScatter { order, op, counts: &counts },
        Collective::AllGather => Request::AllGather,
        Collective::Broadcast => Request::Broadcast { root },
        Collective::Barrier => return Vec::new(),
        Collective::Reduce => Request::Reduce { order, op, root },
        Collective::Scatter => Request::Scatter { root, counts: &counts },
        Collective::Gather => Request::Gather { root },
        Collective::AllToAll => Request::AllToAll { counts: &matrix },
        Collective::Scan => Request::Scan { op },
        Collective::ExclusiveScan => Request::ExclusiveScan { op },
    };
    request.outputs(inputs).expect("the inputs fit")
}

#[test]
fn every_schedule_computes_what_was_proved() {
    for world in [1, 2, 3, 4, 7] {
        let cases = cases(world);
        run(world, |comm| {
            for (number, case) in cases.iter().enumerate() {
                call(&comm, case, number as u64);
            }
            Ok(())
        })
        .unwrap();
    }
}
