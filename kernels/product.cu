// SPDX-License-Identifier: MPL-2.0
//
// Matrix products: to = left x right, or that added to what is there, for f32, f16 and bf16.
//
// Operands are given with the distances between their rows and between their columns, one of which is 1: so one kernel
// does all that a linear layer needs, x w^T forward, g w and g^T x backward. `to` is row-major without gaps, and is
// neither operand.
//
// Order: each element is a chain of its own, from +0, along the inner extent from its beginning to its end: sum =
// fused(left, right, sum), in float, each step rounded once. Then what is there is added, and the result rounded to the
// type. Nothing else has a say, no tile and no launch shape, so the bits are the same for each, and on every device.
//
// A block has a tile of 64 x 64 of the result. The parts of the operands that it needs, 32 of the inner extent at a
// time, go to shared memory, as floats, and each thread keeps a square of 8 x 8 sums in registers: per step of its sums
// it reads 16 floats for 64 multiplications. Elements beyond the matrices are zeros in shared memory, and are not
// stored.
// Bytes moved: each operand once for every 64 rows, or columns, of the result, and the result once (twice where it is
// added to). Shared memory: 17 KiB a block.
// Launch: any shape. A block of 64 threads has one square for each thread, and tiles are dealt to blocks in turn. With
// fewer threads a block goes through the tile several times; more help with loading only. Small blocks, since the
// products of a small model have few tiles, and several share a multiprocessor: while one waits for memory, others
// multiply.
#include "lanes.h"

constexpr u32 TILE = 64;
constexpr u32 DEPTH = 32;
constexpr u32 SIDE = 8;
constexpr u32 SQUARES = TILE / SIDE * (TILE / SIDE);
constexpr u32 PITCH = TILE + 4; // so that what threads store side by side lies in other banks, aligned to 16 bytes

struct Product {
    const void* left;  // rows x inner
    const void* right; // inner x columns
    void* to;          // rows x columns
    u64 rows;
    u64 columns;
    u64 inner;
    u64 left_row; // elements from a row to the next
    u64 left_column;
    u64 right_row;
    u64 right_column;
    u32 accumulate; // not 0: is added to what is there
    u32 unused;
};

// A part of an operand, as floats; aligned, so that threads read 16 bytes at once.
struct alignas(16) Tile {
    float at[DEPTH][PITCH];
};

// Loads at[k][i] = from[i * across_step + k * inner_step] for i below `across` and k below `deep`, and zeros elsewhere.
// A thread takes four elements that lie side by side, consecutive threads consecutive ones.
template <class T>
DEVICE void load(Tile& tile, const T* from, u64 across_step, u64 inner_step, u32 across, u32 deep) {
    constexpr u32 LANES = 4;
    const bool inner_first = inner_step == 1;
    const u64 step = inner_first ? across_step : inner_step;
    const bool aligned = ((u64)from | step * sizeof(T)) % (LANES * sizeof(T)) == 0;
    for (u32 part = thread(); part < TILE * DEPTH / LANES; part += threads()) {
        const u32 i = inner_first ? part / (DEPTH / LANES) : part % (TILE / LANES) * LANES;
        const u32 k = inner_first ? part % (DEPTH / LANES) * LANES : part / (TILE / LANES);
        const u32 left = inner_first ? deep - k : across - i;
        const u32 count = i >= across || k >= deep ? 0 : left < LANES ? left : LANES;
        float values[LANES];
        take(values, from + (i * across_step + k * inner_step), Few{0, count, aligned && count == LANES});
#pragma unroll
        for (u32 lane = 0; lane < LANES; ++lane)
            (inner_first ? tile.at[k + lane][i] : tile.at[k][i + lane]) = values[lane];
    }
}

template <class To, class T>
DEVICE void product_of_tile(const Product& args, Tile& left, Tile& right, u64 row, u64 column) {
    const u32 rows = args.rows - row < TILE ? (u32)(args.rows - row) : TILE;
    const u32 columns = args.columns - column < TILE ? (u32)(args.columns - column) : TILE;
    const T* const left_from = (const T*)args.left + row * args.left_row;
    const T* const right_from = (const T*)args.right + column * args.right_column;
    // All threads go through all of this, since all meet at its barriers.
    for (u32 round = 0; round < SQUARES; round += threads()) {
        const u32 square = round + thread();
        const u32 i0 = square / (TILE / SIDE) * SIDE, j0 = square % (TILE / SIDE) * SIDE;
        const bool mine = square < SQUARES && i0 < rows && j0 < columns;
        float sums[SIDE][SIDE] = {};
        for (u64 depth = 0; depth < args.inner; depth += DEPTH) {
            const u32 deep = args.inner - depth < DEPTH ? (u32)(args.inner - depth) : DEPTH;
#if !defined(PLANTED_EARLY_LOAD)
            sync_block(); // nobody reads the tiles before any more
#endif
            load(left, left_from + depth * args.left_column, args.left_row, args.left_column, rows, deep);
            load(right, right_from + depth * args.right_row, args.right_column, args.right_row, columns, deep);
#if !defined(PLANTED_EARLY_PRODUCT)
            sync_block(); // what others loaded is seen
#endif
            if (!mine) continue;
            for (u32 k = 0; k < deep; ++k) {
                const float* const from_left = &left.at[k][i0];
                const float* const from_right = &right.at[k][j0];
#pragma unroll
                for (u32 i = 0; i < SIDE; ++i)
#pragma unroll
                    for (u32 j = 0; j < SIDE; ++j) sums[i][j] = fused(from_left[i], from_right[j], sums[i][j]);
            }
        }
        if (!mine) continue;
        const u32 count = columns - j0 < SIDE ? columns - j0 : SIDE;
        const bool whole = count == SIDE && (to_line(args.to) | args.columns * sizeof(To) % 16) == 0;
#pragma unroll
        for (u32 i = 0; i < SIDE; ++i) {
            if (i0 + i >= rows) continue;
            const Few few = {(row + i0 + i) * args.columns + column + j0, count, whole};
            if (args.accumulate != 0) {
                float there[SIDE];
                take(there, (const To*)args.to, few);
#pragma unroll
                for (u32 j = 0; j < SIDE; ++j) sums[i][j] = there[j] + sums[i][j];
            }
            give((To*)args.to, few, sums[i]);
        }
    }
}

template <class To, class T>
DEVICE void product_of(const Product& args) {
    SHARED Tile left, right;
    const u64 across = (args.columns + TILE - 1) / TILE, tiles = (args.rows + TILE - 1) / TILE * across;
    for (u64 tile = block(); tile < tiles; tile += blocks())
        product_of_tile<To, T>(args, left, right, tile / across * TILE, tile % across * TILE);
}

#define PRODUCT(name, To, T)                                                                                           \
    FUSED_KERNEL(name, Product) { product_of<To, T>(args); }
PRODUCT(product_f32, float, float)
PRODUCT(product_f16, f16, f16)
PRODUCT(product_bf16, bf16, bf16)
PRODUCT(product_f16_to_f32, float, f16)
PRODUCT(product_bf16_to_f32, float, bf16)
