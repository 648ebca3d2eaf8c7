// SPDX-License-Identifier: MPL-2.0
//
// Conversion with a factor: to = from * factor, a product in f32, then rounded to the target; from f32 to f16 or bf16
// and back. For loss scaling: where an infinity or a NaN is stored, *overflow becomes 1.
//
// Bytes moved per element: the sizes of both types. No flags among ranks; the overflow word is only ever set, to the
// same value, so it may be shared by launches and their order does not matter.
// Launch: any shape, as the fold.
#include "part.h"

struct Convert {
    const void* from;
    void* to;
    u32* overflow; // becomes 1, or stays; null: nobody asks
    u64 elements;
    float factor;
    u32 unused;
};

template <class To, class From>
DEVICE void convert(const Convert& args) {
    // The narrower type has more elements in a line; a thread moves whole lines of it where they are aligned.
    constexpr u32 LANES = Line<To>::LANES > Line<From>::LANES ? Line<To>::LANES : Line<From>::LANES;
    struct alignas(16) Froms {
        From lane[LANES];
    };
    struct alignas(16) Tos {
        To lane[LANES];
    };
    const From* const from = (const From*)args.from;
    To* const to = (To*)args.to;
    const Range mine = part_of_block({0, args.elements}, LANES);
    const bool aligned = to_line(from) == 0 && to_line(to) == 0;
    u32 beyond = 0;
    for (u64 i = mine.begin + (u64)thread() * LANES; i < mine.end; i += (u64)threads() * LANES) {
        const u32 count = mine.end - i < LANES ? (u32)(mine.end - i) : LANES;
        Froms taken = {};
        Tos given;
        if (aligned && count == LANES) {
            taken = *(const Froms*)(from + i);
        } else {
#pragma unroll
            for (u32 lane = 0; lane < LANES; ++lane)
                if (lane < count) taken.lane[lane] = from[i + lane];
        }
#pragma unroll
        for (u32 lane = 0; lane < LANES; ++lane) {
            narrow(given.lane[lane], widen<float>(taken.lane[lane]) * args.factor);
            // Infinity and NaN minus themselves are no number.
            const float stored = widen<float>(given.lane[lane]);
            beyond |= stored - stored == 0.0f ? 0 : 1;
        }
        if (aligned && count == LANES) {
            *(Tos*)(to + i) = given;
        } else {
#pragma unroll
            for (u32 lane = 0; lane < LANES; ++lane)
                if (lane < count) to[i + lane] = given.lane[lane];
        }
    }
    if (beyond != 0 && args.overflow != nullptr) store_relaxed_system(args.overflow, 1);
}

#define CONVERT(name, To, From)                                                                                        \
    KERNEL(name, Convert) { convert<To, From>(args); }
CONVERT(convert_f32_to_f16, f16, float)
CONVERT(convert_f32_to_bf16, bf16, float)
CONVERT(convert_f16_to_f32, float, f16)
CONVERT(convert_bf16_to_f32, float, bf16)
