// SPDX-License-Identifier: MPL-2.0
//! AVX2 and AVX-512: conversions of f16, streaming stores, and the kernels compiled for them.
#![allow(unsafe_code)]

use core::arch::x86_64::*;
use std::mem::transmute_copy;

use half::f16;

use super::arithmetic::{Accumulator, Carried, Operation};
use super::kernel::{self, Kernel};
use super::vectors::Vectors;
use super::{Destination, Source, Stores};

/// 256-bit vectors, with the conversions of f16.
pub(super) struct Avx2;

/// 512-bit vectors, of bytes and words as well as doublewords.
pub(super) struct Avx512;

/// A kernel's wrapper with the features, and by how many lanes, through which types and by which intrinsics f16 is
/// converted and lines are streamed.
macro_rules! instruction_set {
    (
        $set:ident, $features:literal;
        $lanes:literal lanes: $halves:ident, $floats:ident, $widen:ident, $narrow:ident;
        stream $whole:ident: $stream:ident
    ) => {
        impl Vectors for $set {
            fn compiled<E: Carried<A>, A: Accumulator, O: Operation<A>, const N: usize>() -> Kernel {
                #[target_feature(enable = $features)]
                unsafe fn fold<E: Carried<A>, A: Accumulator, O: Operation<A>, const N: usize>(
                    from: &[Source],
                    to: &[Destination],
                    len: usize,
                    stores: Stores,
                    operand: u64,
                ) {
                    // SAFETY: the caller's promise; the instructions of the set are those of this function.
                    unsafe { kernel::fold::<$set, E, A, O, N>(from, to, len, stores, operand) }
                }
                fold::<E, A, O, N>
            }

            #[inline(always)]
            unsafe fn widen<const N: usize>(halves: [f16; N]) -> [f32; N] {
                let mut floats = [0.0; N];
                for at in (0..N).step_by($lanes) {
                    // SAFETY: the caller promises the instructions; types that are cast have one size, and any bits.
                    unsafe {
                        let part = transmute_copy::<[f16; $lanes], $halves>(&part(&halves, at));
                        put(transmute_copy::<$floats, [f32; $lanes]>(&$widen(part)), &mut floats, at);
                    }
                }
                floats
            }

            #[inline(always)]
            unsafe fn narrow<const N: usize>(floats: [f32; N]) -> [f16; N] {
                let mut halves = [f16::ZERO; N];
                for at in (0..N).step_by($lanes) {
                    // SAFETY: as in `widen`.
                    unsafe {
                        let part = transmute_copy::<[f32; $lanes], $floats>(&part(&floats, at));
                        let part = $narrow::<_MM_FROUND_TO_NEAREST_INT>(part);
                        put(transmute_copy::<$halves, [f16; $lanes]>(&part), &mut halves, at);
                    }
                }
                halves
            }

            #[inline(always)]
            unsafe fn stream<T: Copy, const N: usize>(to: *mut [T; N], lanes: [T; N]) {
                for i in 0..size_of::<[T; N]>() / size_of::<$whole>() {
                    // SAFETY: the lanes are whole lines of plain data, and so is what is behind `to`, at their start.
                    unsafe {
                        let part = (&raw const lanes).cast::<$whole>().add(i).read_unaligned();
                        $stream(to.cast::<$whole>().add(i), part);
                    }
                }
            }

            #[inline(always)]
            fn publish() {
                // SAFETY: every machine of this architecture has SSE.
                unsafe { _mm_sfence() }
            }
        }
    };
}

instruction_set! {
    Avx2, "avx2,f16c";
    8 lanes: __m128i, __m256, _mm256_cvtph_ps, _mm256_cvtps_ph;
    stream __m256i: _mm256_stream_si256
}

instruction_set! {
    Avx512, "avx512f,avx512bw,avx512dq,avx512vl";
    16 lanes: __m256i, __m512, _mm512_cvtph_ps, _mm512_cvtps_ph;
    stream __m512i: _mm512_stream_si512
}

/// The `C` lanes from `at`, as many as there are, then zeros.
///
/// A function, as is [`put`]: a closure around the conversions could be compiled without their instructions.
#[inline(always)]
fn part<T: Copy + Default, const C: usize, const N: usize>(from: &[T; N], at: usize) -> [T; C] {
    let mut part = [T::default(); C];
    let len = C.min(N - at);
    part[..len].copy_from_slice(&from[at..at + len]);
    part
}

/// Puts lanes back to `at`, as many as there are.
#[inline(always)]
fn put<T: Copy, const C: usize, const N: usize>(part: [T; C], to: &mut [T; N], at: usize) {
    let len = C.min(N - at);
    to[at..at + len].copy_from_slice(&part[..len]);
}
