// SPDX-License-Identifier: MPL-2.0
//
// As many values as a line has elements, in memory that may be aligned anyhow, and where fewer may be left.
#pragma once

#include "part.h"

// What folds carry of the elements of a line.
template <class P, u32 COUNT>
struct alignas(16) Partials {
    P lane[COUNT];
};

// L is Line<E> or Partials<E, ..>.
template <class L, class E>
DEVICE L load_line(const E* from, u32 count) {
    constexpr u32 LANES = sizeof(L) / sizeof(E);
    L line = {};
    if (count == LANES && to_line(from) == 0) {
        Raw<L> loaded;
        take(loaded, *(const Raw<L>*)from);
        line = formed(loaded);
    } else {
#pragma unroll
        for (u32 lane = 0; lane < LANES; ++lane)
            if (lane < count) line.lane[lane] = from[lane];
    }
    return line;
}
template <class L, class E>
DEVICE void store_line(E* to, const L& line, u32 count) {
    constexpr u32 LANES = sizeof(L) / sizeof(E);
    if (count == LANES && to_line(to) == 0) {
        Packet packets[sizeof(L) / sizeof(Packet)];
        memcpy(packets, &line, sizeof line);
#pragma unroll
        for (u32 i = 0; i < sizeof(L) / sizeof(Packet); ++i) store_at_once((Packet*)to + i, packets[i]);
    } else {
#pragma unroll
        for (u32 lane = 0; lane < LANES; ++lane)
            if (lane < count) to[lane] = line.lane[lane];
    }
}
