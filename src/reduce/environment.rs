// SPDX-License-Identifier: MPL-2.0
//! The floating-point environment that folds run in: round to nearest even, subnormals kept, no traps.
//!
//! A program may have set flush-to-zero, denormals-are-zero or another rounding mode for its own work. The bits of a
//! collective must not depend on that, on any rank, so a fold sets the default and restores what it found. So does
//! whoever calls a user's operator, which runs on whatever thread moves its call on.
#![allow(unsafe_code)]

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use std::arch::asm;

/// While it lives, this thread computes in the default environment.
pub(crate) struct DefaultEnvironment {
    /// The control register that was found, if it was not the default.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    found: Option<Control>,
}

#[cfg(target_arch = "x86_64")]
type Control = u32;

#[cfg(target_arch = "aarch64")]
type Control = u64;

#[cfg(target_arch = "x86_64")]
impl DefaultEnvironment {
    /// MXCSR with all exceptions masked and everything else zero.
    const DEFAULT: Control = 0x1f80;
    /// The bits that only record which exceptions have occurred.
    const STICKY: Control = 0x003f;
}

#[cfg(target_arch = "aarch64")]
impl DefaultEnvironment {
    /// FPCR with no exception trapped and everything else zero.
    const DEFAULT: Control = 0;
    /// Which exceptions have occurred is in a register of its own.
    const STICKY: Control = 0;
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
impl DefaultEnvironment {
    #[inline(always)]
    pub(crate) fn enter() -> Self {
        let found = control();
        // Writing the register costs several times what reading it does, and is next to never needed.
        if found & !Self::STICKY == Self::DEFAULT {
            return DefaultEnvironment { found: None };
        }
        set(Self::DEFAULT);
        DefaultEnvironment { found: Some(found) }
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
impl Drop for DefaultEnvironment {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(found) = self.found {
            set(found);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn control() -> Control {
    let mut found = 0;
    // SAFETY: stores MXCSR, four bytes, to `found`.
    unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut found, options(nostack, preserves_flags)) };
    found
}

#[cfg(target_arch = "aarch64")]
#[inline(always)]
fn control() -> Control {
    let found;
    // SAFETY: reads FPCR, which every program may.
    unsafe { asm!("mrs {}, fpcr", out(reg) found, options(nostack, preserves_flags)) };
    found
}

#[cfg(target_arch = "x86_64")]
#[cold]
fn set(control: Control) {
    // SAFETY: `control` is the default or a value that the register held, so no reserved bit is set. The arithmetic
    // between two calls is behind a function pointer, which the compiler can move nothing out of.
    unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const control, options(nostack, preserves_flags)) };
}

#[cfg(target_arch = "aarch64")]
#[cold]
fn set(control: Control) {
    // SAFETY: as on x86-64.
    unsafe { asm!("msr fpcr, {}", in(reg) control, options(nostack, preserves_flags)) };
}

/// Elsewhere the environment is left as it is: the default, unless the program changed it.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
impl DefaultEnvironment {
    #[inline(always)]
    pub(crate) fn enter() -> Self {
        DefaultEnvironment {}
    }
}
