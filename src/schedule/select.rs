// SPDX-License-Identifier: MPL-2.0
//! Which algorithm runs: a function of what all ranks agree on after entry, and of nothing else.
//!
//! Without a name, only schedules of fold order `Rank` are chosen, so that the bits of a result depend neither on its
//! size nor on where the buffers lie: [`one_shot`](super::one_shot) for what is quick to carry along with the entry;
//! above that [`direct`](super::direct) where all ranks' buffers can be addressed by all; else `one_shot` again, while
//! it is worth it and contributions fit into the entry record, and beyond that [`pull`](super::pull) where all ranks' buffers
//! can be read by all, as long as that is worth it, and [`staged`](super::staged) for the rest.

use std::sync::Arc;

use super::catalogue;
use super::{Access, Collective, Layout, Schedule};
use crate::error::{Error, Result};

/// What is to be run.
pub(crate) struct Request<'a> {
    pub collective: Collective,
    pub layout: &'a Layout,
    /// Bytes of one element, and of one accumulator.
    pub element: usize,
    pub accumulator: usize,
    /// What all ranks can do with the others' buffers.
    pub access: Access,
    /// Up to how many bytes contributions ride along whatever the memory: what they cost to copy is less than what the
    /// exit of [`direct`](super::direct) costs.
    pub always: usize,
    /// Bytes of a contribution that the entry record holds; 0 if not all ranks' are there.
    pub inline: usize,
    /// Bytes of shared memory that a rank has for a call.
    pub region: usize,
    /// 0, or 1 + the place in [`catalogue::NAMES`] of the algorithm that was asked for.
    pub algorithm: u32,
}

/// Up to how many bytes contributions ride along where not all buffers can be addressed, of the `inline` bytes that the
/// entry record holds. Where every rank folds everything, that is dearer the more ranks there are; from eight on it is
/// not worth it beyond a quarter.
pub(crate) fn carried(collective: Collective, world: usize, inline: usize) -> usize {
    match collective.folds() && !collective.has_parts() {
        true => (2 * inline / world.max(1)).clamp(inline / 4, inline),
        false => inline,
    }
}

/// Up to how many of those it is worth it: where peers may read, what they would wait for one copy by the system is more
/// than what two copies of a short message take, and the more so the less they get in each other's way.
pub(crate) fn worth_carrying(collective: Collective, access: Access, carried: usize) -> usize {
    match (access, collective) {
        (Access::Read, Collective::Broadcast | Collective::Gather | Collective::Reduce) => carried / 4,
        (Access::Read, Collective::Scatter) => carried / 2,
        _ => carried,
    }
}

/// Whether a call pulls, where it can. A pull keeps the rank that pulls busy; through slots, giver and taker
/// copy at the same time, each half as far from its own data. So what is moved from or to a root is pulled as long as it
/// comes out of a cache, or the root has a copy of its own to make meanwhile; beyond, it is staged. Where every rank takes
/// from every other, all copy at the same time anyway. What is folded is copied first, which is quicker than through slots
/// as long as it stays in a near cache until it is folded; all-reduce would pull twice, and its results are fresh in
/// their ranks' caches, from where they come slowly. What is swapped in place would have to be copied twice.
pub(crate) fn worth_pulling(collective: Collective, layout: &Layout, element: usize) -> bool {
    let most = match (collective, layout.is_in_place()) {
        (Collective::AllToAll, true) => return false,
        (Collective::AllToAll | Collective::AllGather, _) => return true,
        (Collective::Gather, _) => 256 << 10,
        (Collective::Broadcast | Collective::Scatter, true) => 512 << 10,
        (Collective::Broadcast | Collective::Scatter, false) => 4 << 20,
        (Collective::Reduce, _) => (128 << 10) / (layout.world() - 1).max(1),
        (Collective::ReduceScatter, _) => (1 << 20) / layout.world(),
        _ => return false,
    };
    (0..layout.world()).all(|rank| layout.count(rank).saturating_mul(element) <= most)
}

/// The largest contribution of a rank, in bytes.
pub(crate) fn contribution(collective: Collective, layout: &Layout, element: usize) -> Option<usize> {
    let largest = (0..layout.world()).map(|rank| layout.input_len(collective, rank)).max().unwrap_or(0);
    largest.checked_mul(element)
}

/// The schedule to run. An error if the algorithm that was asked for does not exist for this collective, or cannot hold
/// the message.
pub(crate) fn choose(request: &Request) -> Result<Arc<dyn Schedule>> {
    let Request { collective, layout, element, access, .. } = *request;
    let limit = carried(collective, layout.world(), request.inline);
    let contribution = contribution(collective, layout, element);
    let fits = contribution.is_some_and(|bytes| bytes <= limit);
    let is_worth_it = contribution.is_some_and(|bytes| bytes <= worth_carrying(collective, access, limit));
    let is_tiny = contribution.is_some_and(|bytes| bytes <= request.always);
    let name = match request.algorithm.checked_sub(1).and_then(|place| catalogue::NAMES.get(place as usize)) {
        Some(name) => *name,
        None if collective == Collective::Barrier => "barrier",
        None if fits && (is_tiny || access != Access::Direct && is_worth_it) => "one_shot",
        None if access == Access::Read && worth_pulling(collective, layout, element) => "pull",
        None => "direct",
    };
    if name == "one_shot" && !fits {
        return Err(Error::invalid(format!(
            "the algorithm one_shot carries at most {limit} bytes a rank, and this {collective} has {}; use direct or ring",
            contribution.unwrap_or(usize::MAX)
        )));
    }
    // The largest segment whose slots fit into the region: what is staged stays in cache, and fewer, longer segments
    // mean fewer signals.
    let mut segment = (request.region / 2 / request.element.max(1)).max(1);
    loop {
        let schedule = catalogue::named(collective, name, access, Some(segment)).ok_or_else(|| {
            Error::invalid(format!(
                "there is no algorithm {name} for {collective}; there are {}",
                catalogue::names(collective).join(", ")
            ))
        })?;
        let resources = schedule.resources(layout);
        let line = |count: usize, bytes: usize| (count * bytes).next_multiple_of(128);
        let bytes = line(resources.scratch, element)
            + resources.depth * (line(resources.slot, element) + line(resources.partial, request.accumulator));
        if bytes <= request.region || segment == 1 || name == "one_shot" {
            return Ok(schedule);
        }
        segment = segment / 2 + segment % 2;
    }
}

#[cfg(test)]
mod tests {
    use super::super::Resources;
    use super::*;
    use crate::element::FoldOrder;

    const ALWAYS: usize = 512;
    const INLINE: usize = 8192;
    const REGION: usize = 96 << 10;

    fn request(collective: Collective, layout: &Layout, access: Access, algorithm: u32) -> Request<'_> {
        Request {
            collective,
            layout,
            element: 2,
            accumulator: 4,
            access,
            always: ALWAYS,
            inline: INLINE,
            region: REGION,
            algorithm,
        }
    }

    fn carried_of(collective: Collective, world: usize, access: Access) -> usize {
        worth_carrying(collective, access, carried(collective, world, INLINE))
    }

    #[test]
    fn without_a_name_folds_are_in_rank_order_whatever_the_size_and_memory() {
        for collective in Collective::ALL {
            for world in [1, 2, 3, 17, 200] {
                for count in [0, 1, 100, 5000, 1 << 20] {
                    for access in [Access::Direct, Access::Read, Access::Staged] {
                        let layout = Layout::uniform(world, count).with_root(world - 1);
                        let schedule = choose(&request(collective, &layout, access, 0)).unwrap();
                        assert_eq!(schedule.fold_order(), FoldOrder::Rank);
                        let largest = (0..world).map(|rank| layout.input_len(collective, rank)).max().unwrap_or(0);
                        let expected = match access {
                            _ if collective == Collective::Barrier => "barrier",
                            _ if 2 * largest <= ALWAYS => "one_shot",
                            Access::Direct => "direct",
                            _ if 2 * largest <= carried_of(collective, world, access) => "one_shot",
                            Access::Read if worth_pulling(collective, &layout, 2) => "pull",
                            _ => "staged",
                        };
                        assert_eq!(schedule.name(), expected, "{collective} {layout:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn segments_are_as_long_as_the_region_allows() {
        for collective in Collective::ALL {
            for (place, name) in catalogue::NAMES.into_iter().enumerate() {
                for access in [Access::Direct, Access::Read, Access::Staged] {
                    for world in [1, 2, 5, 17, 64] {
                        let layout = Layout::uniform(world, 1 << 20);
                        let Ok(schedule) = choose(&request(collective, &layout, access, place as u32 + 1)) else {
                            assert!(name == "one_shot" || catalogue::named(collective, name, access, None).is_none());
                            continue;
                        };
                        let Resources { scratch, slot, partial, depth, .. } = schedule.resources(&layout);
                        let bytes = 2 * scratch + depth * (2 * slot + 4 * partial);
                        assert!(bytes <= REGION, "{name} {collective} of {world}: {bytes} bytes");
                        assert!(bytes == 0 || bytes >= REGION / 4, "{name} {collective} of {world}: {bytes} bytes");
                    }
                }
            }
        }
    }
}
