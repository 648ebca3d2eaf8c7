// SPDX-License-Identifier: MPL-2.0
//! The element types, for tests that are the same for each.

/// Calls a generic function for every element type.
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
