// SPDX-License-Identifier: MPL-2.0
//! Between the root and all others in few rounds: the binomial tree.
//!
//! The ranks are halved, and each half again, until each is alone (`halves`). Each range has a leader: the root in ranges
//! that hold it, else its first rank. The leader of a range hands down to the leader of the half in which it is not, or
//! gets from it, whatever is for or from that half. Four ranks, root 2, a broadcast:
//!
//! ```text
//!            halves 0 1 │ 2 3     halves 0 │ 1 and 2 │ 3
//!   rank 0   gets from 2          passes on to 1                 2
//!   rank 1        ·               gets from 0                   ╱ ╲
//!   rank 2   passes on to 0       passes on to 3               0   3
//!   rank 3        ·               gets from 2                  │
//!                                                              1
//! ```
//!
//! With a number of ranks that is a power of two this is the binomial tree; with others halves differ by one.
//!
//! - Steps: log2 n rounds, rounded up, for the first segment; the next ones follow it, one behind the other. Broadcast is
//!   in [`relay`](super::relay).
//! - Elements moved by a rank, of a length N: broadcast reads and writes N; reduce publishes N, and a leader folds N of
//!   each of its up to log2 n children; a leader in gather and scatter moves all parts of its range, so that each part is
//!   moved up to log2 n times.
//! - Fold order: `Tree`, for any number of ranks and any root.
//! - Slots (partials, in reduce): used in turn. Before one is used again, a rank waits until it has been read.
//! - Chosen: by name only, reduce since its fold order is not that of the ranks; for short messages among many ranks.

use std::ops::Range;

use super::halves::{other_half, path};
use super::relay::{Kin, Relay};
use super::segments::{len_in, marks, repeat, turns};
use super::{Access, Buffer, Collective, Layout, Place, Program, Resources, Schedule};
use crate::element::FoldOrder;

/// The algorithms' name.
const NAME: &str = "tree";

/// Elements of a segment, or of a slot that has areas for all parts, unless asked otherwise: 32 KiB of f32.
pub const SEGMENT: usize = 8 * 1024;

/// How many slots or partials a rank has.
const DEPTH: usize = 3;

/// A rank's one flag: how many segments it is done with.
const DONE: u32 = 0;

/// Reduce, gather and scatter along the tree.
#[derive(Debug, Clone, Copy)]
pub struct Tree {
    collective: Collective,
    segment: usize,
}

/// Broadcast in segments of `segment` elements (at least one).
pub fn broadcast(access: Access, segment: usize) -> Relay {
    Relay::new(NAME, access, segment, |rank, layout| {
        let Family { parent, children, .. } = Family::new(rank, layout);
        Kin { parent, children: children.into_iter().map(|child| child.leader).collect() }
    })
}

/// Reduce in segments of `segment` elements (at least one).
pub fn reduce(segment: usize) -> Tree {
    Tree { collective: Collective::Reduce, segment: segment.max(1) }
}

/// Gather through slots of `segment` elements, dealt evenly to the ranks' parts.
pub fn gather(segment: usize) -> Tree {
    Tree { collective: Collective::Gather, segment }
}

/// Scatter through slots of `segment` elements, dealt evenly to the ranks' parts.
pub fn scatter(segment: usize) -> Tree {
    Tree { collective: Collective::Scatter, segment }
}

/// A rank's place in the tree.
struct Family {
    parent: Option<usize>,
    /// The one with the largest range first.
    children: Vec<Child>,
    /// The largest range that the rank leads.
    range: Range<usize>,
}

struct Child {
    leader: usize,
    range: Range<usize>,
}

impl Family {
    fn new(rank: usize, layout: &Layout) -> Self {
        let root = layout.root();
        let leader = |range: &Range<usize>| if range.contains(&root) { root } else { range.start };
        let path = path(layout.world(), rank);
        let first = path.iter().take_while(|range| leader(range) != rank).count();
        let child = |range: &Range<usize>| {
            let range = other_half(range, rank);
            Child { leader: leader(&range), range }
        };
        Family {
            parent: first.checked_sub(1).map(|above| leader(&path[above])),
            children: path[first..path.len() - 1].iter().map(child).collect(),
            range: path[first].clone(),
        }
    }

    /// Parent and children.
    fn all(&self) -> impl Iterator<Item = usize> + '_ {
        self.parent.into_iter().chain(self.children.iter().map(|child| child.leader))
    }
}

impl Tree {
    /// How much of a part is one segment.
    fn length(&self, layout: &Layout) -> usize {
        match self.collective {
            Collective::Reduce => self.segment,
            _ => (self.segment / layout.world()).max(1),
        }
    }
}

impl Schedule for Tree {
    fn name(&self) -> &str {
        NAME
    }

    fn collective(&self) -> Collective {
        self.collective
    }

    fn access(&self) -> Access {
        Access::Staged
    }

    fn fold_order(&self) -> FoldOrder {
        if self.collective.folds() { FoldOrder::Tree } else { FoldOrder::Rank }
    }

    fn resources(&self, layout: &Layout) -> Resources {
        let (n, length) = (layout.world(), self.length(layout));
        let advance = turns(layout.largest(), length) as u64;
        let needs = Resources { depth: DEPTH, flags: 1, advance, ..Resources::default() };
        match self.collective {
            _ if n == 1 => Resources::default(),
            Collective::Reduce => Resources { partial: length, ..needs },
            _ => Resources { slot: length * n, ..needs },
        }
    }

    fn program(&self, rank: usize, layout: &Layout) -> Program {
        let family = Family::new(rank, layout);
        let length = self.length(layout);
        let marks = (0..layout.world()).flat_map(|part| marks(layout.count(part), length)).chain([DEPTH]);
        let mut program = Program::new();
        repeat(&mut program, turns(layout.largest(), length), marks, |turn| {
            let turn = Turn { rank, layout, family: &family, length, turn };
            let mut body = Program::new();
            match self.collective {
                Collective::Reduce => turn.reduce(&mut body),
                Collective::Gather => turn.gather(&mut body),
                _ => turn.scatter(&mut body),
            }
            body.signal(DONE, family.all(), turn.turn as i64 + 1, 1);
            body
        });
        program
    }
}

/// One rank's side of a turn.
struct Turn<'a> {
    rank: usize,
    layout: &'a Layout,
    family: &'a Family,
    length: usize,
    turn: usize,
}

impl Turn<'_> {
    /// This turn's segment of what begins at `begin` in one's own input or output.
    fn own(&self, buffer: Buffer, begin: usize) -> Place {
        Place::new(self.rank, buffer, begin + self.turn * self.length).stride(self.length)
    }

    /// The area of a part in a rank's slot.
    fn slot(&self, rank: usize, part: usize) -> Place {
        Place::new(rank, Buffer::Slot((self.turn % DEPTH) as u32), part * self.length)
    }

    fn len(&self, part: usize) -> usize {
        len_in(self.turn, self.layout.count(part), self.length)
    }

    /// Waits until these have done this turn.
    fn wait_for_it(&self, body: &mut Program, ranks: impl IntoIterator<Item = usize>) {
        ranks.into_iter().for_each(|rank| body.wait(rank, DONE, self.turn as i64 + 1, 1));
    }

    /// Waits until these have read what is to be overwritten.
    fn wait_for_room(&self, body: &mut Program, ranks: impl IntoIterator<Item = usize>) {
        if let Some(last) = self.turn.checked_sub(DEPTH) {
            ranks.into_iter().for_each(|rank| body.wait(rank, DONE, last as i64 + 1, 1));
        }
    }

    fn reduce(&self, body: &mut Program) {
        let Turn { rank, family, turn, .. } = *self;
        let len = self.len(rank);
        let partial = |r| Place::new(r, Buffer::Partial((turn % DEPTH) as u32), 0);
        let result = if family.parent.is_none() { self.own(Buffer::Output, 0) } else { partial(rank) };
        self.wait_for_room(body, family.parent);
        let mut mine = self.own(Buffer::Input, 0);
        if family.children.is_empty() {
            body.fold([mine], [result], len);
        }
        // The smallest range first: from the rank alone to all that it leads.
        for (above, child) in family.children.iter().enumerate().rev() {
            self.wait_for_it(body, [child.leader]);
            let theirs = partial(child.leader);
            let from = if rank < child.range.start { [mine, theirs] } else { [theirs, mine] };
            let to = if above == 0 { result } else { partial(rank) };
            body.fold(from, [to], len);
            mine = to;
        }
    }

    fn gather(&self, body: &mut Program) {
        let Turn { rank, layout, family, .. } = *self;
        let is_root = family.parent.is_none();
        let to = |part| match is_root {
            true => self.own(Buffer::Output, layout.offset(part)),
            false => self.slot(rank, part),
        };
        self.wait_for_room(body, family.parent);
        if !(is_root && layout.is_in_place()) {
            body.copy(self.own(Buffer::Input, 0), [to(rank)], self.len(rank));
        }
        for child in family.children.iter().rev() {
            self.wait_for_it(body, [child.leader]);
            for part in child.range.clone() {
                body.copy(self.slot(child.leader, part), [to(part)], self.len(part));
            }
        }
    }

    fn scatter(&self, body: &mut Program) {
        let Turn { rank, layout, family, .. } = *self;
        let from = |part| match family.parent {
            None => self.own(Buffer::Input, layout.offset(part)),
            Some(parent) => self.slot(parent, part),
        };
        self.wait_for_it(body, family.parent);
        self.wait_for_room(body, family.children.iter().map(|child| child.leader));
        for part in family.range.clone().filter(|&part| part != rank) {
            body.copy(from(part), [self.slot(rank, part)], self.len(part));
        }
        if !(family.parent.is_none() && layout.is_in_place()) {
            body.copy(from(rank), [self.own(Buffer::Output, 0)], self.len(rank));
        }
    }
}
