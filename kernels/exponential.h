// SPDX-License-Identifier: MPL-2.0
//
// Exponential and logarithm of floats, in sums, products and quotients of doubles alone, so that every compiler's
// result has the same bits. Before their one rounding to a float they are off by less than 2^-44 of themselves.
#pragma once

#include "dialect.h"

// ln 2 in two parts; the first ends in so many zeros that its products with exponents of floats are exact.
constexpr double LN_2_HIGH = 0x1.62e42feep-1;
constexpr double LN_2_LOW = 0x1.a39ef35793c76p-33;

// e^x for any x. With n = x / ln 2 to the nearest integer and r = x - n ln 2, below 0.35: 2^n (1 + r + r^2/2! + .. +
// r^11/11!). What the series leaves out is below r^12/12! < 2^-46.
DEVICE float exponential(float x) {
    if (x != x) return x;
    if (x < -104.0f) return 0.0f; // below half the smallest float
    if (x > 89.0f) return float_of_bits(0x7f800000u); // beyond the greatest
    const double wide = (double)x;
    // A number of this size has no places for a fraction: adding it rounds.
    const double no_fraction = 0x1.8p52;
    const double n = (wide * 0x1.71547652b82fep0 + no_fraction) - no_fraction;
    const double r = (wide - n * LN_2_HIGH) - n * LN_2_LOW;
    constexpr double factors[] = {1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040, 1.0 / 720,
                                  1.0 / 120,      1.0 / 24,      1.0 / 6,      1.0 / 2,     1.0,        1.0};
    double series = 0.0;
#pragma unroll
    for (u32 i = 0; i < 12; ++i) series = series * r + factors[i];
    return (float)(series * double_of_bits((u64)((i64)n + 1023) << 52));
}

// ln x for an x from 1 up; of NaN, NaN. With x = 2^n m, m between the roots of 1/2 and 2, and f = (m - 1)/(m + 1),
// below 0.172: n ln 2 + 2 (f + f^3/3 + .. + f^19/19). What the series leaves out is below 0.1 f^21 < 2^-55.
DEVICE float logarithm(float x) {
    if (!(x < float_of_bits(0x7f800000u))) return x; // infinity, NaN
    const u64 bits = bits_of_double((double)x);
    const u64 above = (bits & 0xfffffffffffffull) > 0x6a09e667f3bcdull ? 1 : 0; // the root of 2
    const double n = (double)((i64)(bits >> 52) - 1023 + (i64)above);
    const double m = double_of_bits((bits & 0xfffffffffffffull) | (1023 - above) << 52);
    const double f = (m - 1.0) / (m + 1.0), square = f * f;
    constexpr double factors[] = {1.0 / 19, 1.0 / 17, 1.0 / 15, 1.0 / 13, 1.0 / 11,
                                  1.0 / 9,  1.0 / 7,  1.0 / 5,  1.0 / 3,  1.0};
    double series = 0.0;
#pragma unroll
    for (u32 i = 0; i < 10; ++i) series = series * square + factors[i];
    return (float)(n * LN_2_HIGH + (2.0 * f * series + n * LN_2_LOW));
}
