// SPDX-License-Identifier: MPL-2.0
//
// The sum of each column of a row-major matrix, or that added to what is there: the gradient of a bias. Where `output` is
// given, the matrix is the gradient of what a rectifier put out, and first becomes that of what it was given: zero
// wherever the output is not positive. (The rectifier's derivative is 1 where its output is positive, else 0, also at zero.)
//
// Order: from zero, or from what is there, row after row, in float; rounded once to the type of `to`.
// Bytes moved: the size of each element once; with an output three times.
// A sum of one order is one thread's, and would wait for memory again and again: so a block reads a tile of some columns
// and many rows side by side, each thread many elements at a time, before a thread for each column adds what the tile has
// of it.
// Launch: any shape; blocks of 256 threads, as many as there are tiles side by side: more blocks read more at a time.
#include "lanes.h"

struct ColumnSum {
    void* from;         // rows x columns
    const void* output; // as many; or null
    void* to;           // columns
    u64 rows;
    u64 columns;
    u32 accumulate; // not 0: is added to what is there
    u32 unused;
};

struct Columns {
    static constexpr u32 WIDTH = 16;   // columns
    static constexpr u32 HEIGHT = 512; // rows
    static constexpr u32 DEEP = 16;    // rows of a column that a thread reads at a time
    float value[HEIGHT * WIDTH];
};

// Reads `height` rows of a tile, of `wide` columns of which there are `width`, and makes zeros of what the rectifier held.
template <class From>
DEVICE void read(Columns& tile, From* from, const From* output, u64 columns, u32 height, u32 wide, u32 width) {
    const u32 column = thread() % wide, team = threads() / wide, own = thread() / wide;
    if (column >= width || own >= team) return;
    for (u32 first = own; first < height; first += Columns::DEEP * team) {
        float few[Columns::DEEP], outputs[Columns::DEEP];
#pragma unroll
        for (u32 i = 0; i < Columns::DEEP; ++i) {
            const u32 row = first + i * team;
            few[i] = row < height ? widen<float>(from[row * columns + column]) : 0.0f;
            outputs[i] = output != nullptr && row < height ? widen<float>(output[row * columns + column]) : 1.0f;
        }
#pragma unroll
        for (u32 i = 0; i < Columns::DEEP; ++i) {
            const u32 row = first + i * team;
            if (row >= height) continue;
            if (output != nullptr) {
                few[i] = outputs[i] > 0.0f ? few[i] : 0.0f;
                narrow(from[row * columns + column], few[i]);
            }
            tile.value[row * wide + column] = few[i];
        }
    }
}

template <class To, class From>
DEVICE void column_sum(const ColumnSum& args, Columns& tile) {
    const u32 wide = threads() < Columns::WIDTH ? 1 : Columns::WIDTH;
    for (u64 left = (u64)block() * wide; left < args.columns; left += (u64)blocks() * wide) {
        const u32 width = args.columns - left < wide ? (u32)(args.columns - left) : wide;
        From* const from = (From*)args.from + left;
        const From* const output = args.output != nullptr ? (const From*)args.output + left : nullptr;
        To* const to = (To*)args.to + left + thread();
        const bool adds = thread() < width;
        float sum = adds && args.accumulate != 0 ? widen<float>(*to) : 0.0f;
        for (u64 top = 0; top < args.rows; top += Columns::HEIGHT) {
            const u32 height = args.rows - top < Columns::HEIGHT ? (u32)(args.rows - top) : Columns::HEIGHT;
            const u64 before = top * args.columns;
            const From* const outputs = output != nullptr ? output + before : nullptr;
            read(tile, from + before, outputs, args.columns, height, wide, width);
            sync_block();
            if (adds) {
#pragma unroll 16
                for (u32 row = 0; row < height; ++row) sum += tile.value[row * wide + thread()];
            }
            sync_block();
        }
        if (adds) narrow(*to, sum);
    }
}

#define COLUMN_SUM(name, To, From)                                                                                     \
    KERNEL(name, ColumnSum) {                                                                                          \
        SHARED Columns tile;                                                                                           \
        column_sum<To, From>(args, tile);                                                                              \
    }
COLUMN_SUM(column_sum_f32, float, float)
COLUMN_SUM(column_sum_f16, f16, f16)
COLUMN_SUM(column_sum_bf16, bf16, bf16)
COLUMN_SUM(column_sum_f16_to_f32, float, f16)
COLUMN_SUM(column_sum_bf16_to_f32, float, bf16)
