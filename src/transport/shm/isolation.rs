// SPDX-License-Identifier: MPL-2.0
//! How the pages of a failing call's buffers are taken out of sharing: each of them, and each once.
//!
//! Buffers of the calls in flight may overlap and meet within a page, and another communicator's failure may have taken
//! some of the pages before. A page that is private already is left alone: to take it again would bring the segment's
//! old bytes back, over what its user has written since.
//!
//! What the buffers hold is unspecified now, so pages that are theirs alone are replaced by empty ones: however long a
//! buffer is, that takes no memory, and no time to speak of. Only the pages at their ends, where there may be something
//! else, are copied.
#![allow(unsafe_code)] // exchanges pages under buffers

use std::ops::Range;
use std::ptr::NonNull;

use super::lease::Own;
use super::segment::page_size;
use crate::error::Result;

impl Own {
    /// Takes the pages of those buffers that lie in this segment out of sharing. What the buffers hold is lost; what
    /// else is in their pages stays. On an error some of the pages are still shared, and named as before.
    ///
    /// # Safety
    ///
    /// The caller holds the buffers exclusively: no thread of this process writes to their pages during the call, and
    /// nothing in this process relies on sharing them with a peer afterwards.
    pub unsafe fn isolate(&self, buffers: &[(NonNull<u8>, usize)]) -> Result<()> {
        let page = page_size();
        let runs = union(buffers.iter().filter_map(|(data, bytes)| self.place(data.as_ptr(), *bytes)).collect());
        let whole = runs.iter().map(|run| run.start.next_multiple_of(page)..run.end / page * page);
        let whole = union(whole.filter(|pages| !pages.is_empty()).collect());
        let touched = union(runs.iter().map(|run| run.start / page * page..run.end.next_multiple_of(page)).collect());
        // Held throughout, so that of two communicators that fail at once one finds what the other has done.
        let mut private = self.private();
        // SAFETY: the pages are this segment's, as `place` has found, and the caller's to exchange.
        let replaced = self.make_private(&mut private, &whole, |range| unsafe { self.segment().replace(range) });
        // SAFETY: as above.
        let copied = self.make_private(&mut private, &touched, |range| unsafe { self.segment().privatise(range) });
        replaced.and(copied)
    }

    /// Exchanges those of these pages that are not private, and notes them.
    fn make_private(
        &self,
        private: &mut Vec<Range<usize>>,
        pages: &[Range<usize>],
        exchange: impl Fn(Range<usize>) -> Result<()>,
    ) -> Result<()> {
        let mut outcome = Ok(());
        for range in without(pages, &union(private.clone())) {
            match exchange(range.clone()) {
                Ok(()) => self.note_private(private, range),
                failed => outcome = outcome.and(failed),
            }
        }
        outcome
    }
}

/// What these cover, in order; no two of the answer touch.
fn union(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        match joined.last_mut().filter(|last| range.start <= last.end) {
            Some(last) => last.end = last.end.max(range.end),
            None => joined.push(range),
        }
    }
    joined
}

/// What `ranges` cover and `taken` do not; both are unions.
fn without(ranges: &[Range<usize>], taken: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut rest = Vec::new();
    for range in ranges {
        let mut start = range.start;
        for hole in taken.iter().filter(|hole| hole.start < range.end && range.start < hole.end) {
            rest.push(start..hole.start.max(start));
            start = hole.end;
        }
        rest.push(start..range.end.max(start));
    }
    rest.retain(|range| !range.is_empty());
    rest
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::super::segment::Segment;
    use super::*;

    const PAGES: usize = 8;

    /// A segment that is all in use, and a peer's mapping of it.
    fn pair() -> (Own, Segment) {
        let own = Own::new(Segment::create("annulus-test", PAGES * page_size()).unwrap());
        own.take(PAGES * page_size()).unwrap();
        let peer = Segment::open(own.segment().as_fd().try_clone_to_owned().unwrap(), PAGES * page_size()).unwrap();
        (own, peer)
    }

    fn isolate(own: &Own, buffers: &[Range<usize>]) {
        let buffers: Vec<_> = buffers.iter().map(|run| (own.address(run.start), run.len())).collect();
        // SAFETY: one thread, which holds no references to the segment.
        unsafe { own.isolate(&buffers) }.unwrap();
    }

    /// The pages of which the peer's writes do not arrive.
    fn isolated(own: &Own, peer: &Segment) -> Vec<usize> {
        let is_isolated = |page: &usize| {
            let at = page * page_size() + 5;
            // SAFETY: within both mappings, which this thread alone touches.
            unsafe {
                let (here, there) = (own.address(at).as_ptr(), peer.base().as_ptr().add(at));
                there.write_volatile(here.read_volatile() ^ 1);
                there.read_volatile() != here.read_volatile()
            }
        };
        (0..PAGES).filter(is_isolated).collect()
    }

    #[test]
    fn buffers_that_overlap_are_isolated_whole() {
        let (page, (own, peer)) = (page_size(), pair());
        // An input that is a part of its output, and buffers that meet within a page.
        isolate(&own, &[2 * page..3 * page, page..4 * page]);
        assert_eq!(isolated(&own, &peer), [1, 2, 3]);
        isolate(&own, &[5 * page..6 * page + 100, 6 * page + 100..7 * page]);
        assert_eq!(isolated(&own, &peer), [1, 2, 3, 5, 6]);
        assert_eq!(own.offset(own.address(4 * page).as_ptr(), page), Some(4 * page));
        assert_eq!(own.offset(own.address(4 * page).as_ptr(), page + 1), None);
    }

    #[test]
    fn what_is_private_stays_as_its_user_left_it() {
        let (page, (own, peer)) = (page_size(), pair());
        isolate(&own, std::slice::from_ref(&(2 * page..3 * page + 1)));
        let at = |offset: usize| own.address(offset).as_ptr();
        // SAFETY: within the mapping, which this thread alone touches.
        unsafe { at(3 * page).write_volatile(77) };
        isolate(&own, &[page..4 * page, 3 * page..5 * page]);
        assert_eq!(isolated(&own, &peer), [1, 2, 3, 4]);
        // SAFETY: as above.
        assert_eq!(unsafe { at(3 * page).read_volatile() }, 77);
    }

    #[test]
    fn what_lies_beside_a_buffer_is_kept() {
        let (page, (own, peer)) = (page_size(), pair());
        let at = |page: usize| own.address(page * page_size() + 20).as_ptr();
        for page in 0..PAGES {
            // SAFETY: within the mapping, which this thread alone touches.
            unsafe { at(page).write_volatile(10 + page as u8) };
        }
        // From within page 1 to within page 4, and two that meet within page 6.
        let buffers = [page + 21..4 * page + 20, 6 * page..6 * page + 100, 6 * page + 100..7 * page];
        isolate(&own, &buffers);
        // SAFETY: as above.
        let found: Vec<u8> = (0..PAGES).map(|page| unsafe { at(page).read_volatile() }).collect();
        assert_eq!(found, [10, 11, 0, 0, 14, 15, 0, 17]);
        assert_eq!(isolated(&own, &peer), [1, 2, 3, 4, 6]);
    }

    /// As long as the machine has memory, or longer.
    #[test]
    fn long_buffers_are_isolated_without_memory_for_them() {
        let capacity = Segment::capacity(1);
        let own = Own::new(Segment::create("annulus-test", capacity).unwrap());
        isolate(&own, &[10..capacity / 2, capacity / 2..capacity - 10]);
        assert_eq!(own.offset(own.address(capacity / 2).as_ptr(), 1), None);
    }

    #[test]
    fn memory_of_elsewhere_is_left_alone() {
        let (own, peer) = pair();
        let mut elsewhere = [0_u8; 10];
        // SAFETY: as above.
        unsafe { own.isolate(&[(NonNull::from(&mut elsewhere).cast(), 10)]) }.unwrap();
        assert!(isolated(&own, &peer).is_empty());
    }

    #[test]
    fn ranges_are_joined_and_taken_from_each_other() {
        assert_eq!(union(vec![4..6, 0..2, 5..9, 2..3, 12..13]), [0..3, 4..9, 12..13]);
        assert_eq!(without(&[0..10, 20..30], &[2..4, 8..22, 25..26, 30..40]), [0..2, 4..8, 22..25, 26..30]);
        assert_eq!(without(&[0..10, 20..30, 40..50], &[0..5, 19..31]), [5..10, 40..50]);
        assert_eq!(without(&[0..10, 20..30], &[]), [0..10, 20..30]);
        assert!(union(Vec::new()).is_empty());
    }
}
