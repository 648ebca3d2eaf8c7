// SPDX-License-Identifier: MPL-2.0
//
// The sum of each block's part of some numbers: first of each warp, by its lanes, then of the block, in shared memory.
//
// Order: that of a tree, which depends on the launch shape and on the width of a warp, and on nothing else.
#include "dialect.h"

struct Sum {
    const float* from;
    float* to; // one for each block
    u64 count;
    u32 faulty; // 1: without the barrier; 2: reads one number too many; 3: takes a warp to have 64 threads
    u32 unused;
};

DEVICE float sum_of_warp(float value, u32 lanes) {
    for (u32 step = lanes / 2; step > 0; step /= 2) value += from_lane(value, (lane() + step) % lanes);
    return value;
}

// At most 1024 threads, in whole warps.
KERNEL(example_sum, Sum) {
    SHARED float sums[32];
    const u64 count = args.count + (args.faulty == 2);
    float sum = 0.0f;
    for (u64 i = block() * threads() + thread(); i < count; i += blocks() * threads()) sum += args.from[i];
    sum = sum_of_warp(sum, args.faulty == 3 ? 64 : warp());
    if (lane() == 0) sums[thread() / warp()] = sum;
    if (args.faulty != 1) sync_block();
    if (thread() != 0) return;
    float all = 0.0f;
    for (u32 i = 0; i < threads() / warp(); ++i) all += sums[i];
    args.to[block()] = all;
}
