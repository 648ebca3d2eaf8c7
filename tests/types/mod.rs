// SPDX-License-Identifier: MPL-2.0
//! The element types and their operations, for tests that are the same for each.
#![allow(dead_code)] // each test file uses a part

use annulus::{DataType, ReduceOp};

/// Every operation, those with a parameter with one for floats and one for integers.
pub fn all_operations() -> Vec<ReduceOp> {
    let factors = [0.3.into(), (-3).into()];
    ReduceOp::ALL.into_iter().chain(factors.map(ReduceOp::PreMulSum)).collect()
}

/// Every operation that applies to a type.
pub fn operations(data_type: DataType) -> impl Iterator<Item = ReduceOp> {
    all_operations().into_iter().filter(move |op| op.applies_to(data_type))
}

/// Calls a generic function for every element type.
#[allow(unused_macros)] // each test file uses a part
macro_rules! for_every_type {
    ($function:ident($($argument:expr),*)) => {
        $function::<f64>($($argument),*);
        $function::<f32>($($argument),*);
        $function::<f16>($($argument),*);
        $function::<bf16>($($argument),*);
        $function::<i8>($($argument),*);
        $function::<u8>($($argument),*);
        $function::<i16>($($argument),*);
        $function::<u16>($($argument),*);
        $function::<i32>($($argument),*);
        $function::<u32>($($argument),*);
        $function::<i64>($($argument),*);
        $function::<u64>($($argument),*);
    };
}
