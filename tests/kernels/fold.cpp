// SPDX-License-Identifier: MPL-2.0
//
// The fold against arithmetic that is written the long way: one element after the other, and bfloat16 rounded by
// comparing the distances to its two neighbours.
#include "types.h"

#include "../../kernels/fold.cu"
#include "cases.h"

#include <cmath>
#include <cstring>

static u32 random_word(u32& state) {
    state = state * 1664525u + 1013904223u;
    return state ^ state >> 15;
}

// Finite values of very different sizes, and now and then one that is not ordinary.
static float value(u32& state) {
    const u32 word = random_word(state);
    switch (word % 61) {
        case 0: return -0.0f;
        case 1: return INFINITY;
        case 2: return -INFINITY;
        case 3: return NAN;
        case 4: return float_of_bits(word >> 12); // subnormal
        case 5: return 3.0e38f;
    }
    return std::ldexp((float)(i32)random_word(state), (int)(word % 40) - 50);
}

static u32 f32_bits(float sum) { return std::isnan(sum) ? 0x7fc00000u : bits_of_float(sum); }

static u32 bf16_bits(float sum) {
    if (std::isnan(sum)) return 0x7fc0;
    const u32 sign = std::signbit(sum) ? 0x8000u : 0;
    const double size = std::fabs((double)sum);
    if (std::isinf(size)) return sign | 0x7f80;
    const u32 below = bits_of_float((float)size) >> 16;
    const double low = float_of_bits(below << 16);
    // Beyond the largest comes 2^128, as if there were one more exponent.
    const double high = below == 0x7f7f ? std::ldexp(1.0, 128) : (double)float_of_bits((below + 1) << 16);
    const double to_low = size - low, to_high = high - size;
    const bool up = to_high < to_low || (to_high == to_low && below % 2 == 1);
    return sign | (up ? below + 1 : below);
}

static float element(const std::vector<float>& from, u64 i) { return from[i]; }
static float element(const std::vector<bf16>& from, u64 i) { return float_of_bits((u32)from[i].bits << 16); }
static void store(std::vector<float>& to, u64 i, float value) { to[i] = value; }
static void store(std::vector<bf16>& to, u64 i, float value) { to[i].bits = (u16)(bits_of_float(value) >> 16); }

template <class T>
static void fold(const char* kernel, u32 (*round)(float)) {
    u32 state = 1;
    for (u32 sources = 1; sources <= SOURCES; sources += COSTLY ? 7 : 3) {
        for (u64 elements : {0, 1, 3, 4, 5, 7, 8, 9, 15, 17, 64, 127, 1000, 1537}) {
            std::vector<std::vector<T>> from(sources, std::vector<T>(elements));
            // One more than is folded, to see that it stays.
            std::vector<T> to(elements + 1);
            std::memset((void*)to.data(), 0x5a, to.size() * sizeof(T));
            Fold args{};
            for (u32 source = 0; source < sources; ++source) {
                for (u64 i = 0; i < elements; ++i) store(from[source], i, value(state));
                args.from[source] = from[source].data();
            }
            args.to[0] = to.data();
            args.elements = elements;
            args.sources = sources;
            args.destinations = 1;
            args.operation = SUM;
            EXPECT(run({kernel, &args, 3, COSTLY ? 16 : 64, 0}).ended == host::Ended::WELL);
            for (u64 i = 0; i < elements; ++i) {
                float sum = element(from[0], i);
                for (u32 source = 1; source < sources; ++source) sum += element(from[source], i);
                u32 got = 0;
                std::memcpy(&got, &to[i], sizeof(T));
                EXPECT(got == round(sum));
            }
            u32 beyond = 0, untouched = 0x5a5a5a5a;
            std::memcpy(&beyond, &to[elements], sizeof(T));
            EXPECT(std::memcmp(&beyond, &untouched, sizeof(T)) == 0);
        }
    }
}

#if defined(__SSE__)
// A caller that flushes subnormal values to zero changes nothing, on its own thread and on others, and keeps its way.
CASE(subnormal_values_are_kept) {
    const u32 flushing = __builtin_ia32_stmxcsr() | 0x8040u;
    std::vector<u32> one(1000, 1), sum(1000);
    Fold args{};
    args.from[0] = args.from[1] = one.data();
    args.to[0] = sum.data();
    args.elements = 1000;
    args.sources = 2;
    args.destinations = 1;
    args.operation = SUM;
    const u32 before = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(flushing);
    run({"fold_f32", &args, RESIDENT_64, 8, 0});
    const u32 after = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(before);
    EXPECT((after & 0x8040u) == 0x8040u);
    for (const u32 bits : sum) EXPECT(bits == 2);
}
#endif

CASE(fold_f32) { fold<float>("fold_f32", f32_bits); }
CASE(fold_bf16) { fold<bf16>("fold_bf16", bf16_bits); }
