// SPDX-License-Identifier: MPL-2.0
//
// Several f16 at a time, by the processor's own instructions, are the dialect's one at a time: every f16, and every
// float that lies where rounding changes, beside it, or on a walk through all of them.
#include "../../kernels/elements.h"
#include "cases.h"

constexpr u32 COUNT = 32;

static bool widened_alike(u32 first) {
    f16 from[COUNT];
    float to[COUNT];
    for (u32 i = 0; i < COUNT; ++i) from[i].bits = (u16)(first + i);
    widen_all(to, from);
    bool alike = true;
    for (u32 i = 0; i < COUNT; ++i) {
        const float one = widen<float>(from[i]);
        alike &= one == one ? bits_of_float(to[i]) == bits_of_float(one) : to[i] != to[i];
    }
    return alike;
}

static bool narrowed_alike(const float (&from)[COUNT]) {
    f16 to[COUNT];
    narrow_all(to, from);
    bool alike = true;
    for (u32 i = 0; i < COUNT; ++i) {
        f16 one;
        narrow(one, from[i]);
        alike &= to[i].bits == one.bits;
    }
    return alike;
}

CASE(halves_one_by_one_and_together) {
    bool alike = true;
    for (u32 bits = 0; bits < 1 << 16; bits += COUNT) alike &= widened_alike(bits);
    EXPECT(alike);
    float from[COUNT];
    // A float of 13 bits more than an f16 has: on, halfway, and one beside each.
    for (u32 bits = 0; bits < 1 << 16; bits += COUNT / 8)
        for (u32 part : {0u, 1u, 2u, 3u}) {
            for (u32 i = 0; i < COUNT; ++i) {
                const float exact = widen_f16((u16)(bits + part % 2 + i / 8));
                from[i] = float_of_bits(bits_of_float(exact) + (part / 2 + i % 8 / 4) * 0x1000u + i % 4 - 1);
            }
            alike &= narrowed_alike(from);
        }
    EXPECT(alike);
    u32 next = 0;
    for (u32 turn = 0; turn < 1 << 15; ++turn) {
        for (u32 i = 0; i < COUNT; ++i) from[i] = float_of_bits(next += 4093);
        alike &= narrowed_alike(from);
    }
    EXPECT(alike);
}
