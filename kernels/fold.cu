// SPDX-License-Identifier: MPL-2.0
//
// The fold on a device: dst = ((src0 + src1) + src2) + .., in the order given, one rounding at the end.
//
// A thread folds 16 bytes of each source at a time, lines dealt round-robin to the threads of the grid, so that a warp
// reads consecutive lines; the loads of one turn are issued before the first is used. Elements beyond the last whole line
// are folded one by one. Buffers are aligned to 16 bytes.
//
// Bytes moved per element: its size times (sources + 1). Launch: any block size; as many blocks as are resident, or more.
// A prototype of two types and one operation, by which a card's bandwidth is judged (probe.cu, `annulus doctor --gpu`).
#include "dialect.h"

constexpr u32 SOURCES = 8;

struct Fold {
    const void* from[SOURCES];
    void* to;
    u64 elements;
    u32 sources; // 1 to SOURCES
};

// Folds one line; N sources, or as many as `args` says where N is 0.
template <class T, u32 N>
DEVICE Line<T> fold_line(const Fold& args, u64 i) {
    Line<T> result;
    if constexpr (N > 0) {
        Line<T> from[N];
#pragma unroll
        for (u32 source = 0; source < N; ++source) from[source] = ((const Line<T>*)args.from[source])[i];
#pragma unroll
        for (u32 lane = 0; lane < Line<T>::LANES; ++lane) {
            float sum = widen(from[0].lane[lane]);
#pragma unroll
            for (u32 source = 1; source < N; ++source) sum = sum + widen(from[source].lane[lane]);
            narrow(result.lane[lane], sum);
        }
    } else {
        float sums[Line<T>::LANES];
        Line<T> from = ((const Line<T>*)args.from[0])[i];
#pragma unroll
        for (u32 lane = 0; lane < Line<T>::LANES; ++lane) sums[lane] = widen(from.lane[lane]);
        for (u32 source = 1; source < args.sources; ++source) {
            from = ((const Line<T>*)args.from[source])[i];
#pragma unroll
            for (u32 lane = 0; lane < Line<T>::LANES; ++lane) sums[lane] = sums[lane] + widen(from.lane[lane]);
        }
#pragma unroll
        for (u32 lane = 0; lane < Line<T>::LANES; ++lane) narrow(result.lane[lane], sums[lane]);
    }
    return result;
}

template <class T, u32 N>
DEVICE void fold_all(const Fold& args) {
    const u64 first = (u64)block() * threads() + thread();
    const u64 step = (u64)blocks() * threads();
    const u64 lines = args.elements / Line<T>::LANES;
    for (u64 i = first; i < lines; i += step) ((Line<T>*)args.to)[i] = fold_line<T, N>(args, i);
    for (u64 i = lines * Line<T>::LANES + first; i < args.elements; i += step) {
        float sum = widen(((const T*)args.from[0])[i]);
        for (u32 source = 1; source < args.sources; ++source) sum = sum + widen(((const T*)args.from[source])[i]);
        narrow(((T*)args.to)[i], sum);
    }
}

template <class T>
DEVICE void fold_sum(const Fold& args) {
    switch (args.sources) {
        case 2: return fold_all<T, 2>(args);
        case 4: return fold_all<T, 4>(args);
        case 8: return fold_all<T, 8>(args);
        default: return fold_all<T, 0>(args);
    }
}

KERNEL(fold_sum_f32, Fold) { fold_sum<float>(args); }
KERNEL(fold_sum_bf16, Fold) { fold_sum<bf16>(args); }
