// SPDX-License-Identifier: MPL-2.0
//! Every built-in schedule that has an entry before it, verified, and what it must compute.

use std::sync::Arc;

use annulus::reference::check::Request;
use annulus::schedule::{self, Collective, Entry, Layout, Schedule, Verified, verify};
use annulus::{ReduceOp, bf16};

/// Elements of a segment.
const SEGMENT: usize = 64;

/// A schedule that was verified out of place and in place for one layout.
pub struct Case {
    pub schedule: Arc<dyn Schedule>,
    pub forms: [Verified; 2],
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

/// Every schedule, for several layouts.
pub fn cases(world: usize) -> Vec<Case> {
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

/// What each rank ends with.
pub fn expected(verified: &Verified, op: ReduceOp, inputs: &[Vec<bf16>]) -> Vec<Vec<bf16>> {
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
        new => panic!("nothing is known of {new}"),
    };
    request.outputs(inputs).expect("the inputs fit")
}
