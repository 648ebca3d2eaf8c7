// SPDX-License-Identifier: MPL-2.0
//! What collectives move and fold: element types, operations and fold orders. Pure data; the leaves of the crate.

mod factor;
mod fold_order;
mod reduce_op;

use std::fmt;

use half::{bf16, f16};

pub use factor::Factor;
pub use fold_order::{Bracketing, FoldOrder};
pub use reduce_op::ReduceOp;

/// The type of an element, by the names NCCL and PyTorch users know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[non_exhaustive]
pub enum DataType {
    /// IEEE 754 binary64.
    F64 = 0,
    /// IEEE 754 binary32.
    F32 = 1,
    /// IEEE 754 binary16; accumulates in f32.
    F16 = 2,
    /// bfloat16; accumulates in f32.
    Bf16 = 3,
    /// Signed 8-bit integer; wraps.
    I8 = 4,
    /// Unsigned 8-bit integer; wraps.
    U8 = 5,
    /// Signed 32-bit integer; wraps.
    I32 = 6,
    /// Unsigned 32-bit integer; wraps.
    U32 = 7,
    /// Signed 64-bit integer; wraps.
    I64 = 8,
    /// Unsigned 64-bit integer; wraps.
    U64 = 9,
    /// Signed 16-bit integer; wraps.
    I16 = 10,
    /// Unsigned 16-bit integer; wraps.
    U16 = 11,
}

impl DataType {
    /// Every element type: floats, then integers by size.
    pub const ALL: [DataType; 12] = [
        DataType::F64,
        DataType::F32,
        DataType::F16,
        DataType::Bf16,
        DataType::I8,
        DataType::U8,
        DataType::I16,
        DataType::U16,
        DataType::I32,
        DataType::U32,
        DataType::I64,
        DataType::U64,
    ];

    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            DataType::I8 | DataType::U8 => 1,
            DataType::F16 | DataType::Bf16 | DataType::I16 | DataType::U16 => 2,
            DataType::F32 | DataType::I32 | DataType::U32 => 4,
            DataType::F64 | DataType::I64 | DataType::U64 => 8,
        }
    }

    /// The name: `f32`, `bf16`, ..
    pub const fn name(self) -> &'static str {
        match self {
            DataType::F64 => "f64",
            DataType::F32 => "f32",
            DataType::F16 => "f16",
            DataType::Bf16 => "bf16",
            DataType::I8 => "i8",
            DataType::U8 => "u8",
            DataType::I16 => "i16",
            DataType::U16 => "u16",
            DataType::I32 => "i32",
            DataType::U32 => "u32",
            DataType::I64 => "i64",
            DataType::U64 => "u64",
        }
    }

    /// Whether it is a floating-point type; all others are integers.
    pub const fn is_float(self) -> bool {
        matches!(self, DataType::F64 | DataType::F32 | DataType::F16 | DataType::Bf16)
    }

    /// Whether it has negative values, as floats and signed integers have.
    pub const fn is_signed(self) -> bool {
        !matches!(self, DataType::U8 | DataType::U16 | DataType::U32 | DataType::U64)
    }

    /// The type of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name() == name)
    }

    /// The type in which a fold of this type by `op` carries its value before the one rounding at its end: f32 for f16
    /// and bf16; 64 bits for the average of integers; the type itself otherwise.
    pub const fn accumulator(self, op: ReduceOp) -> DataType {
        match (self, op) {
            (DataType::F16 | DataType::Bf16, _) => DataType::F32,
            (own, ReduceOp::Avg) if !own.is_float() => {
                if own.is_signed() {
                    DataType::I64
                } else {
                    DataType::U64
                }
            }
            (own, _) => own,
        }
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A type that collectives move and fold. Sealed: a new one is added here, in `reduce`, in `reference` and in the
/// kernels' header, and nowhere else.
pub trait Element:
    sealed::Sealed
    + bytemuck::Pod
    + PartialEq
    + fmt::Debug
    + fmt::Display
    + Send
    + Sync
    + std::panic::UnwindSafe
    + std::panic::RefUnwindSafe
    + 'static
{
    /// Which of the types this is.
    const DATA_TYPE: DataType;
}

macro_rules! elements {
    ($($type:ty => $name:ident),* $(,)?) => {$(
        impl sealed::Sealed for $type {}
        impl Element for $type {
            const DATA_TYPE: DataType = DataType::$name;
        }
    )*};
}

elements! {
    f64 => F64, f32 => F32, f16 => F16, bf16 => Bf16,
    i8 => I8, u8 => U8, i16 => I16, u16 => U16, i32 => I32, u32 => U32, i64 => I64, u64 => U64,
}
