// SPDX-License-Identifier: MPL-2.0
//! Which pages of a segment are in use: a first-fit allocator of page ranges. Pure data; it touches no memory.
//!
//! Ranges are freed in whole pages, but not necessarily as they were allocated: a buffer splits at page boundaries into
//! parts that are freed one by one. Neighbouring free ranges are joined at once, so the free list never holds two
//! ranges that touch.
//!
//! First fit keeps what is used at the low end of the segment; allocations are few and large, so that the list is short
//! and walking it costs nothing beside the system calls that an allocation makes.

use std::collections::BTreeMap;
use std::ops::Range;

/// The free and used page ranges of one segment.
#[derive(Debug, Clone)]
pub struct Arena {
    /// Start of each free range -> its end. No two touch or overlap.
    free: BTreeMap<usize, usize>,
    page: usize,
    len: usize,
    retired: usize,
}

impl Arena {
    /// An arena of `len` bytes, all free, in pages of `page` bytes. A last part that is no whole page is never used,
    /// and nothing is ever allocated where `page` is zero.
    pub fn new(len: usize, page: usize) -> Self {
        let len = len - len.checked_rem(page).unwrap_or(len);
        let mut free = BTreeMap::new();
        if len > 0 {
            free.insert(0, len);
        }
        Arena { free, page, len, retired: 0 }
    }

    /// The lowest free range that holds `bytes`, rounded up to whole pages; `None` if there is none. Zero bytes are the
    /// empty range at the start.
    pub fn allocate(&mut self, bytes: usize) -> Option<Range<usize>> {
        if bytes == 0 {
            return Some(0..0);
        }
        let bytes = bytes.checked_next_multiple_of(self.page)?;
        let (start, end) = self.free.iter().map(|(&start, &end)| (start, end)).find(|(s, e)| e - s >= bytes)?;
        self.free.remove(&start);
        if start + bytes < end {
            self.free.insert(start + bytes, end);
        }
        Some(start..start + bytes)
    }

    /// Makes `range` free again: whole pages of one or more allocations.
    pub fn free(&mut self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        let before = self.free.range(..=range.start).next_back().map(|(&start, &end)| (start, end));
        let after = self.free.range(range.start..).next().map(|(&start, &end)| (start, end));
        let in_use = before.is_none_or(|(_, end)| end <= range.start)
            && after.is_none_or(|(start, _)| start >= range.end)
            && range.end <= self.len;
        debug_assert!(in_use, "{range:?} is not in use");
        // A range freed twice would be handed out twice; what is not in use stays as it is.
        if !in_use {
            return;
        }
        let mut joined = range;
        if let Some((start, _)) = before.filter(|&(_, end)| end == joined.start) {
            joined.start = start;
        }
        if let Some((start, end)) = after.filter(|&(start, _)| start == joined.end) {
            self.free.remove(&start);
            joined.end = end;
        }
        self.free.insert(joined.start, joined.end);
    }

    /// Gives `range` up for ever: its pages were made private after a failed call, and a peer that wakes late may still
    /// write to the segment there. It is never handed out again.
    pub fn retire(&mut self, range: Range<usize>) {
        self.retired += range.len();
    }

    /// Bytes that are free, in ranges of any size.
    #[cfg(test)]
    pub fn available(&self) -> usize {
        self.free.iter().map(|(start, end)| end - start).sum()
    }

    /// Bytes that were given up for ever.
    #[cfg(test)]
    pub fn retired(&self) -> usize {
        self.retired
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    const PAGE: usize = 16;

    #[derive(Debug, Clone)]
    enum Action {
        Allocate(usize),
        /// Frees the first or the last `.1` pages of the `.0`th live range, modulo what there is.
        Free(usize, usize, bool),
        Retire(usize),
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            4 => (0..6 * PAGE).prop_map(Action::Allocate),
            3 => (any::<usize>(), 1..6_usize, any::<bool>()).prop_map(|(i, pages, low)| Action::Free(i, pages, low)),
            1 => any::<usize>().prop_map(Action::Retire),
        ]
    }

    /// The model: one flag a page, searched from the start.
    fn first_fit(used: &[bool], pages: usize) -> Option<usize> {
        (0..=used.len().checked_sub(pages)?).find(|&at| used[at..at + pages].iter().all(|used| !used))
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: RngSeed::Fixed(2),
            failure_persistence: None,
            ..Default::default()
        })]

        #[test]
        fn it_does_what_a_page_map_does(pages in 0..24_usize, actions in prop::collection::vec(action(), 0..60)) {
            let mut arena = Arena::new(pages * PAGE + PAGE / 2, PAGE);
            let mut used = vec![false; pages];
            let mut live: Vec<Range<usize>> = Vec::new();
            let mut retired = 0;
            for action in actions {
                match action {
                    Action::Allocate(bytes) => {
                        let count = bytes.div_ceil(PAGE);
                        let expected = if count == 0 { Some(0) } else { first_fit(&used, count) };
                        let got = arena.allocate(bytes);
                        prop_assert_eq!(got.clone(), expected.map(|at| at * PAGE..(at + count) * PAGE));
                        if let Some(range) = got.filter(|range| !range.is_empty()) {
                            used[range.start / PAGE..range.end / PAGE].fill(true);
                            live.push(range);
                        }
                    }
                    Action::Free(index, count, low) if !live.is_empty() => {
                        let index = index % live.len();
                        let whole = live.swap_remove(index);
                        let bytes = (count * PAGE).min(whole.len());
                        let (part, rest) = if low {
                            (whole.start..whole.start + bytes, whole.start + bytes..whole.end)
                        } else {
                            (whole.end - bytes..whole.end, whole.start..whole.end - bytes)
                        };
                        used[part.start / PAGE..part.end / PAGE].fill(false);
                        arena.free(part);
                        if !rest.is_empty() {
                            live.push(rest);
                        }
                    }
                    Action::Retire(index) if !live.is_empty() => {
                        let index = index % live.len();
                        let whole = live.swap_remove(index);
                        retired += whole.len();
                        arena.retire(whole);
                    }
                    Action::Free(..) | Action::Retire(_) => (),
                }
                prop_assert_eq!(arena.available(), used.iter().filter(|used| !**used).count() * PAGE);
                prop_assert_eq!(arena.retired(), retired);
            }
            for range in live {
                arena.free(range);
            }
            prop_assert_eq!(arena.available() + arena.retired(), pages * PAGE);
        }
    }

    #[test]
    fn sizes_beyond_any_segment_are_refused() {
        let mut arena = Arena::new(4 * PAGE, PAGE);
        assert_eq!(arena.allocate(usize::MAX), None);
        assert_eq!(arena.allocate(4 * PAGE + 1), None);
        assert_eq!(arena.allocate(4 * PAGE), Some(0..4 * PAGE));
        assert_eq!(arena.allocate(1), None);
        assert_eq!(Arena::new(100, 0).allocate(1), None);
    }
}
