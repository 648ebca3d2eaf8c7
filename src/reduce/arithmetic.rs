// SPDX-License-Identifier: MPL-2.0
//! The rules on bits: what each operation makes of two accumulators, how an element becomes an accumulator, and how an
//! accumulator is finished.
//!
//! Everything here is written without branches, lane by lane, so that the compiler turns a loop over lanes into vector
//! code of whatever width the kernel around it is compiled for. Lanes never mix, so that width cannot change a bit.
//!
//! A new operation is a line of `operations!` and one in `kernel::of` or `kernel::of_bits`; a new element type is a line
//! of `carried!`, or an implementation of [`Carried`], and a line in `kernel::typed`.
#![allow(unsafe_code)]

use half::{bf16, f16};

use super::vectors::Vectors;

/// A type in which a fold carries its value.
pub(super) trait Accumulator: Copy + Default + 'static {
    /// The sum; integers wrap.
    fn sum(self, other: Self) -> Self;
    /// The product; integers wrap.
    fn product(self, other: Self) -> Self;
    /// IEEE 754-2019 minimum: NaN if either is NaN, and -0 < +0.
    fn minimum(self, other: Self) -> Self;
    /// IEEE 754-2019 maximum: NaN if either is NaN, and -0 < +0.
    fn maximum(self, other: Self) -> Self;
    /// The number of ranks, as a divisor. Zero ranks, which fold nothing, count as one.
    fn divisor(ranks: u64) -> Self;
    /// A factor, by its bits; those beyond the type's size are ignored.
    fn factor(bits: u64) -> Self;
    /// What to multiply by instead of dividing by `divisor`, if that gives the same bits.
    fn reciprocal(divisor: Self) -> Option<Self>;
    /// The quotient; of integers, truncated towards zero.
    fn quotient(self, divisor: Self) -> Self;
    /// The canonical quiet NaN (positive, payload zero) for any NaN, else the value itself.
    fn canonical(self) -> Self;
}

macro_rules! floats {
    ($($type:ident as $bits:ident: canonical NaN $nan:literal),* $(,)?) => {$(
        impl Accumulator for $type {
            #[inline(always)]
            fn sum(self, other: Self) -> Self {
                self + other
            }

            #[inline(always)]
            fn product(self, other: Self) -> Self {
                self * other
            }

            #[inline(always)]
            fn minimum(self, other: Self) -> Self {
                // `other` where either is NaN. Equal numbers have equal bits, except zeros, whose signs are joined.
                let least = if self < other { self } else { other };
                let least = if self == other { Self::from_bits(self.to_bits() | other.to_bits()) } else { least };
                if self.is_nan() { self } else { least }
            }

            #[inline(always)]
            fn maximum(self, other: Self) -> Self {
                let most = if self > other { self } else { other };
                let most = if self == other { Self::from_bits(self.to_bits() & other.to_bits()) } else { most };
                if self.is_nan() { self } else { most }
            }

            #[inline(always)]
            fn divisor(ranks: u64) -> Self {
                ranks.max(1) as Self
            }

            #[inline(always)]
            fn factor(bits: u64) -> Self {
                Self::from_bits(bits as $bits)
            }

            /// A power of two has an exact reciprocal, so that both round the same number once.
            #[inline(always)]
            fn reciprocal(divisor: Self) -> Option<Self> {
                let reciprocal = 1.0 / divisor;
                let mantissa = (1 << (Self::MANTISSA_DIGITS - 1)) - 1;
                (divisor.to_bits() & mantissa == 0).then_some(reciprocal)
            }

            #[inline(always)]
            fn quotient(self, divisor: Self) -> Self {
                self / divisor
            }

            #[inline(always)]
            fn canonical(self) -> Self {
                if self.is_nan() { Self::from_bits($nan) } else { self }
            }
        }
    )*};
}

floats! {
    f32 as u32: canonical NaN 0x7fc0_0000,
    f64 as u64: canonical NaN 0x7ff8_0000_0000_0000,
}

/// An accumulator whose bits can be folded one by one.
pub(super) trait Integer: Accumulator {
    /// The bits that both have.
    fn and(self, other: Self) -> Self;
    /// The bits that either has.
    fn or(self, other: Self) -> Self;
    /// The bits that one of the two has.
    fn xor(self, other: Self) -> Self;
}

macro_rules! integers {
    ($($type:ident),* $(,)?) => {$(
        impl Accumulator for $type {
            #[inline(always)]
            fn sum(self, other: Self) -> Self {
                self.wrapping_add(other)
            }

            #[inline(always)]
            fn product(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }

            #[inline(always)]
            fn minimum(self, other: Self) -> Self {
                if self < other { self } else { other }
            }

            #[inline(always)]
            fn maximum(self, other: Self) -> Self {
                if self > other { self } else { other }
            }

            #[inline(always)]
            fn divisor(ranks: u64) -> Self {
                ranks.max(1) as Self
            }

            #[inline(always)]
            fn factor(bits: u64) -> Self {
                bits as Self
            }

            #[inline(always)]
            fn reciprocal(_: Self) -> Option<Self> {
                None
            }

            #[inline(always)]
            fn quotient(self, divisor: Self) -> Self {
                self.wrapping_div(divisor)
            }

            #[inline(always)]
            fn canonical(self) -> Self {
                self
            }
        }

        impl Integer for $type {
            #[inline(always)]
            fn and(self, other: Self) -> Self {
                self & other
            }

            #[inline(always)]
            fn or(self, other: Self) -> Self {
                self | other
            }

            #[inline(always)]
            fn xor(self, other: Self) -> Self {
                self ^ other
            }
        }
    )*};
}

integers! { i8, u8, i16, u16, i32, u32, i64, u64 }

/// What an operation does with its operand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Operand {
    /// Nothing.
    Unused,
    /// Finishing divides by it: it is the number of ranks.
    Divides,
    /// Each element is multiplied by it before it is folded: it is a factor, by its bits. Accumulators have been.
    Multiplies,
}

/// How two accumulators become one, and what its operand does to elements or to the result.
pub(super) trait Operation<A: Accumulator>: 'static {
    /// What the operand does.
    const OPERAND: Operand;

    /// The fold of two accumulators.
    fn combine(left: A, right: A) -> A;
}

macro_rules! operations {
    ($($name:ident: $combine:ident of $accumulator:ident, operand $operand:ident;)*) => {$(
        /// The [`ReduceOp`](crate::ReduceOp) of this name.
        pub(super) struct $name;

        impl<A: $accumulator> Operation<A> for $name {
            const OPERAND: Operand = Operand::$operand;

            #[inline(always)]
            fn combine(left: A, right: A) -> A {
                left.$combine(right)
            }
        }
    )*};
}

operations! {
    Sum: sum of Accumulator, operand Unused;
    Prod: product of Accumulator, operand Unused;
    Min: minimum of Accumulator, operand Unused;
    Max: maximum of Accumulator, operand Unused;
    Avg: sum of Accumulator, operand Divides;
    PreMulSum: sum of Accumulator, operand Multiplies;
    BitAnd: and of Integer, operand Unused;
    BitOr: or of Integer, operand Unused;
    BitXor: xor of Integer, operand Unused;
}

/// An element that folds carry as `A`.
pub(super) trait Carried<A: Accumulator>: Copy + Default + 'static {
    /// The elements as accumulators, exactly. The order of the lanes is the type's own, see [`deal`](Carried::deal).
    ///
    /// # Safety
    /// The machine has the instructions of `V`.
    unsafe fn widen<V: Vectors, const N: usize>(elements: [Self; N]) -> [A; N];

    /// The accumulators, none of which is a NaN other than the canonical one, rounded to elements.
    ///
    /// # Safety
    /// The machine has the instructions of `V`.
    unsafe fn narrow<V: Vectors, const N: usize>(accumulators: [A; N]) -> [Self; N];

    /// Accumulators in the order of memory, in the order that `widen` gives and `narrow` takes.
    #[inline(always)]
    fn deal<const N: usize>(accumulators: [A; N]) -> [A; N] {
        accumulators
    }

    /// The inverse of [`deal`](Carried::deal).
    #[inline(always)]
    fn undeal<const N: usize>(accumulators: [A; N]) -> [A; N] {
        accumulators
    }
}

/// Types that are their own accumulators, and integers whose averages accumulate in 64 bits.
macro_rules! carried {
    (themselves: $($own:ident),*; widened: $($element:ident in $wide:ident),* $(,)?) => {
        $(impl Carried<$own> for $own {
            #[inline(always)]
            unsafe fn widen<V: Vectors, const N: usize>(elements: [Self; N]) -> [$own; N] {
                elements
            }

            #[inline(always)]
            unsafe fn narrow<V: Vectors, const N: usize>(accumulators: [$own; N]) -> [Self; N] {
                accumulators
            }
        })*
        $(impl Carried<$wide> for $element {
            #[inline(always)]
            unsafe fn widen<V: Vectors, const N: usize>(elements: [Self; N]) -> [$wide; N] {
                lanes(elements, $wide::from)
            }

            #[inline(always)]
            unsafe fn narrow<V: Vectors, const N: usize>(accumulators: [$wide; N]) -> [Self; N] {
                lanes(accumulators, |wide| wide as $element)
            }
        })*
    };
}

carried! {
    themselves: f64, f32, i8, u8, i16, u16, i32, u32, i64, u64;
    widened: i8 in i64, i16 in i64, i32 in i64, u8 in u64, u16 in u64, u32 in u64,
}

/// Two neighbours at a time: as one `u32`, each becomes an f32 by one operation, and two make them neighbours again,
/// where spreading them over twice the width costs shuffles, of which machines do half as many. So the lanes are dealt:
/// first those of even index, then those of odd.
impl Carried<f32> for bf16 {
    #[inline(always)]
    unsafe fn widen<V: Vectors, const N: usize>(elements: [Self; N]) -> [f32; N] {
        let mut floats = [0.0; N];
        if in_pairs(N) {
            for i in 0..N / 2 {
                // SAFETY: both halves of pair `i` are among the N elements.
                let pair = unsafe { elements.as_ptr().cast::<u32>().add(i).read_unaligned() };
                floats[i] = f32::from_bits(pair << 16);
                floats[N / 2 + i] = f32::from_bits(pair & 0xffff_0000);
            }
        } else {
            for i in 0..N {
                floats[i] = f32::from_bits(u32::from(elements[i].to_bits()) << 16);
            }
        }
        floats
    }

    /// By integer arithmetic: the native instructions flush subnormals.
    #[inline(always)]
    unsafe fn narrow<V: Vectors, const N: usize>(accumulators: [f32; N]) -> [Self; N] {
        let mut elements = [bf16::ZERO; N];
        if in_pairs(N) {
            for i in 0..N / 2 {
                let pair =
                    rounded_to_bf16(accumulators[i]) >> 16 | rounded_to_bf16(accumulators[N / 2 + i]) & 0xffff_0000;
                // SAFETY: both halves of pair `i` are among the N elements.
                unsafe { elements.as_mut_ptr().cast::<u32>().add(i).write_unaligned(pair) };
            }
        } else {
            for i in 0..N {
                elements[i] = bf16::from_bits((rounded_to_bf16(accumulators[i]) >> 16) as u16);
            }
        }
        elements
    }

    #[inline(always)]
    fn deal<const N: usize>(accumulators: [f32; N]) -> [f32; N] {
        let mut dealt = accumulators;
        if in_pairs(N) {
            for i in 0..N / 2 {
                dealt[i] = accumulators[2 * i];
                dealt[N / 2 + i] = accumulators[2 * i + 1];
            }
        }
        dealt
    }

    #[inline(always)]
    fn undeal<const N: usize>(accumulators: [f32; N]) -> [f32; N] {
        let mut undealt = accumulators;
        if in_pairs(N) {
            for i in 0..N / 2 {
                undealt[2 * i] = accumulators[i];
                undealt[2 * i + 1] = accumulators[N / 2 + i];
            }
        }
        undealt
    }
}

/// Whether so many bf16 are pairs, the first of each in the low half.
#[inline(always)]
const fn in_pairs(lanes: usize) -> bool {
    lanes.is_multiple_of(2) && cfg!(target_endian = "little")
}

/// The bits of an f32 whose upper half is the nearest bf16, ties to even. Not for any NaN but the canonical one.
#[inline(always)]
fn rounded_to_bf16(float: f32) -> u32 {
    let bits = float.to_bits();
    // Half a unit less one, and one more where the last kept bit is odd. A carry into the exponent is the right result,
    // infinity included; infinity itself has nothing to carry.
    bits.wrapping_add(0x7fff + (bits >> 16 & 1))
}

impl Carried<f32> for f16 {
    #[inline(always)]
    unsafe fn widen<V: Vectors, const N: usize>(elements: [Self; N]) -> [f32; N] {
        // SAFETY: the caller promises the instructions of `V`.
        unsafe { V::widen(elements) }
    }

    #[inline(always)]
    unsafe fn narrow<V: Vectors, const N: usize>(accumulators: [f32; N]) -> [Self; N] {
        // SAFETY: the caller promises the instructions of `V`.
        unsafe { V::narrow(accumulators) }
    }
}

/// `f` of each lane.
#[inline(always)]
pub(super) fn lanes<T: Copy, U: Copy + Default, const N: usize>(from: [T; N], f: impl Fn(T) -> U) -> [U; N] {
    let mut to = [U::default(); N];
    for i in 0..N {
        to[i] = f(from[i]);
    }
    to
}
