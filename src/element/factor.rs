// SPDX-License-Identifier: MPL-2.0
//! The factor of a pre-multiplied sum: a number that compares by its bits, so that it can be part of an operation.

use std::fmt;

/// What [`ReduceOp::PreMulSum`](super::ReduceOp::PreMulSum) multiplies contributions by: an `f64` for floating-point
/// types, an `i64` for integers.
///
/// It is rounded once to the accumulator type, f32 but for f64; of integers it is taken modulo 2^bits, so that `-1`
/// stands for the largest `u64`. Factors are equal if their kinds and their bits are; all NaN are one.
///
/// ```
/// use annulus::element::Factor;
///
/// assert_ne!(Factor::from(2.0), Factor::from(2));
/// assert_ne!(Factor::from(0.0), Factor::from(-0.0));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Factor {
    is_float: bool,
    bits: u64,
}

impl Factor {
    /// The value, if it is one for floating-point types.
    pub const fn as_f64(self) -> Option<f64> {
        if self.is_float { Some(f64::from_bits(self.bits)) } else { None }
    }

    /// The value, if it is one for integers.
    pub const fn as_i64(self) -> Option<i64> {
        if self.is_float { None } else { Some(self.bits as i64) }
    }

    /// Whether it is one for floating-point types.
    pub const fn is_float(self) -> bool {
        self.is_float
    }

    /// The bits of its value, which with the kind are the factor.
    pub(crate) const fn bits(self) -> u64 {
        self.bits
    }

    /// The factor of that kind with these bits.
    pub(crate) fn from_bits(is_float: bool, bits: u64) -> Self {
        if is_float { f64::from_bits(bits).into() } else { (bits as i64).into() }
    }
}

impl From<f64> for Factor {
    fn from(value: f64) -> Self {
        let value = if value.is_nan() { f64::NAN } else { value };
        Factor { is_float: true, bits: value.to_bits() }
    }
}

impl From<i64> for Factor {
    fn from(value: i64) -> Self {
        Factor { is_float: false, bits: value as u64 }
    }
}

impl fmt::Debug for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_f64() {
            Some(value) => write!(f, "{value:?}"),
            None => write!(f, "{}", self.bits as i64),
        }
    }
}
