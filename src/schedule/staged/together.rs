// SPDX-License-Identifier: MPL-2.0
//! The collectives in which all ranks stage, in one pipeline: all-reduce, scans, reduce-scatter, all-gather, all-to-all.

use std::ops::Range;

use super::{Call, Work};
use crate::schedule::prefix::prefixes;
use crate::schedule::segments::len_in;
use crate::schedule::{Collective, Place, Program, partition};

impl Call<'_> {
    /// Rank `r`'s part of a segment of what ranks deal among them. The last segment may be shorter. Its parts begin where
    /// they begin in the others all the same: dealt anew, what a rank stages could fall on a result that others are
    /// still collecting from the same slot.
    fn part(&self, segment: usize, r: usize) -> Range<usize> {
        let whole = partition::part(self.segment, self.layout.world(), r);
        let end = len_in(segment, self.layout.count(r), self.segment);
        whole.start.min(end)..whole.end.min(end)
    }

    /// A segment without the rank's own part: what comes before it, and what after.
    fn others_parts(&self, segment: usize) -> [Range<usize>; 2] {
        let own = self.part(segment, self.rank);
        [0..own.start, own.end..len_in(segment, self.layout.count(self.rank), self.segment)]
    }

    /// All-reduce, or reduce if only one rank is to have the result.
    pub(super) fn all_reduce(&self, only: Option<usize>) -> Program {
        let (rank, n, len) = (self.rank, self.layout.world(), self.layout.count(self.rank));
        let stage = |body: &mut Program, segment| {
            for others in self.others_parts(segment) {
                let to = self.slot(rank, segment, others.start);
                body.copy(self.input(0, segment, others.start), [to], others.len());
            }
        };
        let fold = |body: &mut Program, segment| {
            let own = self.part(segment, rank);
            let from = (0..n).map(|r| match r == rank {
                true => self.input(0, segment, own.start),
                false => self.slot(r, segment, own.start),
            });
            let output = only.is_none_or(|only| only == rank).then(|| self.output(0, segment, own.start));
            let slot = (only != Some(rank)).then(|| self.slot(rank, segment, own.start));
            body.fold(from, output.into_iter().chain(slot), own.len());
        };
        let collect = |body: &mut Program, segment| {
            for other in self.layout.others(rank).filter(|_| only.is_none_or(|only| only == rank)) {
                let result = self.part(segment, other);
                let to = self.output(0, segment, result.start);
                body.copy(self.slot(other, segment, result.start), [to], result.len());
            }
        };
        self.pipeline(len, [len].into_iter(), Work { stage: &stage, fold: &fold, collect: Some(&collect) })
    }

    pub(super) fn scan(&self, collective: Collective) -> Program {
        let (rank, n, len) = (self.rank, self.layout.world(), self.layout.count(self.rank));
        let exclusive = collective == Collective::ExclusiveScan;
        let stage = |body: &mut Program, segment| {
            // The last rank's contribution is in no exclusive prefix.
            for others in self.others_parts(segment).into_iter().filter(|_| !exclusive || rank + 1 < n) {
                let to = self.slot(rank, segment, others.start);
                body.copy(self.input(0, segment, others.start), [to], others.len());
            }
        };
        let fold = |body: &mut Program, segment| {
            let own = self.part(segment, rank);
            let place = |r: usize, of_own: Place| if r == rank { of_own } else { self.slot(r, segment, own.start) };
            let input = |r| place(r, self.input(0, segment, own.start));
            let output = |r| place(r, self.output(0, segment, own.start));
            prefixes(body, collective, (rank, n), input, output, own.len());
        };
        let collect = |body: &mut Program, segment| {
            for others in self.others_parts(segment).into_iter().filter(|_| !exclusive || rank > 0) {
                let to = self.output(0, segment, others.start);
                body.copy(self.slot(rank, segment, others.start), [to], others.len());
            }
        };
        self.pipeline(len, [len].into_iter(), Work { stage: &stage, fold: &fold, collect: Some(&collect) })
    }

    pub(super) fn reduce_scatter(&self) -> Program {
        let (rank, layout, n) = (self.rank, self.layout, self.layout.world());
        let len = |segment, r| len_in(segment, layout.count(r), self.segment);
        let stage = |body: &mut Program, segment| {
            for other in layout.others(rank) {
                let to = self.slot(rank, segment, other * self.segment);
                body.copy(self.input(layout.offset(other), segment, 0), [to], len(segment, other));
            }
        };
        let fold = |body: &mut Program, segment| {
            let from = (0..n).map(|r| match r == rank {
                true => self.input(layout.offset(rank), segment, 0),
                false => self.slot(r, segment, rank * self.segment),
            });
            body.fold(from, [self.output(0, segment, 0)], len(segment, rank));
        };
        self.pipeline(
            layout.largest(),
            (0..n).map(|r| layout.count(r)),
            Work { stage: &stage, fold: &fold, collect: None },
        )
    }

    pub(super) fn all_gather(&self) -> Program {
        let (rank, layout, n) = (self.rank, self.layout, self.layout.world());
        let len = |segment, r| len_in(segment, layout.count(r), self.segment);
        let stage = |body: &mut Program, segment| {
            let own = (!layout.is_in_place()).then(|| self.output(layout.offset(rank), segment, 0));
            let to = own.into_iter().chain([self.slot(rank, segment, 0)]);
            body.copy(self.input(0, segment, 0), to, len(segment, rank));
        };
        let copy_out = |body: &mut Program, segment| {
            for other in layout.others(rank) {
                let to = self.output(layout.offset(other), segment, 0);
                body.copy(self.slot(other, segment, 0), [to], len(segment, other));
            }
        };
        self.pipeline(
            layout.largest(),
            (0..n).map(|r| layout.count(r)),
            Work { stage: &stage, fold: &copy_out, collect: None },
        )
    }

    pub(super) fn all_to_all(&self) -> Program {
        let (rank, layout, n) = (self.rank, self.layout, self.layout.world());
        let len = |segment, from, to| len_in(segment, layout.pair(from, to), self.segment);
        let stage = |body: &mut Program, segment| {
            for to in layout.others(rank) {
                let from = self.input(layout.input_offset(rank, to), segment, 0);
                body.copy(from, [self.slot(rank, segment, to * self.segment)], len(segment, rank, to));
            }
        };
        let copy_out = |body: &mut Program, segment| {
            for from in layout.others(rank) {
                let to = self.output(layout.output_offset(from, rank), segment, 0);
                body.copy(self.slot(from, segment, rank * self.segment), [to], len(segment, from, rank));
            }
            if !layout.is_in_place() {
                let to = self.output(layout.output_offset(rank, rank), segment, 0);
                body.copy(self.input(layout.input_offset(rank, rank), segment, 0), [to], len(segment, rank, rank));
            }
        };
        let lens = (0..n).flat_map(|r| [layout.pair(rank, r), layout.pair(r, rank)]);
        self.pipeline(layout.largest_pair(), lens, Work { stage: &stage, fold: &copy_out, collect: None })
    }
}
