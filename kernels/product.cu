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
// A block has a tile of the result, of 64 x 64 elements, or of 32 x 32 where there are few. The parts of the operands that
// it needs, some of the inner extent at a time, go to shared memory, as floats, and each thread keeps a square of 8 x 8
// sums, or of 4 x 4, in registers: per step of its sums it reads 16 floats for 64 multiplications, or 8 for 16. While it
// multiplies, what it will put into shared memory next is on its way to its registers. Elements beyond the matrices are
// zeros in shared memory, and are not stored.
// Bytes moved: each operand once for every 64 rows, or columns, of the result, and the result once (twice where it is
// added to); of small tiles 32. Shared memory: 12 KiB a block.
// Launch: up to 128 threads, which have more registers than those of larger blocks. A block of 64 threads has one square
// for each, and tiles are dealt to blocks in turn. With fewer threads a block goes through the tile several times; more
// help with loading only. Small blocks, since the products of a small model have few tiles, and several share a
// multiprocessor: while one waits for memory, others multiply.
//
// On the host tiles are large, whatever is asked for, and nothing is loaded ahead: there nothing waits.
#include "lanes.h"

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
    u32 small;      // not 0: tiles are small
};

// How a block works through a tile, of whose sums a thread has a square with this side.
template <u32 SQUARE>
struct Tiling {
    static constexpr u32 SIDE = SQUARE;
    static constexpr u32 WORKERS = 64; // squares
    static constexpr u32 TILE = 8 * SIDE;
    // Of the inner extent, at a time: so much that a thread has 512 steps between two barriers.
    static constexpr u32 DEPTH = SIDE_BY_SIDE ? 32 : 512 / (SIDE * SIDE);
    // Whether the next part is loaded while this one is multiplied.
    static constexpr bool AHEAD = !SIDE_BY_SIDE;
};

// A part of an operand, as floats; aligned, so that threads read 16 bytes at once.
//
// Where lines go along the inner extent, those of a warp whose k differ by a multiple of 4 would be stored to the same
// bank; so a row's columns are permuted by its k, four by four, which stay side by side. A host has no banks.
template <class Tiling>
struct alignas(16) Tile {
    float at[Tiling::DEPTH][Tiling::TILE];

    DEVICE static u32 permuted(u32 k, u32 column) {
        constexpr u32 SPREAD = SIDE_BY_SIDE ? 0 : 32 / Tiling::DEPTH;
        return column ^ (k / 4 * SPREAD % 8 * 4);
    }
};

// An operand as a block reads it, for one tile: at[i * across_step + k * inner_step] for i below `across` and k below
// `inner`, one of the steps being 1.
template <class T>
struct Operand {
    const T* at;
    u64 across_step;
    u64 inner_step;
    u64 inner;
    u32 across;
    bool inner_first; // lines go along the inner extent
    bool aligned;     // so do all of them lie
};

// That which begins at row, or column, number `first`.
template <class T>
DEVICE Operand<T> operand(const void* from, u64 first, u64 across_step, u64 inner_step, u32 across, u64 inner) {
    const T* const at = (const T*)from + first * across_step;
    const bool inner_first = inner_step == 1;
    const u64 step = inner_first ? across_step : inner_step;
    return {at, across_step, inner_step, inner, across, inner_first, ((u64)at | step * sizeof(T)) % sizeof(Line<T>) == 0};
}

// What a thread carries from memory to a tile at a time: lines of 16 bytes, consecutive threads consecutive ones.
template <class Tiling, class T>
struct Carriage {
    static constexpr u32 LANES = Line<T>::LANES;
    static constexpr u32 LINES = Tiling::TILE * Tiling::DEPTH / LANES; // of the tile
    static constexpr u32 COUNT = LINES / Tiling::WORKERS;
    static constexpr u32 DEEP = Tiling::DEPTH / LANES, ACROSS = Tiling::TILE / LANES;
    Raw<Line<T>> line[COUNT];

    // Where line number `which` of a tile begins.
    DEVICE static u32 across_of(const Operand<T>& from, u32 which) {
        return from.inner_first ? which / DEEP : which % ACROSS * LANES;
    }
    DEVICE static u32 inner_of(const Operand<T>& from, u32 which) {
        return from.inner_first ? which % DEEP * LANES : which / ACROSS;
    }

    // Loads those from number `first` on, of the part that begins at `depth`.
    DEVICE void load(const Operand<T>& from, u64 depth, u32 first) {
        first = recomputed(first);
        if (threads() == Tiling::WORKERS && from.aligned && from.across == Tiling::TILE &&
            from.inner - depth >= Tiling::DEPTH) {
            const u64 begin = across_of(from, first) * from.across_step + (depth + inner_of(from, first)) * from.inner_step;
            const u64 step = from.inner_first ? Tiling::WORKERS / DEEP * from.across_step
                                              : Tiling::WORKERS / ACROSS * from.inner_step;
#pragma unroll
            for (u32 n = 0; n < COUNT; ++n) take(line[n], *(const Raw<Line<T>>*)(from.at + begin + n * step));
            return;
        }
#pragma unroll
        for (u32 n = 0; n < COUNT; ++n) {
            line[n] = {};
            const u32 which = first + n * threads(), i = across_of(from, which), k = inner_of(from, which);
            if (which >= LINES || i >= from.across || depth + k >= from.inner) continue;
            const T* const at = from.at + i * from.across_step + (depth + k) * from.inner_step;
            const u64 left = from.inner_first ? from.inner - depth - k : from.across - i;
            if (from.aligned && left >= LANES) {
                take(line[n], *(const Raw<Line<T>>*)at);
            } else {
                Line<T> elements = {};
#pragma unroll
                for (u32 lane = 0; lane < LANES; ++lane)
                    if (lane < left) elements.lane[lane] = at[lane];
                take(line[n], raw(elements));
            }
        }
    }

    DEVICE void put(const Operand<T>& from, Tile<Tiling>& tile, u32 first) const {
        first = recomputed(first);
#pragma unroll
        for (u32 n = 0; n < COUNT; ++n) {
            const u32 which = first + n * threads(), i = across_of(from, which), k = inner_of(from, which);
            if (which >= LINES) continue;
            const Line<T> elements = formed(line[n]);
#pragma unroll
            for (u32 lane = 0; lane < LANES; ++lane) {
                float& to = from.inner_first ? tile.at[k + lane][tile.permuted(k + lane, i)]
                                             : tile.at[k][tile.permuted(k, i + lane)];
                to = widen<float>(elements.lane[lane]);
            }
        }
    }
};

// The steps of a thread's sums that tiles have, from `k` on, as many as there are.
template <class Tiling, u32 STEPS>
DEVICE void multiply(const Tile<Tiling>& left, const Tile<Tiling>& right, u32 k, u32 i0, u32 j0,
                     float (&sums)[Tiling::SIDE][Tiling::SIDE]) {
    constexpr u32 SIDE = Tiling::SIDE;
#pragma unroll
    for (u32 step = 0; step < STEPS; ++step) {
        float from_left[SIDE], from_right[SIDE];
#pragma unroll
        for (u32 at = 0; at < SIDE; at += 4) {
            memcpy(from_left + at, &left.at[k + step][left.permuted(k, i0 + at)], 4 * sizeof(float));
            memcpy(from_right + at, &right.at[k + step][right.permuted(k, j0 + at)], 4 * sizeof(float));
        }
#pragma unroll
        for (u32 i = 0; i < SIDE; ++i)
#pragma unroll
            for (u32 j = 0; j < SIDE; ++j) sums[i][j] = fused(from_left[i], from_right[j], sums[i][j]);
    }
}

template <class Tiling, class To, class T>
DEVICE void product_of_tile(const Product& args, Tile<Tiling>& left, Tile<Tiling>& right, u64 row, u64 column) {
    typedef Carriage<Tiling, T> Carriage;
    constexpr u32 SIDE = Tiling::SIDE, TILE = Tiling::TILE, DEPTH = Tiling::DEPTH;
    const u32 rows = args.rows - row < TILE ? (u32)(args.rows - row) : TILE;
    const u32 columns = args.columns - column < TILE ? (u32)(args.columns - column) : TILE;
    const auto from_left = operand<T>(args.left, row, args.left_row, args.left_column, rows, args.inner);
    const auto from_right = operand<T>(args.right, column, args.right_column, args.right_row, columns, args.inner);
    // All threads go through all of this, since all meet at its barriers.
    for (u32 round = 0; round < Tiling::WORKERS; round += threads()) {
        const u32 square = round + thread();
        const u32 i0 = square / (TILE / SIDE) * SIDE, j0 = square % (TILE / SIDE) * SIDE;
        const bool mine = square < Tiling::WORKERS && i0 < rows && j0 < columns;
        float sums[SIDE][SIDE] = {};
        Carriage to_left, to_right;
        if (Tiling::AHEAD) {
            to_left.load(from_left, 0, thread());
            to_right.load(from_right, 0, thread());
        }
        for (u64 depth = 0; depth < args.inner; depth += DEPTH) {
            const u32 deep = args.inner - depth < DEPTH ? (u32)(args.inner - depth) : DEPTH;
#if !defined(PLANTED_EARLY_LOAD)
            sync_block(); // nobody reads the tiles before any more
#endif
#pragma unroll 1
            for (u32 first = thread(); first < Carriage::LINES; first += Carriage::COUNT * threads()) {
                if (!Tiling::AHEAD || first != thread()) {
                    to_left.load(from_left, depth, first);
                    to_right.load(from_right, depth, first);
                }
                to_left.put(from_left, left, first);
                to_right.put(from_right, right, first);
            }
#if !defined(PLANTED_EARLY_PRODUCT)
            sync_block(); // what others put there is seen
#endif
            if (Tiling::AHEAD && depth + DEPTH < args.inner) {
                to_left.load(from_left, depth + DEPTH, thread());
                to_right.load(from_right, depth + DEPTH, thread());
            }
            if (!mine) continue;
            u32 k = 0;
#pragma unroll 2
            for (; deep - k >= 4; k += 4) multiply<Tiling, 4>(left, right, k, i0, j0, sums);
#pragma unroll 1
            for (; k < deep; ++k) multiply<Tiling, 1>(left, right, k, i0, j0, sums);
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

template <class Tiling, class To, class T>
DEVICE void product_of_tiles(const Product& args) {
    SHARED Tile<Tiling> left, right;
    constexpr u32 TILE = Tiling::TILE;
    const u64 across = (args.columns + TILE - 1) / TILE, tiles = (args.rows + TILE - 1) / TILE * across;
    for (u64 tile = block(); tile < tiles; tile += blocks())
        product_of_tile<Tiling, To, T>(args, left, right, tile / across * TILE, tile % across * TILE);
}

template <class To, class T>
DEVICE void product_of(const Product& args) {
    if constexpr (!SIDE_BY_SIDE) {
        if (args.small != 0) return product_of_tiles<Tiling<4>, To, T>(args);
    }
    product_of_tiles<Tiling<8>, To, T>(args);
}

#define PRODUCT(name, To, T)                                                                                           \
    FUSED_KERNEL(name, Product) { product_of<To, T>(args); }
PRODUCT(product_f32, float, float)
PRODUCT(product_f16, f16, f16)
PRODUCT(product_bf16, bf16, bf16)
PRODUCT(product_f16_to_f32, float, f16)
PRODUCT(product_bf16_to_f32, float, bf16)
