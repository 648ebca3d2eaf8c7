// SPDX-License-Identifier: MPL-2.0
//
// What the trainer's kernels share: their types of elements, and how a thread takes and gives a few elements at a time
// from buffers of different types.
//
// All of them compute in floats, element by element, and round once to the type that they store; a NaN is stored as the
// canonical one. Elements are dealt to blocks as folds deal them (part.h). A thread has LANES elements at a time, so
// many that the narrowest type fills 16 bytes; where a buffer is not aligned, and at the end, they go one by one.
#pragma once

#include "part.h"

#define FLOATS(X)                                                                                                      \
    X(f32, float)                                                                                                      \
    X(f16, f16)                                                                                                        \
    X(bf16, bf16)

// Elements from `first` on, up to LANES of them; `whole`: all LANES, and aligned in every buffer.
struct Few {
    u64 first;
    u32 count;
    bool whole;
};

// Moved 16 bytes at a time, or all at once where they are less.
template <class T, u32 LANES>
struct alignas(LANES * sizeof(T) < 16 ? LANES * sizeof(T) : 16) Lanes {
    T lane[LANES];
};

template <u32 LANES, class T>
DEVICE void take(float (&values)[LANES], const T* from, Few few) {
    Lanes<T, LANES> taken = {};
    if (few.whole) {
        taken = *(const Lanes<T, LANES>*)(from + few.first);
    } else {
#pragma unroll
        for (u32 lane = 0; lane < LANES; ++lane)
            if (lane < few.count) taken.lane[lane] = from[few.first + lane];
    }
#pragma unroll
    for (u32 lane = 0; lane < LANES; ++lane) values[lane] = widen<float>(taken.lane[lane]);
}

template <u32 LANES, class T>
DEVICE void give(T* to, Few few, const float (&values)[LANES]) {
    Lanes<T, LANES> given;
#pragma unroll
    for (u32 lane = 0; lane < LANES; ++lane) narrow(given.lane[lane], values[lane]);
    if (few.whole) {
        *(Lanes<T, LANES>*)(to + few.first) = given;
    } else {
#pragma unroll
        for (u32 lane = 0; lane < LANES; ++lane)
            if (lane < few.count) to[few.first + lane] = given.lane[lane];
    }
}

// Calls `body(few)` for all of this thread's elements; `aligned`: every buffer begins at a whole line.
template <u32 LANES, class Body>
DEVICE void each(u64 elements, bool aligned, Body body) {
    const Range mine = part_of_block({0, elements}, LANES);
    for (u64 i = mine.begin + (u64)thread() * LANES; i < mine.end; i += (u64)threads() * LANES) {
        const u32 count = mine.end - i < LANES ? (u32)(mine.end - i) : LANES;
        body(Few{i, count, aligned && count == LANES});
    }
}

// Calls `body(i)` for each of `count` things of which a thread has one at a time.
template <class Body>
DEVICE void each_one(u64 count, Body body) {
    for (u64 i = (u64)block() * threads() + thread(); i < count; i += (u64)blocks() * threads()) body(i);
}

