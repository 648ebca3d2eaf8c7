// SPDX-License-Identifier: MPL-2.0
//! All-gathers in which each rank takes, round by round, from one other rank all that it has and oneself lacks.
//!
//! In round i a rank reads parts that the other has had since its own round i - 1, from the other's output, or, staged,
//! from its slot, which has an area for each part. [`recursive_doubling`](super::recursive_doubling) and
//! [`bruck`](super::bruck) say from whom.
//!
//! There are two slots, used in turn. A rank finishes a segment only when all have begun it, that is, finished the one
//! before: so nobody reads a slot any more when it is used again.

use std::ops::Range;

use super::halves::distinct;
use super::segments::{len_in, marks, repeat, turns};
use super::{Access, Buffer, Collective, Layout, Place, Program, Resources, Schedule};

/// Elements of a slot, unless asked otherwise: 32 KiB of f32.
pub const SEGMENT: usize = 8 * 1024;

/// A rank's one flag: how many steps it has taken; the first has its own part in place, each other is a round. Nobody
/// hears of a segment's last round but, with direct access, before the call ends.
const STEPS: u32 = 0;

/// What a rank does in a round. Without parts, nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct Round {
    /// The rank from which it takes.
    pub(super) from: usize,
    /// The parts that it takes.
    pub(super) parts: Vec<Range<usize>>,
}

/// An all-gather in rounds.
#[derive(Debug, Clone, Copy)]
pub struct Gathering {
    name: &'static str,
    access: Access,
    segment: usize,
    /// The rounds of a world's rank: as many for each rank. Only the first ones may be without parts.
    rounds: fn(usize, usize) -> Vec<Round>,
}

impl Gathering {
    pub(super) fn new(
        name: &'static str,
        access: Access,
        segment: usize,
        rounds: fn(usize, usize) -> Vec<Round>,
    ) -> Self {
        Gathering { name, access, segment, rounds }
    }

    /// The steps of a turn of which others hear.
    fn steps(&self, rounds: usize) -> usize {
        rounds + usize::from(self.access == Access::Direct)
    }

    /// How much of a part is moved at once: directly all of it.
    fn share(&self, layout: &Layout) -> usize {
        match self.access {
            Access::Direct => layout.largest().max(1),
            _ => (self.segment / layout.world()).max(1),
        }
    }
}

impl Schedule for Gathering {
    fn name(&self) -> &str {
        self.name
    }

    fn collective(&self) -> Collective {
        Collective::AllGather
    }

    fn access(&self) -> Access {
        self.access
    }

    fn resources(&self, layout: &Layout) -> Resources {
        let (n, share) = (layout.world(), self.share(layout));
        let steps = self.steps((self.rounds)(n, 0).len());
        let needs =
            Resources { flags: 1, advance: (turns(layout.largest(), share) * steps) as u64, ..Resources::default() };
        match self.access {
            Access::Read | Access::Staged if n > 1 => Resources { slot: share * n, depth: 2, ..needs },
            _ => needs,
        }
    }

    fn program(&self, rank: usize, layout: &Layout) -> Program {
        let (n, share, direct) = (layout.world(), self.share(layout), self.access == Access::Direct);
        let rounds = (self.rounds)(n, rank);
        let steps = self.steps(rounds.len()) as i64;
        // Who reads from this rank, and in which round.
        let reads: Vec<(usize, usize)> = layout
            .others(rank)
            .flat_map(|other| (self.rounds)(n, other).into_iter().enumerate().map(move |(i, round)| (other, i, round)))
            .filter(|(_, _, round)| round.from == rank && !round.parts.is_empty())
            .map(|(other, i, _)| (other, i))
            .collect();
        let readers = distinct(reads.iter().map(|&(reader, _)| reader));

        // The readers hear of this rank's rounds, and with direct access its sources of its last.
        let sources = rounds.iter().filter(|round| direct && !round.parts.is_empty()).map(|round| round.from);
        let heard = distinct(sources.chain(readers.iter().copied()));

        let turns = turns(layout.largest(), share);
        let marks = (0..n).flat_map(|part| marks(layout.count(part), share));
        let mut program = Program::new();
        repeat(&mut program, turns, marks, |turn| {
            let len = |part: usize| len_in(turn, layout.count(part), share);
            let output =
                |r, part: usize| Place::new(r, Buffer::Output, layout.offset(part) + turn * share).stride(share);
            let slot = |r, part: usize| Place::new(r, Buffer::Slot((turn % 2) as u32), part * share);
            let begin = turn as i64 * steps;
            let mut body = Program::new();
            let own = (!layout.is_in_place()).then(|| output(rank, rank));
            let staged = (!direct && n > 1).then(|| slot(rank, rank));
            let input = Place::new(rank, Buffer::Input, turn * share).stride(share);
            body.copy(input, own.into_iter().chain(staged), len(rank));
            let idle = rounds.iter().take_while(|round| round.parts.is_empty()).count();
            body.signal(STEPS, readers.iter().copied(), begin + idle as i64 + 1, steps);
            for (i, round) in rounds.iter().enumerate().skip(idle) {
                body.wait(round.from, STEPS, begin + i as i64 + 1, steps);
                for parts in &round.parts {
                    if direct {
                        // Parts lie one after the other in both outputs.
                        let len = parts.clone().map(len).sum();
                        body.copy(output(round.from, parts.start), [output(rank, parts.start)], len);
                        continue;
                    }
                    for part in parts.clone() {
                        let staged = (i + 1 < rounds.len()).then(|| slot(rank, part));
                        let to = std::iter::once(output(rank, part)).chain(staged);
                        body.copy(slot(round.from, part), to, len(part));
                    }
                }
                if i as i64 + 2 <= steps {
                    body.signal(STEPS, heard.iter().copied(), begin + i as i64 + 2, steps);
                }
            }
            body
        });
        if direct && turns > 0 {
            // Others read this rank's output, which is its user's again when the call returns.
            reads.iter().for_each(|&(reader, round)| program.wait(reader, STEPS, round as i64 + 2, 0));
        }
        program
    }
}
