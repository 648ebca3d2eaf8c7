// SPDX-License-Identifier: MPL-2.0
//! What the compiler cannot find by itself in each instruction set: conversions of f16 and streaming stores.
//!
//! The rest of a kernel is the same source for all of them, compiled once for each.
#![allow(unsafe_code)]

use half::f16;

use super::arithmetic::{Accumulator, Carried, Operation, lanes};
use super::kernel::{self, Kernel};

/// An instruction set's own conversions and stores. The bodies here are the portable ones.
pub(super) trait Vectors: 'static {
    /// The kernel of a fold in blocks of `N` lanes, compiled for this instruction set.
    fn compiled<E: Carried<A>, A: Accumulator, O: Operation<A>, const N: usize>() -> Kernel;

    /// f16 to f32, exactly.
    ///
    /// # Safety
    /// The machine has the instructions.
    #[inline(always)]
    unsafe fn widen<const N: usize>(halves: [f16; N]) -> [f32; N] {
        lanes(halves, widen)
    }

    /// f32 to f16, to nearest even. No float is a NaN other than the canonical one.
    ///
    /// # Safety
    /// The machine has the instructions.
    #[inline(always)]
    unsafe fn narrow<const N: usize>(floats: [f32; N]) -> [f16; N] {
        lanes(floats, narrow)
    }

    /// Stores past the caches; a later [`publish`](Vectors::publish) orders these stores before what follows it.
    ///
    /// # Safety
    /// The machine has the instructions; `to` is writable, and a multiple of [`LINE`], as is the size of the lanes.
    #[inline(always)]
    unsafe fn stream<T: Copy, const N: usize>(to: *mut [T; N], lanes: [T; N]) {
        // SAFETY: `to` is writable.
        unsafe { to.write_unaligned(lanes) }
    }

    /// Orders streaming stores before whatever follows.
    #[inline(always)]
    fn publish() {}
}

/// Bytes of a cache line: what a streaming store should fill at once.
pub(super) const LINE: usize = 64;

/// Any machine: what the target's own features give.
pub(super) struct Portable;

impl Vectors for Portable {
    fn compiled<E: Carried<A>, A: Accumulator, O: Operation<A>, const N: usize>() -> Kernel {
        kernel::fold::<Portable, E, A, O, N>
    }
}

/// One f16 as f32: exponents are rebased by an integer addition, subnormals by an exact subtraction.
#[inline(always)]
fn widen(half: f16) -> f32 {
    const REBASE: u32 = (127 - 15) << 23;
    const SMALLEST_NORMAL: u32 = 0x0400 << 13;
    const INFINITY: u32 = 0x7c00 << 13;
    let bits = u32::from(half.to_bits());
    let magnitude = (bits & 0x7fff) << 13;
    let normal = magnitude + REBASE;
    // As if the exponent were that of the smallest normal; without its leading one, what remains is the value.
    let subnormal = f32::from_bits(normal + (1 << 23)) - f32::from_bits(REBASE + (1 << 23));
    let finite = if magnitude < SMALLEST_NORMAL { subnormal.to_bits() } else { normal };
    let value = if magnitude >= INFINITY { normal + REBASE } else { finite };
    f32::from_bits(value | (bits & 0x8000) << 16)
}

/// One f32, not a NaN other than the canonical one, as the nearest f16, ties to even.
#[inline(always)]
fn narrow(float: f32) -> f16 {
    const REBASE: u32 = (127 - 15) << 23;
    const SMALLEST_NORMAL: u32 = REBASE + (1 << 23);
    const INFINITY: u32 = 0x7f80_0000;
    let bits = float.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    // Half a unit less one, and one more where the last kept bit is odd; a carry into the exponent is right, and what
    // would pass infinity stops there.
    let normal = (magnitude.wrapping_sub(REBASE).wrapping_add(0xfff + (magnitude >> 13 & 1)) >> 13).min(0x7c00);
    // The unit of 0.5 in f32 is the smallest subnormal of f16: the addition does the rounding.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let value = if magnitude < SMALLEST_NORMAL { subnormal } else { normal };
    let value = if magnitude > INFINITY { 0x7e00 } else { value };
    f16::from_bits((value | (bits >> 16 & 0x8000)) as u16)
}
