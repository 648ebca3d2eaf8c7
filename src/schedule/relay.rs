// SPDX-License-Identifier: MPL-2.0
//! Broadcasts in which ranks pass on what they get, segment by segment, while they get the next one.
//!
//! Each rank but the root gets from one other, its parent, and passes on to its children: from its output, where the
//! children can address that, else from slots. [`tree`](super::tree) and [`chain`](super::chain) say who is whose child.
//!
//! A slot is used again `DEPTH` segments later: before that a rank waits until its children have taken the segment for
//! which it was used. Outputs stay, and only before the call ends a rank waits until its children have taken everything.

use super::segments::{len_in, marks, repeat, turns};
use super::{Access, Buffer, Collective, Layout, Place, Program, Resources, Schedule};

/// Elements of a segment, unless asked otherwise: 32 KiB of f32.
pub const SEGMENT: usize = 8 * 1024;

/// How many slots a rank has.
const DEPTH: usize = 3;

/// A rank's one flag: how many segments it has got.
const GOT: u32 = 0;

/// From whom a rank gets, and to whom it passes on.
pub(super) struct Kin {
    pub(super) parent: Option<usize>,
    pub(super) children: Vec<usize>,
}

/// A broadcast along a tree.
#[derive(Debug, Clone, Copy)]
pub struct Relay {
    name: &'static str,
    access: Access,
    segment: usize,
    kin: fn(usize, &Layout) -> Kin,
}

impl Relay {
    pub(super) fn new(name: &'static str, access: Access, segment: usize, kin: fn(usize, &Layout) -> Kin) -> Self {
        Relay { name, access, segment: segment.max(1), kin }
    }
}

impl Schedule for Relay {
    fn name(&self) -> &str {
        self.name
    }

    fn collective(&self) -> Collective {
        Collective::Broadcast
    }

    fn access(&self) -> Access {
        self.access
    }

    fn resources(&self, layout: &Layout) -> Resources {
        let advance = turns(layout.count(0), self.segment) as u64;
        let needs = Resources { flags: 1, advance, ..Resources::default() };
        match self.access {
            Access::Read | Access::Staged if layout.world() > 1 => {
                Resources { slot: self.segment, depth: DEPTH, ..needs }
            }
            _ => needs,
        }
    }

    fn program(&self, rank: usize, layout: &Layout) -> Program {
        let (root, len, direct) = (layout.root(), layout.count(rank), self.access == Access::Direct);
        let Kin { parent, children } = (self.kin)(rank, layout);
        let turns = turns(len, self.segment);
        let mut program = Program::new();
        repeat(&mut program, turns, marks(len, self.segment).into_iter().chain([DEPTH]), |turn| {
            let place = |r, buffer| Place::new(r, buffer, turn * self.segment).stride(self.segment);
            let slot = |r| Place::new(r, Buffer::Slot((turn % DEPTH) as u32), 0);
            let mut body = Program::new();
            let from = match parent {
                None => place(rank, Buffer::Input),
                Some(parent) if !direct => slot(parent),
                // The root's input is there from the beginning.
                Some(parent) if parent == root => place(root, Buffer::Input),
                Some(parent) => place(parent, Buffer::Output),
            };
            if let Some(parent) = parent.filter(|&parent| !direct || parent != root) {
                body.wait(parent, GOT, turn as i64 + 1, 1);
            }
            for &child in children.iter().filter(|_| !direct && turn >= DEPTH) {
                body.wait(child, GOT, (turn - DEPTH) as i64 + 1, 1);
            }
            let output = !(rank == root && layout.is_in_place());
            let output = output.then(|| place(rank, Buffer::Output));
            let passed_on = (!direct && !children.is_empty()).then(|| slot(rank));
            body.copy(from, output.into_iter().chain(passed_on), len_in(turn, len, self.segment));
            if !direct || rank != root && !children.is_empty() {
                body.signal(GOT, children.iter().copied().chain(parent), turn as i64 + 1, 1);
            }
            body
        });
        if direct && turns > 0 {
            if children.is_empty() {
                program.signal(GOT, parent, turns as i64, 0);
            }
            children.iter().for_each(|&child| program.wait(child, GOT, turns as i64, 0));
        }
        program
    }
}
