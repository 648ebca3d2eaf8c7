// SPDX-License-Identifier: MPL-2.0
//
// The operations of folds, on what folds carry (elements.h).
//
// An operation is a line of OPERATIONS: its name, its number (that of `ReduceOp` in Rust), and the function of two
// values by which it folds. It is an argument of a kernel and no part of its type: the operation is chosen once for a
// line of 16 bytes, by a branch that all threads take alike, which costs little beside the loading of that line, and
// the code stays a tenth of what it would be.
//
// Integers wrap, by unsigned arithmetic. MIN and MAX are IEEE 754-2019 minimum and maximum. AVG divides the sum, and
// PREMUL multiplies what is folded; both are done by their callers (part.h).
#pragma once

#include "elements.h"

// Bitwise ones are of integers only; asked for floats, they fold nothing.
#define OPERATIONS(X)                                                                                                  \
    X(SUM, 1, sum)                                                                                                     \
    X(PROD, 2, product)                                                                                                \
    X(MIN, 3, minimum)                                                                                                 \
    X(MAX, 4, maximum)                                                                                                 \
    X(AVG, 5, sum)                                                                                                     \
    X(BAND, 6, both)                                                                                                   \
    X(BOR, 7, either)                                                                                                  \
    X(BXOR, 8, one_of)                                                                                                 \
    X(PREMUL, 9, sum)

enum Operation : u32 {
#define NUMBER(name, number, function) name = number,
    OPERATIONS(NUMBER)
#undef NUMBER
};

DEVICE float sum(float a, float b) { return a + b; }
DEVICE double sum(double a, double b) { return a + b; }
DEVICE i32 sum(i32 a, i32 b) { return (i32)((u32)a + (u32)b); }
DEVICE u32 sum(u32 a, u32 b) { return a + b; }
DEVICE i64 sum(i64 a, i64 b) { return (i64)((u64)a + (u64)b); }
DEVICE u64 sum(u64 a, u64 b) { return a + b; }

DEVICE float product(float a, float b) { return a * b; }
DEVICE double product(double a, double b) { return a * b; }
DEVICE i32 product(i32 a, i32 b) { return (i32)((u32)a * (u32)b); }
DEVICE u32 product(u32 a, u32 b) { return a * b; }
DEVICE i64 product(i64 a, i64 b) { return (i64)((u64)a * (u64)b); }
DEVICE u64 product(u64 a, u64 b) { return a * b; }

// Equal numbers have equal bits, except zeros, whose signs are joined. Where either is NaN, no comparison holds.
DEVICE float minimum(float a, float b) {
    const float least = a == b ? float_of_bits(bits_of_float(a) | bits_of_float(b)) : a < b ? a : b;
    return a != a ? a : least;
}
DEVICE float maximum(float a, float b) {
    const float most = a == b ? float_of_bits(bits_of_float(a) & bits_of_float(b)) : a > b ? a : b;
    return a != a ? a : most;
}
DEVICE double minimum(double a, double b) {
    const double least = a == b ? double_of_bits(bits_of_double(a) | bits_of_double(b)) : a < b ? a : b;
    return a != a ? a : least;
}
DEVICE double maximum(double a, double b) {
    const double most = a == b ? double_of_bits(bits_of_double(a) & bits_of_double(b)) : a > b ? a : b;
    return a != a ? a : most;
}
template <class A>
DEVICE A minimum(A a, A b) {
    return a < b ? a : b;
}
template <class A>
DEVICE A maximum(A a, A b) {
    return a > b ? a : b;
}

DEVICE float both(float a, float) { return a; }
DEVICE double both(double a, double) { return a; }
DEVICE float either(float a, float) { return a; }
DEVICE double either(double a, double) { return a; }
DEVICE float one_of(float a, float) { return a; }
DEVICE double one_of(double a, double) { return a; }
template <class A>
DEVICE A both(A a, A b) {
    return a & b;
}
template <class A>
DEVICE A either(A a, A b) {
    return a | b;
}
template <class A>
DEVICE A one_of(A a, A b) {
    return a ^ b;
}

// to = to op from, lane by lane.
template <class A, u32 LANES>
DEVICE void combine(u32 operation, A (&to)[LANES], const A (&from)[LANES]) {
    switch (operation) {
#define CASE_OF(name, number, function)                                                                                \
    case name:                                                                                                         \
        _Pragma("unroll") for (u32 lane = 0; lane < LANES; ++lane) to[lane] = function(to[lane], from[lane]);          \
        return;
        OPERATIONS(CASE_OF)
#undef CASE_OF
    }
}

// The factor of PREMUL, by its bits: a double for f64, a float for the other floats, an integer taken modulo its size.
DEVICE void factor_of_bits(float& factor, u64 bits) { factor = float_of_bits((u32)bits); }
DEVICE void factor_of_bits(double& factor, u64 bits) { factor = double_of_bits(bits); }
template <class A>
DEVICE void factor_of_bits(A& factor, u64 bits) {
    factor = (A)bits;
}
