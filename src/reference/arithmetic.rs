// SPDX-License-Identifier: MPL-2.0
//! The rules on bits, as the reference has them: one element at a time, in the plainest arithmetic.

use half::{bf16, f16};

use crate::element::{Element, Factor, ReduceOp};

/// What a fold carries from contribution to contribution.
pub(super) trait Accumulator: Copy {
    /// Two contributions, or what was folded of them, as one.
    fn combine(op: ReduceOp, left: Self, right: Self) -> Self;
    /// The average of `n` contributions whose sum this is.
    fn divide(self, n: usize) -> Self;
    /// A contribution times a factor of its kind, which is first rounded, or cut off, to this type.
    fn multiply(self, factor: Factor) -> Self;
}

macro_rules! float_accumulators {
    ($($float:ty),*) => {$(
        impl Accumulator for $float {
            fn combine(op: ReduceOp, left: Self, right: Self) -> Self {
                match op {
                    ReduceOp::Sum | ReduceOp::Avg | ReduceOp::PreMulSum(_) => left + right,
                    ReduceOp::Prod => left * right,
                    ReduceOp::Min | ReduceOp::Max if left.is_nan() || right.is_nan() => <$float>::NAN,
                    // The zeros compare equal; the sign decides between them.
                    ReduceOp::Min if left < right || left == right && left.is_sign_negative() => left,
                    ReduceOp::Max if left > right || left == right && left.is_sign_positive() => left,
                    ReduceOp::Min | ReduceOp::Max => right,
                    ReduceOp::BitAnd | ReduceOp::BitOr | ReduceOp::BitXor => unreachable!("of integers only"),
                }
            }

            fn divide(self, n: usize) -> Self {
                self / n as $float
            }

            fn multiply(self, factor: Factor) -> Self {
                self * factor.as_f64().expect("the operation applies to floats") as $float
            }
        }
    )*};
}

macro_rules! integer_accumulators {
    ($($integer:ty),*) => {$(
        impl Accumulator for $integer {
            fn combine(op: ReduceOp, left: Self, right: Self) -> Self {
                match op {
                    ReduceOp::Sum | ReduceOp::Avg | ReduceOp::PreMulSum(_) => left.wrapping_add(right),
                    ReduceOp::Prod => left.wrapping_mul(right),
                    ReduceOp::Min => left.min(right),
                    ReduceOp::Max => left.max(right),
                    ReduceOp::BitAnd => left & right,
                    ReduceOp::BitOr => left | right,
                    ReduceOp::BitXor => left ^ right,
                }
            }

            fn divide(self, n: usize) -> Self {
                self / n as $integer
            }

            fn multiply(self, factor: Factor) -> Self {
                self.wrapping_mul(factor.as_i64().expect("the operation applies to integers") as $integer)
            }
        }
    )*};
}

float_accumulators!(f64, f32);
integer_accumulators!(i64, u64);

/// How an element becomes an accumulator, and the accumulator the result.
pub(super) trait Number: Element {
    /// What a fold of such elements carries.
    type Accumulator: Accumulator;
    /// Exactly.
    fn widen(self) -> Self::Accumulator;
    /// Rounded once.
    fn round(result: Self::Accumulator) -> Self;
}

macro_rules! numbers {
    ($($number:ty, $accumulator:ty, $widen:expr, $round:expr;)*) => {$(
        impl Number for $number {
            type Accumulator = $accumulator;

            fn widen(self) -> $accumulator {
                $widen(self)
            }

            fn round(result: $accumulator) -> $number {
                $round(result)
            }
        }
    )*};
}

// NaN becomes the canonical one of the type. `half` rounds to nearest even and keeps subnormals; its `const` functions
// are software on every machine. Integers of every size are carried in 64 bits and cut off once at the end: modulo
// 2^bits that is the same as wrapping at each step, and for Avg it is the rule.
numbers! {
    f64, f64, f64::from, |a: f64| if a.is_nan() { f64::from_bits(0x7ff8_0000_0000_0000) } else { a };
    f32, f32, f32::from, |a: f32| if a.is_nan() { f32::from_bits(0x7fc0_0000) } else { a };
    f16, f32, f16::to_f32_const, |a: f32| if a.is_nan() { f16::from_bits(0x7e00) } else { f16::from_f32_const(a) };
    bf16, f32, bf16::to_f32_const, |a: f32| if a.is_nan() { bf16::from_bits(0x7fc0) } else { bf16::from_f32_const(a) };
    i8, i64, i64::from, |a| a as i8;
    i16, i64, i64::from, |a| a as i16;
    i32, i64, i64::from, |a| a as i32;
    i64, i64, i64::from, |a| a;
    u8, u64, u64::from, |a| a as u8;
    u16, u64, u64::from, |a| a as u16;
    u32, u64, u64::from, |a| a as u32;
    u64, u64, u64::from, |a| a;
}
