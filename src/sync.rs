// SPDX-License-Identifier: MPL-2.0
//! The one place that decides where atomics come from: the standard library, or loom where its model checker runs.
//! Every word that ranks share goes through these names.
//!
//! The library itself never uses loom: `tests/loom` compiles this file and those of the protocols a second time, with
//! `--cfg annulus_loom`. A plain `--cfg loom` belongs to the programs that use this library, for models of their own.

#![allow(unsafe_code)] // one hint to the processor

#[cfg(not(annulus_loom))]
pub(crate) use std::{
    cell::UnsafeCell,
    hint::spin_loop,
    sync::atomic::{AtomicU32, AtomicU64, Ordering, fence},
    thread::yield_now,
};

#[cfg(annulus_loom)]
pub(crate) use loom::{
    cell::UnsafeCell,
    hint::spin_loop,
    sync::atomic::{AtomicU32, AtomicU64, Ordering, fence},
    thread::yield_now,
};

/// Asks for the cache line of `word` to be fetched for writing, so that a later store finds it there. A hint: it waits
/// for nothing and changes nothing.
#[inline]
pub(crate) fn prefetch_for_write<T>(word: &T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        // SAFETY: a prefetch reads and writes nothing that a program can see, and faults at no address.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(std::ptr::from_ref(word).cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = word;
}
