// SPDX-License-Identifier: MPL-2.0
//
// Dynamic loss scaling. Gradients of 16 bits are small; the loss is multiplied by a scale before the backward pass, and
// they are divided by it when they are used. A scale too large makes some of them infinite: then the step is skipped,
// and the scale halved; after `interval` steps without that, it is doubled.
//
// A step, on one stream: cross_entropy_backward_* multiplies by the scale; find_overflow_* looks at every gradient,
// after they were reduced among ranks, which so find the same; sgd_* or adamw_* divides by the scale, or changes
// nothing; update_scale ends the step. All of them are given the same Scaling, which is {scale, 0, 0, 0} at first.
// Scales stay between 1 and 2^24, so that products with powers of two are exact and their quotients too.
//
// Bytes moved: find_overflow_* the size of each element, once.
// Launch: find_overflow_* any shape, as the fold; its word is only ever set, to the same value, so launches may share
// it, in any order. update_scale: one thread.
#include "scaling.h"

struct FindOverflow {
    const void* from;
    Scaling* scaling; // whose overflow becomes 1 where an element is infinite or NaN, or stays
    u64 elements;
};

struct UpdateScale {
    Scaling* scaling;
    u32 interval; // steps without an overflow after which the scale grows
    u32 unused;
};

template <class T>
DEVICE void find_overflow(const FindOverflow& args) {
    constexpr u32 LANES = Line<T>::LANES;
    const T* const from = (const T*)args.from;
    u32 beyond = 0;
    each<LANES>(args.elements, to_line(from) == 0, [&](Few few) {
        float values[LANES];
        take(values, from, few);
        // Infinity and NaN minus themselves are no number.
#pragma unroll
        for (u32 lane = 0; lane < LANES; ++lane) beyond |= values[lane] - values[lane] == 0.0f ? 0 : 1;
    });
    if (beyond != 0) store_relaxed_system(&args.scaling->overflow, 1);
}

#define FIND_OVERFLOW(name, T)                                                                                         \
    KERNEL(find_overflow_##name, FindOverflow) { find_overflow<T>(args); }
FLOATS(FIND_OVERFLOW)

KERNEL(update_scale, UpdateScale) {
    if (block() != 0 || thread() != 0) return;
    Scaling scaling = *args.scaling;
    scaling.steps += 1;
    if (scaling.overflow != 0) {
        scaling.scale = scaling.scale * 0.5f < 1.0f ? 1.0f : scaling.scale * 0.5f;
        scaling.skipped += 1;
        scaling.steps = 0;
    } else if (scaling.steps >= args.interval) {
        scaling.scale = scaling.scale * 2.0f > 0x1p24f ? 0x1p24f : scaling.scale * 2.0f;
        scaling.steps = 0;
    }
    scaling.overflow = 0;
    *args.scaling = scaling;
}
