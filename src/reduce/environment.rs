// SPDX-License-Identifier: MPL-2.0
//! The floating-point environment that folds run in: round to nearest even, subnormals kept, no traps.
//!
//! A program may have set flush-to-zero, denormals-are-zero or another rounding mode for its own work. The bits of a
//! collective must not depend on that, on any rank, so a fold sets the default and restores what it found.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use std::arch::asm;

/// While it lives, this thread computes in the default environment.
pub(super) struct DefaultEnvironment {
    /// The control register that was found, if it was not the default.
    #[cfg(target_arch = "x86_64")]
    found: Option<u32>,
}

#[cfg(target_arch = "x86_64")]
impl DefaultEnvironment {
    /// MXCSR with all exceptions masked and everything else zero.
    const DEFAULT: u32 = 0x1f80;
    /// The bits that only record which exceptions have occurred.
    const STICKY: u32 = 0x003f;

    #[inline(always)]
    pub(super) fn enter() -> Self {
        let mut found = 0u32;
        // SAFETY: stores MXCSR, four bytes, to `found`.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut found, options(nostack, preserves_flags)) };
        // Writing the register costs several times what reading it does, and is next to never needed.
        if found & !Self::STICKY == Self::DEFAULT {
            return DefaultEnvironment { found: None };
        }
        set(Self::DEFAULT);
        DefaultEnvironment { found: Some(found) }
    }
}

#[cfg(target_arch = "x86_64")]
impl Drop for DefaultEnvironment {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(found) = self.found {
            set(found);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[cold]
fn set(control: u32) {
    // SAFETY: `control` is the default or a value that the register held, so no reserved bit is set. The arithmetic
    // between two calls is behind a function pointer, which the compiler can move nothing out of.
    unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const control, options(nostack, preserves_flags)) };
}

/// Elsewhere the environment is left as it is: the default, unless the program changed it.
#[cfg(not(target_arch = "x86_64"))]
impl DefaultEnvironment {
    #[inline(always)]
    pub(super) fn enter() -> Self {
        DefaultEnvironment {}
    }
}
