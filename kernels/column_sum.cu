// SPDX-License-Identifier: MPL-2.0
//
// The sum of each column of a row-major matrix, or that added to what is there: the gradient of a bias.
//
// Order: from zero, or from what is there, row after row, in float; rounded once to the type of `to`.
// Bytes moved: the size of each element once. The threads of a block take neighbouring columns, so that each row is
// read side by side.
// Launch: any shape; a thread has whole columns, so that their sums have one order, and 32 rows of them in flight. 64
// threads a block, since columns are few: more blocks keep more of a row in flight.
#include "lanes.h"

struct ColumnSum {
    const void* from; // rows x columns
    void* to;         // columns
    u64 rows;
    u64 columns;
    u32 accumulate; // not 0: is added to what is there
    u32 unused;
};

template <class To, class From>
DEVICE void column_sum(const ColumnSum& args) {
    each_one(args.columns, [&](u64 column) {
        const From* const from = (const From*)args.from + column;
        To& to = ((To*)args.to)[column];
        float sum = args.accumulate != 0 ? widen<float>(to) : 0.0f;
#pragma unroll 32
        for (u64 row = 0; row < args.rows; ++row) sum += widen<float>(from[row * args.columns]);
        narrow(to, sum);
    });
}

#define COLUMN_SUM(name, To, From)                                                                                     \
    KERNEL(name, ColumnSum) { column_sum<To, From>(args); }
COLUMN_SUM(column_sum_f32, float, float)
COLUMN_SUM(column_sum_f16, f16, f16)
COLUMN_SUM(column_sum_bf16, bf16, bf16)
COLUMN_SUM(column_sum_f16_to_f32, float, f16)
COLUMN_SUM(column_sum_bf16_to_f32, float, bf16)
