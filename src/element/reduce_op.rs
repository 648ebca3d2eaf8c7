// SPDX-License-Identifier: MPL-2.0
//! Operations, and which types they apply to.

use std::fmt;

use super::{DataType, Factor};
use crate::error::{Error, Result};

/// How contributions are folded into one value.
///
/// A fold starts from the first contribution of its order, never from zero. The rules of each operation, the same on
/// every transport and device:
///
/// - integers wrap; f16 and bf16 accumulate in f32 and round once, to nearest even;
/// - `Min` and `Max` are IEEE 754-2019 minimum and maximum: NaN propagates and -0 < +0;
/// - `Avg` folds like `Sum`, then divides by the number of ranks in the accumulator type; integer averages accumulate
///   in 64 bits and truncate towards zero;
/// - `BitAnd`, `BitOr` and `BitXor` (PyTorch's `BAND`, `BOR` and `BXOR`) are of integers only;
/// - `PreMulSum` (NCCL's and PyTorch's) multiplies in the accumulator type, rounds the product to it, then folds like
///   `Sum`; its factor is a floating-point number for floats and an integer for integers;
/// - a result that is NaN is stored as the canonical quiet NaN (positive, payload zero).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ReduceOp {
    /// The sum.
    Sum,
    /// The product.
    Prod,
    /// The smallest contribution.
    Min,
    /// The largest contribution.
    Max,
    /// The sum divided by the number of ranks.
    Avg,
    /// The bits that all contributions have; integers only.
    BitAnd,
    /// The bits that any contribution has; integers only.
    BitOr,
    /// The bits that an odd number of contributions have; integers only.
    BitXor,
    /// The sum of all contributions, each multiplied by this factor, which is the same on all ranks.
    ///
    /// ```
    /// use annulus::{ReduceOp, run};
    ///
    /// let sums = run(2, |comm| {
    ///     let mut value = [comm.rank() as f32 + 1.0];
    ///     comm.all_reduce_in_place(&mut value, ReduceOp::PreMulSum(0.5.into()))?;
    ///     Ok(value[0])
    /// })?;
    /// assert_eq!(sums, [1.5; 2]);
    /// # Ok::<(), annulus::Error>(())
    /// ```
    PreMulSum(Factor),
}

impl ReduceOp {
    /// Every operation without a parameter: all but `PreMulSum`.
    pub const ALL: [ReduceOp; 8] = [
        ReduceOp::Sum,
        ReduceOp::Prod,
        ReduceOp::Min,
        ReduceOp::Max,
        ReduceOp::Avg,
        ReduceOp::BitAnd,
        ReduceOp::BitOr,
        ReduceOp::BitXor,
    ];

    /// The name: `sum`, `prod`, `min`, `max`, `avg`, `band`, `bor`, `bxor`, `premul_sum`.
    pub const fn name(self) -> &'static str {
        match self {
            ReduceOp::Sum => "sum",
            ReduceOp::Prod => "prod",
            ReduceOp::Min => "min",
            ReduceOp::Max => "max",
            ReduceOp::Avg => "avg",
            ReduceOp::BitAnd => "band",
            ReduceOp::BitOr => "bor",
            ReduceOp::BitXor => "bxor",
            ReduceOp::PreMulSum(_) => "premul_sum",
        }
    }

    /// The operation of that name, if it has no parameter.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.name() == name)
    }

    /// The number by which ranks name the operation to one another, from 1. Numbers are never given anew.
    pub(crate) const fn number(self) -> u8 {
        match self {
            ReduceOp::Sum => 1,
            ReduceOp::Prod => 2,
            ReduceOp::Min => 3,
            ReduceOp::Max => 4,
            ReduceOp::Avg => 5,
            ReduceOp::BitAnd => 6,
            ReduceOp::BitOr => 7,
            ReduceOp::BitXor => 8,
            ReduceOp::PreMulSum(_) => 9,
        }
    }

    /// The operation of that number; `factor` is what it multiplies by, if it does.
    pub(crate) fn from_number(number: u8, factor: Factor) -> Option<Self> {
        Self::ALL.into_iter().chain([ReduceOp::PreMulSum(factor)]).find(|op| op.number() == number)
    }

    /// Whether it is an operation on bits.
    pub const fn is_bitwise(self) -> bool {
        matches!(self, ReduceOp::BitAnd | ReduceOp::BitOr | ReduceOp::BitXor)
    }

    /// Whether elements of this type can be folded so.
    pub const fn applies_to(self, data_type: DataType) -> bool {
        match self {
            ReduceOp::PreMulSum(factor) => factor.is_float() == data_type.is_float(),
            _ => !(self.is_bitwise() && data_type.is_float()),
        }
    }

    /// Fails where the operation does not [apply](ReduceOp::applies_to).
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`], a sentence that names operation and type.
    pub fn check(self, data_type: DataType) -> Result<()> {
        match self.applies_to(data_type) {
            true => Ok(()),
            false => Err(self.inapplicable(data_type)),
        }
    }

    /// What [`ReduceOp::check`] says of a type to which the operation does not apply.
    pub(crate) fn inapplicable(self, data_type: DataType) -> Error {
        let reason = match self {
            ReduceOp::PreMulSum(factor) if factor.is_float() => "its factor must be an integer, as 2",
            ReduceOp::PreMulSum(_) => "its factor must be a floating-point number, as 2.0",
            _ => "bitwise operations are of integers only",
        };
        Error::invalid(format!("the operation {self} does not apply to {data_type}: {reason}"))
    }
}

impl fmt::Display for ReduceOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReduceOp::PreMulSum(factor) => f.pad(&format!("premul_sum({factor:?})")),
            _ => f.pad(self.name()),
        }
    }
}
