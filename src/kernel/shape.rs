// SPDX-License-Identifier: MPL-2.0
//! Launch shapes: how many blocks of how many threads. Each kernel's file in `kernels/` says why.

use super::Kernel;

/// The most ranks among which kernels meet.
pub const RANKS: usize = 16;

/// Flags that a rank has in a program.
pub const FLAGS: usize = 8;

/// The most blocks of a collective.
pub const BLOCKS: usize = 64;

/// Bytes up to which one-shot all-reduce stages what it reads, wherever that lies (`kernels/one_shot.cu`).
pub const ALWAYS_STAGED: usize = 4 << 10;

/// Threads of a block where there is little to divide: of products, rows and columns.
const SMALL: u32 = 64;

/// Rows, and columns, of a product that a block has at a time.
const TILE: u64 = 64;

/// The same where there are few.
const SMALL_TILE: u64 = 32;

/// Columns that a block sums at a time (`kernels/column_sum.cu`).
const COLUMNS: u64 = 16;

/// Blocks, and threads of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Blocks of the grid.
    pub blocks: u32,
    /// Threads of a block.
    pub threads: u32,
}

impl Shape {
    /// The shape for a kernel of which each rank works through `bytes` bytes, where `resident` blocks of 256 threads
    /// have room on the device for this launch. All ranks must choose the same: from what they agreed on, never from
    /// what one of them finds.
    pub fn of(kernel: Kernel, bytes: u64, resident: u32) -> Self {
        const THREADS: u32 = 256;
        // Bytes that a thread has at the least, before a block more is worth it: lines of 16, or what one packet carries.
        let each = match kernel {
            Kernel::Barrier | Kernel::Flags | Kernel::Relay => return Shape { blocks: 1, threads: 32 },
            Kernel::UpdateScale | Kernel::AdamWBegin => return Shape { blocks: 1, threads: 1 },
            Kernel::LowLatency(_) => 8,
            _ if !kernel.is_collective() => 4 * 16,
            Kernel::OneShot(_) => 4 * 16,
            _ => 8 * 16,
        };
        let wanted = bytes.div_ceil(u64::from(THREADS) * each).max(1);
        let most = if kernel.is_collective() { resident.min(BLOCKS as u32) } else { resident };
        Shape { blocks: wanted.min(u64::from(most.max(1))) as u32, threads: THREADS }
    }

    /// The shape for a kernel of which each thread has whole rows, of which there are `count`.
    pub fn of_each(count: u64, resident: u32) -> Self {
        Shape::of_units(count.div_ceil(u64::from(SMALL)), resident)
    }

    /// The shape for sums of so many columns, where `resident` blocks of 256 threads have room.
    pub fn of_columns(columns: u64, resident: u32) -> Self {
        Shape { threads: 256, ..Shape::of_units(columns.div_ceil(COLUMNS), resident) }
    }

    /// The shape for a kernel of which each block of 64 threads has whole rows, of which there are `rows`.
    pub fn of_rows(rows: u64, resident: u32) -> Self {
        Shape::of_units(rows, resident)
    }

    /// The shape for a product with so many rows and columns, where `resident` blocks of 64 threads have room, and
    /// whether its tiles are small: where large ones would leave more than three quarters of that room empty.
    pub fn of_product(rows: u64, columns: u64, resident: u32) -> (Self, bool) {
        let tiles = |side| rows.div_ceil(side).saturating_mul(columns.div_ceil(side));
        let are_small = tiles(TILE) < u64::from(resident) / 4;
        (Shape::of_units(tiles(if are_small { SMALL_TILE } else { TILE }), resident), are_small)
    }

    /// A block of [`SMALL`] threads for each unit, as far as there is room.
    fn of_units(units: u64, resident: u32) -> Self {
        Shape { blocks: units.clamp(1, u64::from(resident.max(1))) as u32, threads: SMALL }
    }
}
