// SPDX-License-Identifier: MPL-2.0
//! One number for all that a verified schedule is, by which ranks notice that theirs differ.
//!
//! 64-bit FNV-1a over an encoding that is the same on every machine: each number as eight bytes, little-endian, each
//! list preceded by its length, each choice by its number.

use super::declared::Declared;
use crate::element::{Bracketing, FoldOrder};
use crate::schedule::{Access, Buffer, Entry, Layout, Place, Resources, Step};

struct Fingerprint(u64);

pub(super) fn fingerprint(declared: &Declared) -> u64 {
    let mut print = Fingerprint(0xcbf2_9ce4_8422_2325);
    print.bytes(declared.name.as_bytes());
    print.number(declared.collective as u64);
    print.layout(&declared.layout, declared);
    print.number(match declared.access {
        Access::Direct => 0,
        Access::Staged => 1,
        Access::Read => 2,
    });
    print.number(match declared.entry {
        Entry::Barrier => 0,
        Entry::Carries => 1,
    });
    print.order(&declared.order);
    print.resources(declared.resources);
    for program in &declared.programs {
        print.steps(&program.steps);
    }
    print.0
}

impl Fingerprint {
    fn byte(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        bytes.iter().for_each(|&byte| self.byte(byte));
    }

    fn number(&mut self, number: u64) {
        number.to_le_bytes().into_iter().for_each(|byte| self.byte(byte));
    }

    fn length(&mut self, length: usize) {
        self.number(length as u64);
    }

    fn layout(&mut self, layout: &Layout, declared: &Declared) {
        self.length(layout.world());
        for rank in 0..layout.world() {
            self.length(layout.count(rank));
        }
        if layout.is_matrix() {
            let pairs = (0..layout.world()).flat_map(|from| (0..layout.world()).map(move |to| (from, to)));
            pairs.for_each(|(from, to)| self.length(layout.pair(from, to)));
        }
        self.length(if declared.collective.has_root() { layout.root() } else { 0 });
        self.number(u64::from(layout.is_in_place()));
    }

    fn order(&mut self, order: &FoldOrder) {
        match order {
            FoldOrder::Rank => self.number(0),
            FoldOrder::Ring => self.number(1),
            FoldOrder::Tree => self.number(2),
            FoldOrder::Given(entries) => {
                self.number(3);
                self.length(entries.len());
                entries.iter().for_each(|entry| self.bracketing(entry));
            }
        }
    }

    fn bracketing(&mut self, bracketing: &Bracketing) {
        match bracketing {
            Bracketing::Leaf(rank) => {
                self.number(0);
                self.length(*rank);
            }
            Bracketing::Fold(children) => {
                self.number(1);
                self.length(children.len());
                children.iter().for_each(|child| self.bracketing(child));
            }
        }
    }

    fn resources(&mut self, resources: Resources) {
        let Resources { scratch, slot, partial, depth, flags, advance } = resources;
        [scratch, slot, partial, depth].into_iter().for_each(|length| self.length(length));
        self.number(u64::from(flags));
        self.number(advance);
    }

    fn steps(&mut self, steps: &[Step]) {
        self.length(steps.len());
        for step in steps {
            match step {
                Step::Copy { from, to, len } => {
                    self.number(0);
                    self.places(std::slice::from_ref(from));
                    self.places(to);
                    self.length(*len);
                }
                Step::Fold { from, to, len } => {
                    self.number(1);
                    self.places(from);
                    self.places(to);
                    self.length(*len);
                }
                Step::Signal { flag, to, value, stride } => {
                    self.number(2);
                    self.number(u64::from(*flag));
                    self.length(to.len());
                    to.iter().for_each(|&rank| self.length(rank));
                    self.number(*value as u64);
                    self.number(*stride as u64);
                }
                Step::Wait { rank, flag, value, stride } => {
                    self.number(3);
                    self.length(*rank);
                    self.number(u64::from(*flag));
                    self.number(*value as u64);
                    self.number(*stride as u64);
                }
                Step::Repeat { segments, body } => {
                    self.number(4);
                    self.length(*segments);
                    self.steps(body);
                }
            }
        }
    }

    fn places(&mut self, places: &[Place]) {
        self.length(places.len());
        for place in places {
            self.length(place.rank);
            let (buffer, index) = match place.buffer {
                Buffer::Input => (0, 0),
                Buffer::Output => (1, 0),
                Buffer::Scratch => (2, 0),
                Buffer::Slot(index) => (3, index),
                Buffer::Partial(index) => (4, index),
            };
            self.number(buffer);
            self.number(u64::from(index));
            self.length(place.offset);
            self.length(place.stride);
        }
    }
}
