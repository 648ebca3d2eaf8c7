// SPDX-License-Identifier: MPL-2.0
//! Which instruction sets a fold is compiled for, which of them this machine has, and the choice, made once.

use std::fmt;
use std::sync::LazyLock;

/// An instruction set that every fold is compiled for. The bits of a result do not depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Instructions {
    /// What every machine of the architecture has: SSE2 on x86-64, NEON on aarch64.
    Portable,
    /// 256-bit vectors and the conversions of f16 (F16C), x86-64.
    Avx2,
    /// 512-bit vectors (AVX-512 F, BW, DQ and VL), x86-64.
    Avx512,
}

impl Instructions {
    /// All of them, the narrowest first.
    pub const ALL: [Instructions; 3] = [Instructions::Portable, Instructions::Avx2, Instructions::Avx512];

    /// The widest that this machine has.
    pub fn best() -> Self {
        static BEST: LazyLock<Instructions> = LazyLock::new(|| {
            Instructions::ALL.into_iter().rfind(|set| set.is_available()).unwrap_or(Instructions::Portable)
        });
        *BEST
    }

    /// Whether this machine has it.
    pub fn is_available(self) -> bool {
        match self {
            Instructions::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c"),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Instructions::Avx2 | Instructions::Avx512 => false,
        }
    }

    /// The name: `portable`, `AVX2`, `AVX-512`.
    pub const fn name(self) -> &'static str {
        match self {
            Instructions::Portable => "portable",
            Instructions::Avx2 => "AVX2",
            Instructions::Avx512 => "AVX-512",
        }
    }
}

impl fmt::Display for Instructions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
