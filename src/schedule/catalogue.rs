// SPDX-License-Identifier: MPL-2.0
//! The built-in schedules and their names: the one place where an algorithm is added.

use std::sync::Arc;

use super::{
    Access, Collective, Schedule, barrier, bruck, chain, direct, dissemination, one_shot, pull, recursive_doubling,
    recursive_halving, ring, rounds, staged, tree,
};

/// The names by which algorithms are asked for.
pub const NAMES: [&str; 10] = [
    "one_shot",
    "direct",
    "pull",
    "staged",
    "ring",
    "tree",
    "recursive_doubling",
    "recursive_halving",
    "bruck",
    "dissemination",
];

/// Every built-in schedule, with its default parameters.
pub fn built_in() -> Vec<Arc<dyn Schedule>> {
    with_segments(None)
}

/// Every built-in schedule; those that work in segments with segments of this many elements.
fn with_segments(elements: Option<usize>) -> Vec<Arc<dyn Schedule>> {
    let length = |default| elements.unwrap_or(default);
    let direct_segment = length(direct::SEGMENT);
    let pull_segment = length(pull::SEGMENT);
    let staged_segment = length(staged::SEGMENT);
    let scan_segment = length(staged::SCAN_SEGMENT);
    let ring_segment = length(ring::SEGMENT);
    let mut all: Vec<Arc<dyn Schedule>> = vec![
        Arc::new(barrier::barrier()),
        Arc::new(one_shot::all_reduce()),
        Arc::new(one_shot::reduce_scatter()),
        Arc::new(one_shot::all_gather()),
        Arc::new(one_shot::broadcast()),
        Arc::new(one_shot::reduce()),
        Arc::new(one_shot::scatter()),
        Arc::new(one_shot::gather()),
        Arc::new(one_shot::all_to_all()),
        Arc::new(one_shot::scan()),
        Arc::new(one_shot::exclusive_scan()),
        Arc::new(direct::all_reduce()),
        Arc::new(direct::reduce_scatter()),
        Arc::new(direct::all_gather()),
        Arc::new(direct::broadcast()),
        Arc::new(direct::reduce()),
        Arc::new(direct::scatter()),
        Arc::new(direct::gather()),
        Arc::new(direct::all_to_all(direct_segment)),
        Arc::new(direct::scan(direct_segment)),
        Arc::new(direct::exclusive_scan(direct_segment)),
        Arc::new(pull::reduce()),
        Arc::new(pull::reduce_scatter()),
        Arc::new(pull::all_gather()),
        Arc::new(pull::broadcast()),
        Arc::new(pull::scatter()),
        Arc::new(pull::gather()),
        Arc::new(pull::all_to_all(pull_segment)),
        Arc::new(staged::all_reduce(staged_segment, staged::DEPTH)),
        Arc::new(staged::reduce_scatter(staged_segment, staged::DEPTH)),
        Arc::new(staged::all_gather(staged_segment, staged::DEPTH)),
        Arc::new(staged::broadcast(staged_segment, staged::DEPTH)),
        Arc::new(staged::reduce(staged_segment, staged::DEPTH)),
        Arc::new(staged::scatter(staged_segment, staged::DEPTH)),
        Arc::new(staged::gather(staged_segment, staged::DEPTH)),
        Arc::new(staged::all_to_all(staged_segment, staged::DEPTH)),
        Arc::new(staged::scan(scan_segment, staged::DEPTH)),
        Arc::new(staged::exclusive_scan(scan_segment, staged::DEPTH)),
        Arc::new(tree::reduce(length(tree::SEGMENT))),
        Arc::new(tree::gather(length(tree::SEGMENT))),
        Arc::new(tree::scatter(length(tree::SEGMENT))),
        Arc::new(recursive_doubling::all_reduce(length(recursive_doubling::SEGMENT))),
        Arc::new(recursive_halving::reduce_scatter(length(recursive_halving::SEGMENT))),
        Arc::new(bruck::all_to_all(length(bruck::SEGMENT))),
        Arc::new(dissemination::barrier()),
    ];
    for access in [Access::Direct, Access::Staged] {
        all.push(Arc::new(ring::all_reduce(access, ring_segment)));
        all.push(Arc::new(ring::reduce_scatter(access, ring_segment)));
        all.push(Arc::new(ring::all_gather(access, ring_segment)));
        all.push(Arc::new(chain::broadcast(access, length(chain::SEGMENT))));
        all.push(Arc::new(tree::broadcast(access, length(tree::SEGMENT))));
        all.push(Arc::new(recursive_doubling::all_gather(access, length(rounds::SEGMENT))));
        all.push(Arc::new(bruck::all_gather(access, length(rounds::SEGMENT))));
    }
    all
}

/// The built-in schedule of that name for `collective`, where the ranks' memory offers `access`: the form that makes most
/// of it, of those that it allows. `direct` and `pull` are `staged` on memory that does not offer what they need.
/// Schedules that work in segments do so with `segment` elements, or their default.
pub fn named(
    collective: Collective,
    algorithm: &str,
    access: Access,
    segment: Option<usize>,
) -> Option<Arc<dyn Schedule>> {
    let name = match algorithm {
        "direct" if access > Access::Direct => "staged",
        "pull" if access > Access::Read => "staged",
        name => name,
    };
    let of_name = with_segments(segment).into_iter().filter(|s| s.collective() == collective && s.name() == name);
    of_name.filter(|s| s.access() >= access).min_by_key(|s| s.access())
}

/// The names of the algorithms for `collective`.
pub fn names(collective: Collective) -> Vec<&'static str> {
    let all = built_in();
    let is_there = |name: &&str| all.iter().any(|s| s.collective() == collective && s.name() == *name);
    NAMES.into_iter().filter(is_there).collect()
}
