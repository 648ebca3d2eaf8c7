// SPDX-License-Identifier: MPL-2.0
//! Operations, and which types they apply to.

use std::fmt;

use super::DataType;
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
/// - a result that is NaN is stored as the canonical quiet NaN (positive, payload zero).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ReduceOp {
    /// The sum.
    Sum = 0,
    /// The product.
    Prod = 1,
    /// The smallest contribution.
    Min = 2,
    /// The largest contribution.
    Max = 3,
    /// The sum divided by the number of ranks.
    Avg = 4,
    /// The bits that all contributions have; integers only.
    BitAnd = 5,
    /// The bits that any contribution has; integers only.
    BitOr = 6,
    /// The bits that an odd number of contributions have; integers only.
    BitXor = 7,
}

impl ReduceOp {
    /// Every operation.
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

    /// The name: `sum`, `prod`, `min`, `max`, `avg`, `band`, `bor`, `bxor`.
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
        }
    }

    /// The operation of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.name() == name)
    }

    /// Whether it is an operation on bits.
    pub const fn is_bitwise(self) -> bool {
        matches!(self, ReduceOp::BitAnd | ReduceOp::BitOr | ReduceOp::BitXor)
    }

    /// Whether elements of this type can be folded so.
    pub const fn applies_to(self, data_type: DataType) -> bool {
        !(self.is_bitwise() && data_type.is_float())
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
        Error::invalid(format!(
            "the operation {self} does not apply to {data_type}: bitwise operations are of integers only"
        ))
    }
}

impl fmt::Display for ReduceOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
