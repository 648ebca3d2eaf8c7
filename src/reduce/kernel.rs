// SPDX-License-Identifier: MPL-2.0
//! The fold itself: one source text for every type, operation and instruction set.
//!
//! Elements are folded in blocks. A block reads its lanes from all sources, folds them in registers, and stores the
//! result to all destinations, so each source is read once and no partial result goes through memory; and because a
//! block has read everything before it stores anything, a destination may be a source. Blocks are arrays of fixed
//! length, which the compiler keeps in vector registers; it finds the vector instructions by itself.
#![allow(unsafe_code)]

use half::{bf16, f16};

use super::arithmetic::{
    Accumulator, Avg, BitAnd, BitOr, BitXor, Carried, Integer, Max, Min, Operand, Operation, PreMulSum, Prod, Sum,
};
use super::instructions::Instructions;
use super::vectors::{LINE, Portable, Vectors};
#[cfg(target_arch = "x86_64")]
use super::x86;
use super::{Destination, Kind, Source, Stores};
use crate::element::{DataType, ReduceOp};

/// A fold of one type and operation, compiled for one instruction set: sources, destinations, elements, stores, and the
/// operation's [`Operand`].
pub(super) type Kernel = unsafe fn(&[Source], &[Destination], usize, Stores, u64);

/// The kernel of a type and operation, compiled for an instruction set; `None` if the operation is not of that type.
pub(super) fn select(instructions: Instructions, data_type: DataType, op: ReduceOp) -> Option<Kernel> {
    match instructions {
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx512 => typed::<x86::Avx512>(data_type, op),
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => typed::<x86::Avx2>(data_type, op),
        _ => typed::<Portable>(data_type, op),
    }
}

/// The kernel that copies bytes, by the widest instructions: a fold of one source of integers changes nothing.
pub(super) fn copying() -> Kernel {
    match Instructions::best() {
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx512 => x86::Avx512::compiled::<u8, u8, Sum, 256>(),
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => x86::Avx2::compiled::<u8, u8, Sum, 256>(),
        _ => Portable::compiled::<u8, u8, Sum, 256>(),
    }
}

/// The kernel of a type and operation for the instruction set `V`.
///
/// A line names the element, the accumulator of all operations but `Avg`, that of `Avg`, and for each of the two the
/// lanes of a block: four 512-bit registers of accumulators, or eight where elements would else not fill a cache line.
fn typed<V: Vectors>(data_type: DataType, op: ReduceOp) -> Option<Kernel> {
    let of_every_type = match data_type {
        DataType::F64 => of::<V, f64, f64, f64, 32, 32>(op),
        DataType::F32 => of::<V, f32, f32, f32, 64, 64>(op),
        DataType::F16 => of::<V, f16, f32, f32, 64, 64>(op),
        DataType::Bf16 => of::<V, bf16, f32, f32, 64, 64>(op),
        DataType::I8 => of::<V, i8, i8, i64, 256, 64>(op),
        DataType::U8 => of::<V, u8, u8, u64, 256, 64>(op),
        DataType::I16 => of::<V, i16, i16, i64, 128, 32>(op),
        DataType::U16 => of::<V, u16, u16, u64, 128, 32>(op),
        DataType::I32 => of::<V, i32, i32, i64, 64, 32>(op),
        DataType::U32 => of::<V, u32, u32, u64, 64, 32>(op),
        DataType::I64 => of::<V, i64, i64, i64, 32, 32>(op),
        DataType::U64 => of::<V, u64, u64, u64, 32, 32>(op),
    };
    of_every_type.or_else(|| bitwise::<V>(data_type, op))
}

/// The operations of every type.
fn of<V: Vectors, E: Carried<A> + Carried<W>, A: Accumulator, W: Accumulator, const N: usize, const M: usize>(
    op: ReduceOp,
) -> Option<Kernel> {
    Some(match op {
        ReduceOp::Sum => V::compiled::<E, A, Sum, N>(),
        ReduceOp::Prod => V::compiled::<E, A, Prod, N>(),
        ReduceOp::Min => V::compiled::<E, A, Min, N>(),
        ReduceOp::Max => V::compiled::<E, A, Max, N>(),
        ReduceOp::Avg => V::compiled::<E, W, Avg, M>(),
        ReduceOp::PreMulSum(_) => V::compiled::<E, A, PreMulSum, N>(),
        ReduceOp::BitAnd | ReduceOp::BitOr | ReduceOp::BitXor => return None,
    })
}

/// The operations of integers alone, for which an integer's size is all that matters.
fn bitwise<V: Vectors>(data_type: DataType, op: ReduceOp) -> Option<Kernel> {
    match data_type {
        DataType::I8 | DataType::U8 => of_bits::<V, u8, 256>(op),
        DataType::I16 | DataType::U16 => of_bits::<V, u16, 128>(op),
        DataType::I32 | DataType::U32 => of_bits::<V, u32, 64>(op),
        DataType::I64 | DataType::U64 => of_bits::<V, u64, 32>(op),
        DataType::F64 | DataType::F32 | DataType::F16 | DataType::Bf16 => None,
    }
}

fn of_bits<V: Vectors, E: Integer + Carried<E>, const N: usize>(op: ReduceOp) -> Option<Kernel> {
    match op {
        ReduceOp::BitAnd => Some(V::compiled::<E, E, BitAnd, N>()),
        ReduceOp::BitOr => Some(V::compiled::<E, E, BitOr, N>()),
        ReduceOp::BitXor => Some(V::compiled::<E, E, BitXor, N>()),
        _ => None,
    }
}

/// Folds `len` elements.
///
/// # Safety
/// As [`super::Fold::run`], and the machine has the instructions of `V`.
#[inline(always)]
pub(super) unsafe fn fold<V: Vectors, E: Carried<A>, A: Accumulator, O: Operation<A>, const N: usize>(
    from: &[Source],
    to: &[Destination],
    len: usize,
    stores: Stores,
    operand: u64,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match *from {
            [a @ Source { kind: Kind::Element, .. }, b @ Source { kind: Kind::Element, .. }]
                if to.iter().all(|to| to.kind == Kind::Element) =>
            {
                pass::<V, E, A, O, N, true>(&[a, b], to, len, stores, operand);
            }
            _ => pass::<V, E, A, O, N, false>(from, to, len, stores, operand),
        }
    }
    if stores == Stores::Streaming {
        V::publish();
    }
}

/// Folds `len` elements. `PLAIN` says that there are two sources, and elements at both ends: the most frequent fold,
/// whose pointers stay in registers and which has no loop over sources.
///
/// # Safety
/// As [`fold`].
#[inline(always)]
unsafe fn pass<V: Vectors, E: Carried<A>, A: Accumulator, O: Operation<A>, const N: usize, const PLAIN: bool>(
    from: &[Source],
    to: &[Destination],
    len: usize,
    stores: Stores,
    operand: u64,
) {
    let scalars = Scalars::new(operand);
    // First up to where a cache line of the first destination begins. Only whole lines can be streamed (to destinations
    // that are elsewhere in their lines, stores are cached), and a vector store that touches two lines costs two, which
    // a fold of more than a few blocks notices.
    let head = match stores {
        Stores::Cached if len < 16 * N => len,
        _ => to.first().map_or(len, to_line::<E, A>).min(len),
    };
    let mut at = 0;
    for end in [head, len] {
        // SAFETY: each block ends at or before `end`, and that is at most `len`.
        unsafe {
            while end - at >= N {
                block::<V, E, A, O, N, PLAIN>(from, to, at, stores, scalars);
                at += N;
            }
            while end - at >= SHORT {
                block::<V, E, A, O, SHORT, PLAIN>(from, to, at, stores, scalars);
                at += SHORT;
            }
            while at < end {
                block::<V, E, A, O, 1, PLAIN>(from, to, at, stores, scalars);
                at += 1;
            }
        }
    }
}

/// The operand, as whatever the operation takes it for.
#[derive(Clone, Copy)]
struct Scalars<A> {
    divisor: A,
    reciprocal: Option<A>,
    factor: A,
}

impl<A: Accumulator> Scalars<A> {
    #[inline(always)]
    fn new(operand: u64) -> Self {
        let divisor = A::divisor(operand);
        Scalars { divisor, reciprocal: A::reciprocal(divisor), factor: A::factor(operand) }
    }
}

/// Lanes of the blocks between the wide ones and single elements.
const SHORT: usize = 8;

/// Elements before the destination reaches the start of a cache line; `usize::MAX` if it never does.
#[inline(always)]
fn to_line<E, A>(destination: &Destination) -> usize {
    match destination.kind {
        Kind::Element => destination.data.cast::<E>().align_offset(LINE),
        Kind::Accumulator => destination.data.cast::<A>().align_offset(LINE),
    }
}

/// Folds elements `at .. at + N`: all sources are read before any destination is written.
///
/// # Safety
/// As [`fold`], and `at + N <= len`.
#[inline(always)]
unsafe fn block<V: Vectors, E: Carried<A>, A: Accumulator, O: Operation<A>, const N: usize, const PLAIN: bool>(
    from: &[Source],
    to: &[Destination],
    at: usize,
    stores: Stores,
    scalars: Scalars<A>,
) {
    // SAFETY: a source has `len` values of its kind, a destination has room for them, and `at + N <= len`.
    unsafe {
        let Some((first, rest)) = from.split_first() else { return };
        let mut folded = match data::<PLAIN>(first) {
            (data, Kind::Element) => contributions::<V, E, A, O, N>(data, at, scalars.factor),
            (data, Kind::Accumulator) => accumulators::<E, A, N>(data, at),
        };
        for source in rest {
            match data::<PLAIN>(source) {
                (data, Kind::Element) => {
                    combine::<A, O, N>(&mut folded, contributions::<V, E, A, O, N>(data, at, scalars.factor));
                }
                (data, Kind::Accumulator) => {
                    combine::<A, O, N>(&mut folded, accumulators::<E, A, N>(data, at));
                }
            }
        }
        // A NaN is canonical in a partial result too, so that partial results have the same bits everywhere.
        let mut partial = [A::default(); N];
        for i in 0..N {
            partial[i] = folded[i].canonical();
        }
        let mut finished = partial;
        if O::OPERAND == Operand::Divides {
            for i in 0..N {
                finished[i] = match scalars.reciprocal {
                    Some(reciprocal) => folded[i].product(reciprocal),
                    None => folded[i].quotient(scalars.divisor),
                }
                .canonical();
            }
        }
        let elements = E::narrow::<V, N>(finished);
        for destination in to {
            if PLAIN || destination.kind == Kind::Element {
                store::<V, E, N>(destination.data.cast::<E>().add(at).cast(), elements, stores);
            } else {
                store::<V, A, N>(destination.data.cast::<A>().add(at).cast(), E::undeal(partial), stores);
            }
        }
    }
}

/// What a source holds, and where. `PLAIN` sources hold elements.
#[inline(always)]
fn data<const PLAIN: bool>(source: &Source) -> (*const u8, Kind) {
    if PLAIN {
        (source.data, Kind::Element)
    } else {
        // Volatile, or the compiler finds that integers may be folded in any order, and gathers across the sources.
        // SAFETY: a reference is readable.
        (unsafe { (&raw const source.data).read_volatile() }, source.kind)
    }
}

/// Elements `at .. at + N`, as accumulators, multiplied if the operation does that.
///
/// # Safety
/// They are readable, and the machine has the instructions of `V`.
#[inline(always)]
unsafe fn contributions<V: Vectors, E: Carried<A>, A: Accumulator, O: Operation<A>, const N: usize>(
    data: *const u8,
    at: usize,
    factor: A,
) -> [A; N] {
    // SAFETY: the caller's promise.
    let mut lanes = unsafe { E::widen::<V, N>(data.cast::<E>().add(at).cast::<[E; N]>().read_unaligned()) };
    if O::OPERAND == Operand::Multiplies {
        for lane in &mut lanes {
            *lane = lane.product(factor);
        }
    }
    lanes
}

/// Accumulators `at .. at + N`, dealt as elements are.
///
/// # Safety
/// They are readable.
#[inline(always)]
unsafe fn accumulators<E: Carried<A>, A: Accumulator, const N: usize>(data: *const u8, at: usize) -> [A; N] {
    // SAFETY: the caller's promise.
    E::deal(unsafe { data.cast::<A>().add(at).cast::<[A; N]>().read_unaligned() })
}

/// Folds `next` into `folded`, lane by lane.
#[inline(always)]
fn combine<A: Accumulator, O: Operation<A>, const N: usize>(folded: &mut [A; N], next: [A; N]) {
    for i in 0..N {
        folded[i] = O::combine(folded[i], next[i]);
    }
}

/// Stores lanes, past the caches if that is asked for and they are whole lines.
///
/// # Safety
/// `to` is writable, and the machine has the instructions of `V`.
#[inline(always)]
unsafe fn store<V: Vectors, T: Copy, const N: usize>(to: *mut [T; N], lanes: [T; N], stores: Stores) {
    let whole_lines = size_of::<[T; N]>().is_multiple_of(LINE) && to.addr().is_multiple_of(LINE);
    // SAFETY: `to` is writable, and streamed to only in whole lines.
    unsafe {
        if stores == Stores::Streaming && whole_lines {
            V::stream(to, lanes);
        } else {
            to.write_unaligned(lanes);
        }
    }
}
