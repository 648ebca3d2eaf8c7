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

/// Asks for the cache line at an address to be fetched for writing, so that a later store finds it there. A hint: it waits
/// for nothing and changes nothing, wherever the address points.
///
/// In assembly, since what the compiler makes of its own hint to that end, where it may assume no more than x86-64, fetches
/// the line for reading: the store would have to take it from the other cores all the same. Processors without the
/// instruction take it for none.
#[inline]
pub(crate) fn prefetch_for_write<T>(address: *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch reads and writes nothing that a program can see, and faults at no address.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) address, options(readonly, nostack, preserves_flags));
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}
