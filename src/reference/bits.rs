// SPDX-License-Identifier: MPL-2.0
//! Elements as bits: what the kit generates them from, compares them by and names them with.

use half::{bf16, f16};

use crate::element::{DataType, Element};

/// The bits of `value`, in the low [`DataType::size`] bytes.
///
/// ```
/// use annulus::reference::bits;
///
/// assert_eq!(bits::of(-1.0_f32), 0xbf80_0000);
/// assert_eq!(bits::of(-1_i8), 0xff);
/// ```
pub fn of<T: Element>(value: T) -> u64 {
    match T::DATA_TYPE.size() {
        1 => bytemuck::cast::<T, u8>(value).into(),
        2 => bytemuck::cast::<T, u16>(value).into(),
        4 => bytemuck::cast::<T, u32>(value).into(),
        _ => bytemuck::cast::<T, u64>(value),
    }
}

/// The element with these bits; those beyond its size are ignored.
pub fn element<T: Element>(bits: u64) -> T {
    match T::DATA_TYPE.size() {
        1 => bytemuck::cast(bits as u8),
        2 => bytemuck::cast(bits as u16),
        4 => bytemuck::cast(bits as u32),
        _ => bytemuck::cast(bits),
    }
}

/// The value of the `data_type` element with these bits, rounded to f64: exact but for 64-bit integers beyond 2^53.
///
/// ```
/// use annulus::DataType;
/// use annulus::reference::bits;
///
/// assert_eq!(bits::to_f64(DataType::Bf16, 0x3fc0), 1.5);
/// ```
pub fn to_f64(data_type: DataType, bits: u64) -> f64 {
    match data_type {
        DataType::F64 => f64::from_bits(bits),
        DataType::F32 => f32::from_bits(bits as u32).into(),
        DataType::F16 => f16::from_bits(bits as u16).to_f64_const(),
        DataType::Bf16 => bf16::from_bits(bits as u16).to_f64_const(),
        DataType::I8 => (bits as i8).into(),
        DataType::U8 => (bits as u8).into(),
        DataType::I16 => (bits as i16).into(),
        DataType::U16 => (bits as u16).into(),
        DataType::I32 => (bits as i32).into(),
        DataType::U32 => (bits as u32).into(),
        DataType::I64 => bits as i64 as f64,
        DataType::U64 => bits as f64,
    }
}
