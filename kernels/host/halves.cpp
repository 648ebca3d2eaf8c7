// SPDX-License-Identifier: MPL-2.0
#include "halves.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

namespace host {
namespace {

typedef uint16_t u16;
typedef uint32_t u32;

constexpr short CANONICAL_NAN = 0x7e00;

__attribute__((target("avx512f"))) void widen_16(float* to, const u16* from, u32 count) {
    for (u32 i = 0; i < count; i += 16)
        _mm512_storeu_ps(to + i, _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256((const __m256i*)(from + i))));
}

__attribute__((target("avx512f,avx512bw,avx512vl"))) void narrow_16(u16* to, const float* from, u32 count) {
    for (u32 i = 0; i < count; i += 16) {
        const __m512 values = _mm512_loadu_ps(from + i);
        const __m256i rounded = _mm512_maskz_cvtps_ph(0xffff, values, _MM_FROUND_TO_NEAREST_INT);
        const __mmask16 none = _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
        _mm256_storeu_si256((__m256i*)(to + i), _mm256_mask_set1_epi16(rounded, none, CANONICAL_NAN));
    }
}

__attribute__((target("avx,f16c"))) void widen_8(float* to, const u16* from, u32 count) {
    for (u32 i = 0; i < count; i += 8)
        _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(from + i))));
}

__attribute__((target("avx,f16c"))) void narrow_8(u16* to, const float* from, u32 count) {
    for (u32 i = 0; i < count; i += 8) {
        const __m256 values = _mm256_loadu_ps(from + i);
        const __m128i rounded = _mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT);
        const __m256i none = _mm256_castps_si256(_mm256_cmp_ps(values, values, _CMP_UNORD_Q));
        // Masks of 32 bits become masks of 16.
        const __m128i mask = _mm_packs_epi32(_mm256_castsi256_si128(none), _mm256_extractf128_si256(none, 1));
        _mm_storeu_si128((__m128i*)(to + i), _mm_blendv_epi8(rounded, _mm_set1_epi16(CANONICAL_NAN), mask));
    }
}

constexpr Halves BY_16 = {widen_16, narrow_16};
constexpr Halves BY_8 = {widen_8, narrow_8};

const Halves* of_this_processor() {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) return &BY_16;
    // Not every compiler knows f16c by its name here.
    u32 a, b, c, d;
    const bool f16c = __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
    return f16c && __builtin_cpu_supports("avx") ? &BY_8 : nullptr;
}

} // namespace

const Halves* const HALVES = of_this_processor();

} // namespace host

#else

namespace host {
const Halves* const HALVES = nullptr;
} // namespace host

#endif
