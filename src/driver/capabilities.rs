// SPDX-License-Identifier: MPL-2.0
//! What a device is, as data.

use std::fmt;

/// Which driver a device belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Platform {
    /// Executed on the CPU by the library itself. What it shows is never a result of a GPU.
    Simulated,
    /// NVIDIA's.
    Cuda,
    /// AMD's.
    Hip,
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Platform::Simulated => "simulated",
            Platform::Cuda => "CUDA",
            Platform::Hip => "HIP",
        })
    }
}

/// What a device is and has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The driver it belongs to.
    pub platform: Platform,
    /// Its number on that platform, from 0 on.
    pub index: usize,
    /// The same for every process of this host that sees the device, under whatever number it does.
    pub identity: [u8; 16],
    /// Its maker's name for it.
    pub name: String,
    /// How many multiprocessors it has.
    pub multiprocessors: u32,
    /// Threads of a warp.
    pub warp: u32,
    /// The most threads of one block.
    pub threads_per_block: u32,
    /// The most dynamic shared memory of one block, in bytes.
    pub shared_per_block: u32,
    /// Its memory, in bytes.
    pub memory: u64,
}
