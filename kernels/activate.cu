// SPDX-License-Identifier: MPL-2.0
//
// Bias and activation of a layer: to = activation(bias[column] + from). Matrices are row-major without gaps. `to` may be
// any of the others, at the same alignment. The way back is in column_sum.cu.
//
// Arithmetic: one sum of floats, one rounding to the type. The rectifier makes zeros of negative numbers and leaves -0
// and NaN.
// Bytes moved per element: its size twice (the bias stays in cache).
// Launch: any shape, as the fold: 256 threads, 4 lines a thread before a block more is worth it.
#include "lanes.h"

enum Activation : u32 {
    NO_ACTIVATION = 0,
    RECTIFIER = 1,
};

struct Activate {
    const void* from; // rows x columns
    const void* bias; // columns; null: none
    void* to;
    u64 elements; // rows x columns
    u64 columns;  // of a bias; 1 or more
    u32 activation;
    u32 unused;
};

template <class T>
DEVICE void activate(const Activate& args) {
    constexpr u32 LANES = Line<T>::LANES;
    const T* const from = (const T*)args.from;
    const T* const bias = (const T*)args.bias;
    T* const to = (T*)args.to;
    const bool small = args.elements >> 32 == 0; // division of 32 bits is many times as quick
    each<LANES>(args.elements, (to_line(from) | to_line(to)) == 0, [&](Few few) {
        float values[LANES];
        take(values, from, few);
        if (bias != nullptr) {
            u64 column = small ? (u32)few.first % (u32)args.columns : few.first % args.columns;
#pragma unroll
            for (u32 lane = 0; lane < LANES; ++lane) {
                values[lane] = widen<float>(bias[column]) + values[lane];
                if (++column == args.columns) column = 0;
            }
        }
        if (args.activation == RECTIFIER) {
#pragma unroll
            for (u32 lane = 0; lane < LANES; ++lane) values[lane] = values[lane] < 0.0f ? 0.0f : values[lane];
        }
        give(to, few, values);
    });
}

#define ACTIVATE(name, T)                                                                                              \
    KERNEL(activate_##name, Activate) { activate<T>(args); }
FLOATS(ACTIVATE)
