// SPDX-License-Identifier: MPL-2.0
//! What a benchmark sends, and what must come of it, at the cost of copying it.
//!
//! Each rank has a pattern of a prime number of elements, which its input repeats; call c begins [`STEP`] times c
//! elements into it, so that no call within [`PERIOD`] of another sends the same. The patterns are the reference's
//! exact inputs, on which every fold order gives the same bits, and the reference folds them once: whatever the length
//! and the call, each element of an output is known. A prime, because chunks, segments and cache lines are not multiples
//! of it: what is moved to the wrong place is seen.

use std::ops::Range;

use super::Subject;
use super::subject::neighbours;
use crate::element::{Element, FoldOrder, ReduceOp};
use crate::error::Result;
use crate::reference::{self, inputs};
use crate::schedule::{Collective, Layout};

/// Elements of a pattern. A prime.
const PERIOD: usize = 4093;

/// How much further in the pattern each call begins.
const STEP: usize = 1031;

const SEED: u64 = 0xa22;

/// The patterns of all ranks.
pub(super) struct Payload<T> {
    subject: Subject,
    sent: Vec<Vec<T>>,
    /// Their folds, of collectives that fold: of ranks 0 to r for each rank r, hence last that of all.
    folded: Vec<Vec<T>>,
}

impl<T: Element> Payload<T> {
    pub fn new(subject: Subject, op: ReduceOp, ranks: usize) -> Result<Self> {
        let lengths = vec![PERIOD; ranks];
        if !subject.folds() {
            return Ok(Payload { subject, sent: inputs::random(SEED, 0, &lengths), folded: Vec::new() });
        }
        let sent = inputs::exact(op, SEED, 0, &lengths);
        let folded = match subject.is_scan() {
            true => reference::scan(op, &sent)?,
            false => vec![reference::fold(&FoldOrder::Rank, op, &sent)?],
        };
        Ok(Payload { subject, sent, folded })
    }

    /// Writes rank `rank`'s input of call `call`.
    pub fn fill(&self, rank: usize, call: usize, input: &mut [T]) {
        let mut place = begin(call, 0);
        let mut rest = input;
        while !rest.is_empty() {
            let pattern = &self.sent[rank][place..];
            let (now, later) = rest.split_at_mut(pattern.len().min(rest.len()));
            now.copy_from_slice(&pattern[..now.len()]);
            (rest, place) = (later, 0);
        }
    }

    /// The number of elements of rank `rank`'s output of call `call` that are not what they should be.
    pub fn wrong(&self, rank: usize, call: usize, layout: &Layout, output: &[T]) -> u64 {
        let (all, root) = (0..layout.world(), layout.root());
        let part = |of: usize| -> Range<usize> { layout.offset(of)..layout.offset(of) + layout.count(of) };
        let fold = |of: usize, first: usize| differing(&self.folded[of], begin(call, first), output);
        let collective = match self.subject {
            // A rank without an output has none that is wrong.
            _ if output.is_empty() => return 0,
            Subject::Collective(collective) => collective,
            Subject::SendRecv => {
                let (_, before) = neighbours(rank, layout.world());
                return differing(&self.sent[before], begin(call, 0), output);
            }
        };
        match collective {
            Collective::AllReduce | Collective::Reduce => fold(0, 0),
            Collective::ReduceScatter => fold(0, layout.offset(rank)),
            Collective::Scan => fold(rank, 0),
            Collective::ExclusiveScan => fold(rank - 1, 0),
            Collective::Broadcast => differing(&self.sent[root], begin(call, 0), output),
            Collective::Scatter => differing(&self.sent[root], begin(call, layout.offset(rank)), output),
            Collective::AllGather | Collective::Gather => {
                all.map(|of| differing(&self.sent[of], begin(call, 0), &output[part(of)])).sum()
            }
            Collective::AllToAll => {
                let first = begin(call, layout.offset(rank));
                all.map(|of| differing(&self.sent[of], first, &output[part(of)])).sum()
            }
            Collective::Barrier => 0,
        }
    }
}

/// Where in the pattern element `element` of call `call` lies.
fn begin(call: usize, element: usize) -> usize {
    (call % PERIOD * STEP + element % PERIOD) % PERIOD
}

/// How many elements have other bits than the pattern from `place` on.
fn differing<T: Element>(pattern: &[T], mut place: usize, got: &[T]) -> u64 {
    let (mut rest, mut count) = (got, 0);
    while !rest.is_empty() {
        let pattern = &pattern[place..];
        let (now, later) = rest.split_at(pattern.len().min(rest.len()));
        let expected = &pattern[..now.len()];
        if bytemuck::cast_slice::<T, u8>(now) != bytemuck::cast_slice::<T, u8>(expected) {
            let pairs = now.iter().zip(expected);
            count += pairs.filter(|(got, expected)| bytemuck::bytes_of(*got) != bytemuck::bytes_of(*expected)).count();
        }
        (rest, place) = (later, 0);
    }
    count as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::check::Request;

    const RANKS: usize = 3;
    const LEN: usize = 3 * 2000; // longer than a period, and not a multiple

    /// The reference's outputs for what call `call` sends.
    fn outputs(payload: &Payload<f32>, call: usize, layout: &Layout, request: &Request<'_>) -> Vec<Vec<f32>> {
        let subject = payload.subject;
        let input = |rank| {
            let mut input = vec![0.0; subject.input_len(layout, rank)];
            payload.fill(rank, call, &mut input);
            input
        };
        request.outputs(&(0..RANKS).map(input).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn what_is_expected_is_what_the_reference_makes_of_what_is_sent() {
        let order = &FoldOrder::Ring;
        let op = ReduceOp::Sum;
        for (collective, count, request) in [
            (Collective::AllReduce, LEN, Request::AllReduce { order, op }),
            (
                Collective::ReduceScatter,
                LEN / RANKS,
                Request::ReduceScatter { order, op, counts: &[LEN / RANKS; RANKS] },
            ),
            (Collective::AllGather, LEN, Request::AllGather),
            (Collective::Broadcast, LEN, Request::Broadcast { root: 0 }),
            (Collective::Reduce, LEN, Request::Reduce { order, op, root: 0 }),
            (Collective::Scatter, LEN, Request::Scatter { root: 0, counts: &[LEN; RANKS] }),
            (Collective::Gather, LEN, Request::Gather { root: 0 }),
            (Collective::AllToAll, LEN, Request::AllToAll { counts: &vec![vec![LEN; RANKS]; RANKS] }),
            (Collective::Scan, LEN, Request::Scan { op }),
            (Collective::ExclusiveScan, LEN, Request::ExclusiveScan { op }),
        ] {
            let payload = Payload::<f32>::new(collective.into(), op, RANKS).unwrap();
            let layout = Layout::uniform(RANKS, count);
            for call in [0, 1, 5000] {
                let right = outputs(&payload, call, &layout, &request);
                let stale = outputs(&payload, call + 1, &layout, &request);
                for rank in (0..RANKS).filter(|rank| !right[*rank].is_empty()) {
                    assert_eq!(payload.wrong(rank, call, &layout, &right[rank]), 0, "{collective} {call} {rank}");
                    let wrong = payload.wrong(rank, call, &layout, &stale[rank]) as usize;
                    assert!(wrong > right[rank].len() * 9 / 10, "{collective}: an earlier call's output: {wrong}");
                    let mut one = right[rank].clone();
                    one[1999] += 1.0;
                    assert_eq!(payload.wrong(rank, call, &layout, &one), 1, "{collective}: one element");
                    one.rotate_left(1);
                    assert!(payload.wrong(rank, call, &layout, &one) > 1000, "{collective}: shifted");
                }
            }
        }
    }

    #[test]
    fn what_comes_round_is_what_the_rank_before_has_sent() {
        let payload = Payload::<f32>::new(Subject::SendRecv, ReduceOp::Sum, RANKS).unwrap();
        let layout = Layout::uniform(RANKS, LEN);
        for (rank, before) in [(0, RANKS - 1), (1, 0), (2, 1)] {
            let sent = |of: usize, call: usize| {
                let mut input = vec![0.0; LEN];
                payload.fill(of, call, &mut input);
                payload.wrong(rank, 7, &layout, &input) as usize
            };
            assert_eq!(sent(before, 7), 0);
            assert!(sent(rank, 7) > LEN * 9 / 10 && sent(before, 6) > LEN * 9 / 10);
        }
    }

    #[test]
    fn no_call_sends_what_another_does() {
        let mut begins: Vec<usize> = (0..PERIOD).map(|call| begin(call, 0)).collect();
        begins.sort_unstable();
        assert!(begins.iter().copied().eq(0..PERIOD));
    }
}
