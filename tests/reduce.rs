// SPDX-License-Identifier: MPL-2.0
//! The CPU fold against an oracle, at tolerance 0: every type and operation, by every instruction set of this machine.
//!
//! The oracle folds one element at a time, in plain arithmetic and with the software conversions of `half`. It knows
//! nothing of vectors, blocks or alignment. Vector code is what an optimised build makes of the fold: run this with
//! `--release` too.

mod types;

use annulus::reduce::{self, Destination, Fold, Instructions, Kind, Source, Stores};
use annulus::{DataType, Error, ReduceOp, bf16, f16};
use proptest::prelude::*;
use types::operations;

// --- the oracle ---

/// A value of any accumulator type; integers exactly, wrapped to their type after each operation.
#[derive(Debug, Clone, Copy)]
enum Number {
    F64(f64),
    F32(f32),
    Int(i128),
}

fn is_signed(t: DataType) -> bool {
    matches!(t, DataType::I8 | DataType::I16 | DataType::I32 | DataType::I64)
}

/// What remains of an integer in a type of this size and sign.
fn wrapped(t: DataType, value: i128) -> i128 {
    let unused = 128 - 8 * t.size() as u32;
    if is_signed(t) { value << unused >> unused } else { ((value as u128) << unused >> unused) as i128 }
}

/// The value in these bytes, widened to its accumulator.
fn number(t: DataType, bytes: &[u8]) -> Number {
    let mut low = [0; 8];
    low[..t.size()].copy_from_slice(bytes);
    let bits = u64::from_le_bytes(low);
    match t {
        DataType::F64 => Number::F64(f64::from_bits(bits)),
        DataType::F32 => Number::F32(f32::from_bits(bits as u32)),
        DataType::F16 => Number::F32(f16::from_bits(bits as u16).to_f32_const()),
        DataType::Bf16 => Number::F32(bf16::from_bits(bits as u16).to_f32_const()),
        _ => Number::Int(wrapped(t, i128::from(bits))),
    }
}

/// The bytes of a number, rounded to a type; a NaN canonical.
fn bytes(t: DataType, number: Number) -> Vec<u8> {
    let bits = match (t, number) {
        (DataType::F64, Number::F64(x)) => {
            if x.is_nan() {
                0x7ff8_0000_0000_0000
            } else {
                x.to_bits()
            }
        }
        (DataType::F32, Number::F32(x)) => u64::from(if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() }),
        (DataType::F16, Number::F32(x)) => {
            u64::from(if x.is_nan() { 0x7e00 } else { f16::from_f32_const(x).to_bits() })
        }
        (DataType::Bf16, Number::F32(x)) => {
            u64::from(if x.is_nan() { 0x7fc0 } else { bf16::from_f32_const(x).to_bits() })
        }
        (_, Number::Int(x)) => wrapped(t, x) as u64,
        other => panic!("{other:?} is no pair"),
    };
    bits.to_le_bytes()[..t.size()].to_vec()
}

macro_rules! float_rules {
    ($op:expr, $a:expr, $b:expr) => {
        match $op {
            ReduceOp::Sum | ReduceOp::Avg | ReduceOp::PreMulSum(_) => $a + $b,
            ReduceOp::Prod => $a * $b,
            _ if $a.is_nan() || $b.is_nan() => $a + $b,
            ReduceOp::Min if $a == $b => {
                if $a.is_sign_negative() {
                    $a
                } else {
                    $b
                }
            }
            ReduceOp::Max if $a == $b => {
                if $a.is_sign_negative() {
                    $b
                } else {
                    $a
                }
            }
            ReduceOp::Min => {
                if $a < $b {
                    $a
                } else {
                    $b
                }
            }
            ReduceOp::Max => {
                if $a < $b {
                    $b
                } else {
                    $a
                }
            }
            other => panic!("{other} of floats"),
        }
    };
}

fn combined(accumulator: DataType, op: ReduceOp, left: Number, right: Number) -> Number {
    match (left, right) {
        (Number::F64(a), Number::F64(b)) => Number::F64(float_rules!(op, a, b)),
        (Number::F32(a), Number::F32(b)) => Number::F32(float_rules!(op, a, b)),
        (Number::Int(a), Number::Int(b)) => Number::Int(wrapped(
            accumulator,
            match op {
                ReduceOp::Sum | ReduceOp::Avg | ReduceOp::PreMulSum(_) => a + b,
                ReduceOp::Prod => a.wrapping_mul(b),
                ReduceOp::Min => a.min(b),
                ReduceOp::Max => a.max(b),
                ReduceOp::BitAnd => a & b,
                ReduceOp::BitOr => a | b,
                ReduceOp::BitXor => a ^ b,
                new => panic!("nothing is known of {new}"),
            },
        )),
        other => panic!("{other:?} is no pair"),
    }
}

/// A contribution times the factor, if the operation has one.
fn multiplied(accumulator: DataType, op: ReduceOp, contribution: Number) -> Number {
    let ReduceOp::PreMulSum(factor) = op else { return contribution };
    match (contribution, factor.as_f64(), factor.as_i64()) {
        (Number::F64(a), Some(factor), None) => Number::F64(a * factor),
        (Number::F32(a), Some(factor), None) => Number::F32(a * factor as f32),
        (Number::Int(a), None, Some(factor)) => Number::Int(wrapped(accumulator, a * i128::from(factor))),
        other => panic!("{other:?} do not go together"),
    }
}

/// The folded element and the folded accumulator, as bytes, of one value from each source.
fn oracle(t: DataType, op: ReduceOp, ranks: usize, values: &[(&[u8], Kind)]) -> (Vec<u8>, Vec<u8>) {
    let accumulator = t.accumulator(op);
    let read = |&(bytes, kind): &(&[u8], Kind)| match kind {
        Kind::Element => multiplied(accumulator, op, number(t, bytes)),
        Kind::Accumulator => number(accumulator, bytes),
    };
    let folded = values[1..].iter().fold(read(&values[0]), |left, right| combined(accumulator, op, left, read(right)));
    let finished = match folded {
        Number::F64(x) if op == ReduceOp::Avg => Number::F64(x / ranks as f64),
        Number::F32(x) if op == ReduceOp::Avg => Number::F32(x / ranks as f32),
        Number::Int(x) if op == ReduceOp::Avg => Number::Int(x / ranks as i128),
        other => other,
    };
    (bytes(t, finished), bytes(accumulator, folded))
}

// --- values ---

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators").
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// Bits at which rules change: zeros, the subnormals' and normals' ends, one, infinities, NaNs of both signs, quiet and
/// signalling, with payloads; for integers their ends.
fn special(t: DataType) -> Vec<u64> {
    let (exponent, mantissa) = match t {
        DataType::F64 => (11, 52),
        DataType::F32 => (8, 23),
        DataType::F16 => (5, 10),
        DataType::Bf16 => (8, 7),
        _ => {
            let top = 1u64 << (8 * t.size() - 1);
            return vec![0, 1, 2, 3, top - 1, top, top + 1, top - 2, u64::MAX, u64::MAX - 1];
        }
    };
    let infinity: u64 = ((1 << exponent) - 1) << mantissa;
    let one = ((1u64 << (exponent - 1)) - 1) << mantissa;
    let quiet = 1u64 << (mantissa - 1);
    let smallest_normal = 1u64 << mantissa;
    let positive = [
        0,
        1,
        2,
        quiet,
        smallest_normal - 1,
        smallest_normal,
        smallest_normal + 1,
        one,
        one + 1,
        one - 1,
        infinity - 1,
        infinity - 2,
        infinity,
        infinity + 1,
        infinity + quiet,
        infinity + quiet + 5,
        infinity + quiet - 1,
    ];
    positive.into_iter().flat_map(|bits| [bits, bits | 1 << (exponent + mantissa)]).collect()
}

/// `len` values of a type. At `wild` positions (the same in every source of one fold) they are special or random bits,
/// elsewhere ordinary numbers with full mantissas, so that a fold of many is not simply NaN.
fn values(t: DataType, len: usize, random: &mut Random) -> Vec<u8> {
    let special = special(t);
    let mut data = Vec::with_capacity(len * t.size());
    for i in 0..len {
        let ordinary = random.next() as i64 as f64 / (1u64 << 62) as f64;
        let bits = match (i % 3, random.below(4)) {
            (0, 0 | 1) => special[random.below(special.len())],
            (0, 2) => random.next(),
            _ => match t {
                DataType::F64 => ordinary.to_bits(),
                DataType::F32 => u64::from((ordinary as f32).to_bits()),
                DataType::F16 => u64::from(f16::from_f64_const(ordinary).to_bits()),
                DataType::Bf16 => u64::from(bf16::from_f64_const(ordinary).to_bits()),
                _ => random.next(),
            },
        };
        data.extend_from_slice(&bits.to_le_bytes()[..t.size()]);
    }
    data
}

// --- one fold, held against the oracle ---

#[derive(Debug, Clone)]
struct Case {
    t: DataType,
    op: ReduceOp,
    ranks: usize,
    len: usize,
    /// Kind and misalignment in bytes from a multiple of 64.
    sources: Vec<(Kind, usize)>,
    destinations: Vec<(Kind, usize)>,
    stores: Stores,
    seed: u64,
}

/// Room for bytes at a misalignment, with a margin on both sides that must stay as it is.
struct Room {
    memory: Vec<u8>,
    begin: usize,
    len: usize,
}

const MARGIN: u8 = 0xa5;

impl Room {
    fn new(len: usize, misalignment: usize) -> Self {
        let memory = vec![MARGIN; len + 256];
        let begin = memory.as_ptr().align_offset(64) + 64 + misalignment;
        Room { memory, begin, len }
    }

    fn holding(data: &[u8], misalignment: usize) -> Self {
        let mut room = Room::new(data.len(), misalignment);
        room.memory[room.begin..][..data.len()].copy_from_slice(data);
        room
    }

    fn data(&self) -> &[u8] {
        assert!(self.memory[..self.begin].iter().all(|&b| b == MARGIN), "written before the destination");
        assert!(self.memory[self.begin + self.len..].iter().all(|&b| b == MARGIN), "written behind the destination");
        &self.memory[self.begin..][..self.len]
    }

    fn source(&self, kind: Kind) -> Source {
        Source { data: self.memory[self.begin..].as_ptr(), kind }
    }

    fn destination(&mut self, kind: Kind) -> Destination {
        Destination { data: self.memory[self.begin..].as_mut_ptr(), kind }
    }
}

impl Case {
    /// Sources and destinations of elements, at no particular alignment.
    fn plain(t: DataType, op: ReduceOp, len: usize, sources: usize, destinations: usize) -> Self {
        Case {
            t,
            op,
            ranks: sources,
            len,
            sources: vec![(Kind::Element, 16); sources],
            destinations: vec![(Kind::Element, 16); destinations],
            stores: Stores::Cached,
            seed: (len * 100 + sources * 10 + destinations) as u64,
        }
    }

    fn size(&self, kind: Kind) -> usize {
        self.type_of(kind).size()
    }

    fn type_of(&self, kind: Kind) -> DataType {
        if kind == Kind::Element { self.t } else { self.t.accumulator(self.op) }
    }

    fn inputs(&self) -> Vec<Vec<u8>> {
        let mut random = Random(self.seed);
        self.sources.iter().map(|&(kind, _)| values(self.type_of(kind), self.len, &mut random)).collect()
    }

    /// The elements and the accumulators that the oracle folds.
    fn expected(&self, inputs: &[Vec<u8>]) -> (Vec<u8>, Vec<u8>) {
        let (mut elements, mut accumulators) = (Vec::new(), Vec::new());
        for i in 0..self.len {
            let column: Vec<(&[u8], Kind)> = inputs
                .iter()
                .zip(&self.sources)
                .map(|(data, &(kind, _))| (&data[i * self.size(kind)..][..self.size(kind)], kind))
                .collect();
            let (element, accumulator) = oracle(self.t, self.op, self.ranks, &column);
            elements.extend(element);
            accumulators.extend(accumulator);
        }
        (elements, accumulators)
    }

    /// Folds by every instruction set and compares every byte.
    fn check(&self) {
        let inputs = self.inputs();
        let (elements, accumulators) = self.expected(&inputs);
        for set in Instructions::ALL.into_iter().filter(|set| set.is_available()) {
            let from: Vec<Room> =
                inputs.iter().zip(&self.sources).map(|(data, &(_, at))| Room::holding(data, at)).collect();
            let mut to: Vec<Room> =
                self.destinations.iter().map(|&(kind, at)| Room::new(self.len * self.size(kind), at)).collect();
            let sources: Vec<Source> =
                from.iter().zip(&self.sources).map(|(room, &(kind, _))| room.source(kind)).collect();
            let destinations: Vec<Destination> =
                to.iter_mut().zip(&self.destinations).map(|(room, &(kind, _))| room.destination(kind)).collect();
            let fold = Fold::with(set, self.t, self.op, self.ranks).unwrap();
            // SAFETY: each room holds `len` values of its kind, and rooms are separate allocations.
            unsafe { fold.run(&sources, &destinations, self.len, self.stores) };
            for (d, (room, &(kind, _))) in to.iter().zip(&self.destinations).enumerate() {
                let expected = if kind == Kind::Element { &elements } else { &accumulators };
                self.compare(room.data(), expected, self.size(kind), &format!("{set}, destination {d}"));
            }
        }
    }

    fn compare(&self, got: &[u8], expected: &[u8], size: usize, what: &str) {
        if got != expected {
            let i = got.chunks(size).zip(expected.chunks(size)).position(|(a, b)| a != b);
            let i = i.expect("the lengths are equal");
            let (got, expected) = (&got[i * size..][..size], &expected[i * size..][..size]);
            panic!("{what}, element {i}: {got:02x?}, not {expected:02x?}; {self:?}");
        }
    }
}

fn products() -> impl Iterator<Item = (DataType, ReduceOp)> {
    DataType::ALL.into_iter().flat_map(|t| operations(t).map(move |op| (t, op)))
}

// --- the tests ---

#[test]
fn every_type_and_operation_at_every_short_length() {
    for (t, op) in products() {
        for len in (0..=70).chain([127, 128, 129, 255, 256, 257]) {
            Case::plain(t, op, len, 1 + len % 3, 1 + len % 2).check();
        }
    }
}

#[test]
fn every_type_and_operation_at_some_length() {
    for (t, op) in products() {
        Case::plain(t, op, 4999, 3, 2).check();
    }
}

#[test]
fn one_to_nine_sources_and_one_to_four_destinations() {
    for (t, op) in products() {
        for sources in 1..=9 {
            Case::plain(t, op, 83, sources, 1 + sources % 4).check();
        }
    }
}

#[test]
fn accumulators_are_read_and_written_unrounded() {
    use Kind::{Accumulator, Element};
    for (t, op) in products() {
        for (i, (sources, destinations)) in [
            (vec![Accumulator], vec![Element]),
            (vec![Element], vec![Accumulator]),
            (vec![Accumulator, Element], vec![Accumulator]),
            (vec![Accumulator, Accumulator], vec![Element, Element]),
            (vec![Element, Accumulator, Element], vec![Accumulator, Element, Accumulator]),
        ]
        .into_iter()
        .enumerate()
        {
            let mut case = Case::plain(t, op, 345, sources.len(), destinations.len());
            case.sources = sources.into_iter().map(|kind| (kind, 0)).collect();
            case.destinations = destinations.into_iter().map(|kind| (kind, 0)).collect();
            case.ranks = 3 + i;
            case.check();
        }
    }
}

#[test]
fn every_pointer_may_be_misaligned_in_its_own_way() {
    for (t, op) in products() {
        for unit in [1, t.size()] {
            for stores in [Stores::Cached, Stores::Streaming] {
                let mut case = Case::plain(t, op, 301, 4, 3);
                case.sources = [0, 1, 3, 5].map(|units| (Kind::Element, units * unit)).to_vec();
                case.destinations = [3, 0, 1].map(|units| (Kind::Element, units * unit)).to_vec();
                case.stores = stores;
                case.check();
            }
        }
    }
}

#[test]
fn streaming_stores_give_the_same_bits() {
    for (t, op) in products() {
        for at in [0, 16, 24, 63] {
            let mut case = Case::plain(t, op, 1100, 2, 2);
            case.stores = Stores::Streaming;
            case.destinations = vec![(Kind::Element, at), (Kind::Accumulator, at)];
            case.check();
        }
    }
}

#[test]
fn a_destination_may_be_a_source() {
    for (t, op) in products() {
        for kind in [Kind::Element, Kind::Accumulator] {
            for stores in [Stores::Cached, Stores::Streaming] {
                let mut case = Case::plain(t, op, 331, 3, 1);
                case.sources = vec![(kind, 8); 3];
                let inputs = case.inputs();
                let (elements, accumulators) = case.expected(&inputs);
                let expected = if kind == Kind::Element { elements } else { accumulators };
                for set in Instructions::ALL.into_iter().filter(|set| set.is_available()) {
                    let mut rooms: Vec<Room> = inputs.iter().map(|data| Room::holding(data, 8)).collect();
                    let destinations: Vec<Destination> = rooms.iter_mut().map(|room| room.destination(kind)).collect();
                    let sources: Vec<Source> =
                        destinations.iter().map(|to| Source { data: to.data, kind: to.kind }).collect();
                    let fold = Fold::with(set, t, op, 3).unwrap();
                    // SAFETY: each room holds `len` values of its kind; the destinations are the last two sources.
                    unsafe { fold.run(&sources, &destinations[1..], case.len, stores) };
                    assert_eq!(rooms[0].data(), inputs[0], "a source that is no destination was written");
                    for room in &rooms[1..] {
                        case.compare(room.data(), &expected, case.size(kind), set.name());
                    }
                }
            }
        }
    }
}

/// Every f16 and every bf16, widened and rounded back, by every instruction set.
#[test]
fn every_half_is_widened_exactly() {
    for t in [DataType::F16, DataType::Bf16] {
        let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        for set in Instructions::ALL.into_iter().filter(|set| set.is_available()) {
            let mut halves = Room::new(all.len(), 0);
            let mut floats = Room::new(2 * all.len(), 0);
            let to = [halves.destination(Kind::Element), floats.destination(Kind::Accumulator)];
            let from = [Source { data: all.as_ptr(), kind: Kind::Element }];
            // SAFETY: all three hold 65,536 values of their kinds.
            unsafe { Fold::with(set, t, ReduceOp::Sum, 1).unwrap().run(&from, &to, 1 << 16, Stores::Cached) };
            for (i, element) in all.chunks(2).enumerate() {
                let (element, accumulator) = oracle(t, ReduceOp::Sum, 1, &[(element, Kind::Element)]);
                assert_eq!(halves.data()[2 * i..][..2], element, "{t} {i:04x}, {set}");
                assert_eq!(floats.data()[4 * i..][..4], accumulator, "{t} {i:04x}, {set}");
            }
        }
    }
}

/// Rounding, at every finite half and every tie between two, their neighbours, and floats from the whole range.
#[test]
fn floats_are_rounded_to_nearest_even() {
    for t in [DataType::F16, DataType::Bf16] {
        let mut floats: Vec<u32> = (0..u32::MAX - 40_503).step_by(40_503).collect();
        for half in 0..=u16::MAX {
            let Number::F32(float) = number(t, &half.to_le_bytes()) else { panic!("{t} accumulates in f32") };
            // Half a unit of f16 is 2^12 units of f32 where both are normal, and of bf16 2^15 everywhere.
            let tie = float.to_bits().wrapping_add(if t == DataType::F16 { 1 << 12 } else { 1 << 15 });
            floats.extend([float.to_bits(), tie - 1, tie, tie + 1]);
            if t == DataType::F16 && float.abs() < 1e-4 {
                // Among subnormals of f16 half a unit is 2^-25.
                let tie = (float.abs() + 2f32.powi(-25)).to_bits();
                floats.extend([tie - 1, tie, tie + 1]);
            }
        }
        let data: Vec<u8> = floats.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        for set in Instructions::ALL.into_iter().filter(|set| set.is_available()) {
            let mut halves = Room::new(2 * floats.len(), 0);
            let to = [halves.destination(Kind::Element)];
            let from = [Source { data: data.as_ptr(), kind: Kind::Accumulator }];
            // SAFETY: both hold as many values of their kinds.
            unsafe { Fold::with(set, t, ReduceOp::Sum, 1).unwrap().run(&from, &to, floats.len(), Stores::Cached) };
            for (bits, half) in floats.iter().zip(halves.data().chunks(2)) {
                let expected = bytes(t, Number::F32(f32::from_bits(*bits)));
                assert_eq!(half, expected, "{bits:08x} as {t}, {set}");
            }
        }
    }
}

/// Flush-to-zero, denormals-are-zero and rounding down, set by the caller, change no bit and are found again.
#[cfg(target_arch = "x86_64")]
#[test]
fn the_callers_floating_point_environment_is_set_aside() {
    use std::arch::asm;
    let read = || {
        let mut control = 0u32;
        // SAFETY: stores four bytes to `control`.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut control) };
        control
    };
    // SAFETY: only ever given a value that was read, with defined bits set.
    let write = |control: u32| unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const control) };
    for t in [DataType::F64, DataType::F32, DataType::F16, DataType::Bf16] {
        for op in operations(t) {
            let case = Case::plain(t, op, 200, 3, 1);
            let inputs = case.inputs();
            let (expected, _) = case.expected(&inputs);
            for set in Instructions::ALL.into_iter().filter(|set| set.is_available()) {
                let mut room = Room::new(expected.len(), 0);
                let to = [room.destination(Kind::Element)];
                let from: Vec<Source> =
                    inputs.iter().map(|data| Source { data: data.as_ptr(), kind: Kind::Element }).collect();
                let fold = Fold::with(set, t, op, 3).unwrap();
                let before = read();
                let strange = before | 1 << 15 | 1 << 6 | 1 << 13;
                write(strange);
                // SAFETY: all of them hold 200 elements.
                unsafe { fold.run(&from, &to, 200, Stores::Cached) };
                let after = read();
                write(before);
                assert_eq!(after, strange, "{t} {op}, {set}: the control register was not restored");
                case.compare(room.data(), &expected, t.size(), set.name());
            }
        }
    }
}

#[test]
fn copies_keep_every_bit() {
    let mut random = Random(7);
    for len in [0, 1, 2, 7, 63, 64, 65, 255, 256, 257, 3000] {
        for destinations in [1, 2, 3, 16, 17] {
            for stores in [Stores::Cached, Stores::Streaming] {
                let from = Room::holding(&values(DataType::F32, len, &mut random), 3);
                let mut to: Vec<Room> = (0..destinations).map(|d| Room::new(from.len, d % 3 * 21)).collect();
                let pointers: Vec<*mut u8> = to.iter_mut().map(|room| room.destination(Kind::Element).data).collect();
                // SAFETY: the rooms are separate allocations of one length.
                unsafe { reduce::copy(from.source(Kind::Element).data, &pointers, from.len, stores) };
                assert!(to.iter().all(|room| room.data() == from.data()), "{len} values to {destinations}");
            }
        }
    }
}

#[test]
fn slices_fold_in_the_order_given() {
    let (a, b, c) = ([1e8f32, 1.0], [1.0f32, 2.0], [-1e8f32, 4.0]);
    let mut sum = [0.0; 2];
    reduce::fold(ReduceOp::Sum, &[&a, &b, &c], &mut sum).unwrap();
    assert_eq!(sum, [0.0, 7.0], "1e8 + 1 is 1e8 in f32");
    reduce::fold(ReduceOp::Sum, &[&a, &c, &b], &mut sum).unwrap();
    assert_eq!(sum, [1.0, 7.0]);
    let (mut one, mut two) = ([0.0; 2], [0.0; 2]);
    reduce::fold_into(ReduceOp::Max, &[&a, &b, &c], &mut [&mut one, &mut two]).unwrap();
    assert_eq!((one, two), ([1e8, 4.0], [1e8, 4.0]));
}

/// What a fold that starts from zero, or an average that multiplies by 1/n, would get wrong.
#[test]
fn planted_mistakes_would_show() {
    let mut got = [f32::NAN];
    reduce::fold(ReduceOp::Sum, &[&[-0.0f32], &[-0.0]], &mut got).unwrap();
    assert_eq!(got[0].to_bits(), (-0.0f32).to_bits(), "a fold starts from its first contribution");
    assert_ne!((0.0f32 + -0.0 + -0.0).to_bits(), (-0.0f32).to_bits());

    reduce::fold(ReduceOp::Avg, &[&[2.0f32], &[2.0], &[1.0]], &mut got).unwrap();
    assert_eq!(got[0], 5.0 / 3.0);
    assert_ne!(5.0 * (1.0f32 / 3.0), 5.0 / 3.0, "this quotient tells division from multiplication");

    // 1 + 2^-12 squared is 1 + 2^-11 + 2^-24, which a fused multiplication and addition would not round to 1 + 2^-11.
    let (near_one, exact) = (1.0 + 2f32.powi(-12), 1.0 + 2f32.powi(-11));
    let premul = ReduceOp::PreMulSum(f64::from(near_one).into());
    reduce::fold(premul, &[&[-exact / near_one], &[near_one]], &mut got).unwrap();
    let first = -exact / near_one * near_one;
    assert_eq!(got[0], first + exact, "the product is rounded before it is added");
    assert_ne!(near_one.mul_add(near_one, first), first + exact);

    let mut got = [0i32];
    reduce::fold(ReduceOp::Avg, &[&[i32::MAX], &[i32::MAX], &[-1]], &mut got).unwrap();
    assert_eq!(got[0], ((2 * i64::from(i32::MAX) - 1) / 3) as i32, "averages accumulate in 64 bits");
    reduce::fold(ReduceOp::Avg, &[&[-3], &[-4]], &mut got).unwrap();
    assert_eq!(got[0], -3, "averages truncate towards zero");
}

#[test]
fn wrong_arguments_are_sentences() {
    let sentence = |result: annulus::Result<()>| match result {
        Err(Error::InvalidArgument(sentence)) => sentence.to_string(),
        other => panic!("not InvalidArgument: {other:?}"),
    };
    let none: [&[f32]; 0] = [];
    assert_eq!(
        sentence(reduce::fold(ReduceOp::Sum, &none, &mut [])),
        "fold: there are no sources; a fold needs at least one"
    );
    assert_eq!(
        sentence(reduce::fold_into(ReduceOp::Sum, &[&[1.0f32]], &mut [])),
        "fold: there are no destinations; a fold needs at least one"
    );
    assert_eq!(
        sentence(reduce::fold(ReduceOp::Sum, &[&[1.0f32, 2.0], &[1.0]], &mut [0.0, 0.0])),
        "fold: source 1 has 1 elements and source 0 has 2; all must be equal"
    );
    assert_eq!(
        sentence(reduce::fold(ReduceOp::Sum, &[&[1.0f32, 2.0]], &mut [0.0])),
        "fold: destination 0 has 1 elements and the sources have 2; all must be equal"
    );
    reduce::fold::<f32>(ReduceOp::Avg, &[&[], &[]], &mut []).unwrap();
    assert_eq!(
        sentence(reduce::fold(ReduceOp::BitOr, &[&[bf16::ONE]], &mut [bf16::ONE])),
        "the operation bor does not apply to bf16: bitwise operations are of integers only"
    );
    assert_eq!(
        sentence(reduce::fold(ReduceOp::PreMulSum(2.into()), &[&[1.0f32]], &mut [0.0])),
        "the operation premul_sum(2) does not apply to f32: its factor must be a floating-point number, as 2.0"
    );
    assert_eq!(
        sentence(reduce::fold(ReduceOp::PreMulSum(2.0.into()), &[&[1i16]], &mut [0])),
        "the operation premul_sum(2.0) does not apply to i16: its factor must be an integer, as 2"
    );
    assert!(Fold::new(DataType::F64, ReduceOp::BitAnd, 2).is_err());
    assert!(Fold::with(Instructions::Portable, DataType::F16, ReduceOp::BitXor, 2).is_err());
}

#[test]
fn the_widest_instructions_are_chosen() {
    let widest = Instructions::ALL.into_iter().rfind(|set| set.is_available()).unwrap();
    assert_eq!(Instructions::best(), widest);
    assert_eq!(reduce::instructions(), widest.name());
}

fn kind_at() -> impl Strategy<Value = (Kind, usize)> {
    (prop_oneof![3 => Just(Kind::Element), 1 => Just(Kind::Accumulator)], 0..64usize)
}

prop_compose! {
    fn case()(
        (t, op) in prop::sample::select(products().collect::<Vec<_>>()),
        len in prop_oneof![0..80usize, 80..700usize],
        sources in prop::collection::vec(kind_at(), 1..6),
        destinations in prop::collection::vec(kind_at(), 1..4),
        stores in prop_oneof![Just(Stores::Cached), Just(Stores::Streaming)],
        ranks in 1..100usize,
        seed in any::<u64>(),
    ) -> Case {
        Case { t, op, ranks, len, sources, destinations, stores, seed }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_fold_equals_the_oracle(case in case()) {
        case.check();
    }

    /// A fold over a range is the folds over its parts, wherever it is cut.
    #[test]
    fn chunking_changes_no_bit(case in case(), cut in 0..700usize) {
        let cut = cut.min(case.len);
        let inputs = case.inputs();
        let fold = Fold::new(case.t, case.op, case.ranks).unwrap();
        let kind = case.destinations[0].0;
        let size = case.size(kind);
        let run = |range: std::ops::Range<usize>, to: &mut [u8]| {
            let from: Vec<Source> = inputs
                .iter()
                .zip(&case.sources)
                .map(|(data, &(kind, _))| Source { data: data[range.start * case.size(kind)..].as_ptr(), kind })
                .collect();
            let to = [Destination { data: to[range.start * size..].as_mut_ptr(), kind }];
            // SAFETY: all of them hold `len` values of their kinds, of which this is a part.
            unsafe { fold.run(&from, &to, range.len(), case.stores) }
        };
        let (mut whole, mut parts) = (vec![0; case.len * size], vec![0; case.len * size]);
        run(0..case.len, &mut whole);
        run(0..cut, &mut parts);
        run(cut..case.len, &mut parts);
        case.compare(&parts, &whole, size, "in two parts");
    }
}
