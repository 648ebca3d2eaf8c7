// SPDX-License-Identifier: MPL-2.0
//! Which algorithm runs: a function of what all ranks agree on after entry, and of nothing else.
//!
//! Without a name, only schedules of fold order `Rank` are chosen, so that the bits of a result depend neither on its
//! size nor on where the buffers lie: [`one_shot`](super::one_shot) while contributions fit into the entry record,
//! [`direct`](super::direct) where all ranks' buffers can be addressed by all, [`staged`](super::staged) elsewhere.

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
    /// Whether all ranks' buffers can be addressed by all.
    pub access: Access,
    /// Bytes of a contribution that the entry record holds.
    pub inline: usize,
    /// Bytes of shared memory that a rank has for a call.
    pub region: usize,
    /// 0, or 1 + the place in [`catalogue::NAMES`] of the algorithm that was asked for.
    pub algorithm: u32,
}

/// The schedule to run. An error if the algorithm that was asked for does not exist for this collective, or cannot hold
/// the message.
pub(crate) fn choose(request: &Request) -> Result<Arc<dyn Schedule>> {
    let Request { collective, layout, element, access, .. } = *request;
    let largest = (0..layout.world()).map(|rank| layout.input_len(collective, rank)).max().unwrap_or(0);
    let fits = largest.checked_mul(element).is_some_and(|bytes| bytes <= request.inline);
    let name = match request.algorithm.checked_sub(1).and_then(|place| catalogue::NAMES.get(place as usize)) {
        Some(name) => *name,
        None if collective == Collective::Barrier => "barrier",
        None if fits => "one_shot",
        None => "direct",
    };
    if name == "one_shot" && !fits {
        return Err(Error::invalid(format!(
            "the algorithm one_shot carries at most {} bytes a rank, and this {collective} has {}; use direct or ring",
            request.inline,
            largest.saturating_mul(element)
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

    const INLINE: usize = 2048;
    const REGION: usize = 96 << 10;

    fn request(collective: Collective, layout: &Layout, access: Access, algorithm: u32) -> Request<'_> {
        Request { collective, layout, element: 2, accumulator: 4, access, inline: INLINE, region: REGION, algorithm }
    }

    #[test]
    fn without_a_name_folds_are_in_rank_order_whatever_the_size_and_memory() {
        for collective in Collective::ALL {
            for world in [1, 2, 3, 17, 200] {
                for count in [0, 1, 100, 5000, 1 << 20] {
                    for access in [Access::Direct, Access::Staged] {
                        let layout = Layout::uniform(world, count).with_root(world - 1);
                        let schedule = choose(&request(collective, &layout, access, 0)).unwrap();
                        assert_eq!(schedule.fold_order(), FoldOrder::Rank);
                        let largest = (0..world).map(|rank| layout.input_len(collective, rank)).max().unwrap_or(0);
                        let expected = match access {
                            _ if collective == Collective::Barrier => "barrier",
                            _ if 2 * largest <= INLINE => "one_shot",
                            Access::Direct => "direct",
                            Access::Staged => "staged",
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
                for access in [Access::Direct, Access::Staged] {
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
