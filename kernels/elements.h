// SPDX-License-Identifier: MPL-2.0
//
// The types of elements, and the values in which folds carry them.
//
// A type is a line of TYPES, its Carried (what a fold of it carries), and what it widens to and narrows from. Folds
// carry floats for f16 and bf16, words of at least 32 bits for integers (arithmetic modulo 2^32 or 2^64, cut off when
// stored, is arithmetic modulo the type's own size), and 64 bits for averages of integers.
//
// Narrowing rounds once, to nearest even, and makes every NaN the canonical one: bfloat16 by integer arithmetic, so
// that every compiler's result has the same bits.
#pragma once

#include "dialect.h"

// The kernels of each type are named after it: `fold_f32`.
#if !defined(TYPES)
#define TYPES(X)                                                                                                       \
    X(f64, double)                                                                                                     \
    X(f32, float)                                                                                                      \
    X(f16, f16)                                                                                                        \
    X(bf16, bf16)                                                                                                      \
    X(i8, i8)                                                                                                          \
    X(u8, u8)                                                                                                          \
    X(i16, i16)                                                                                                        \
    X(u16, u16)                                                                                                        \
    X(i32, i32)                                                                                                        \
    X(u32, u32)                                                                                                        \
    X(i64, i64)                                                                                                        \
    X(u64, u64)
#endif

// What folds of a type carry, and what they carry for an average.
template <class T>
struct Carried {
    typedef T Value;
    typedef T Average;
};
#define CARRIED(T, carried, average)                                                                                   \
    template <>                                                                                                        \
    struct Carried<T> {                                                                                                \
        typedef carried Value;                                                                                         \
        typedef average Average;                                                                                       \
    };
CARRIED(f16, float, float)
CARRIED(bf16, float, float)
CARRIED(i8, i32, i64)
CARRIED(u8, u32, u64)
CARRIED(i16, i32, i64)
CARRIED(u16, u32, u64)
CARRIED(i32, i32, i64)
CARRIED(u32, u32, u64)

// What a ring passes on between two folds: what they carry, but that integers are cut off at once.
template <class T>
struct Partial {
    typedef T Value;
};
template <>
struct Partial<f16> {
    typedef float Value;
};
template <>
struct Partial<bf16> {
    typedef float Value;
};

// 16 bytes: what a thread moves at once.
template <class T>
struct alignas(16) Line {
    static constexpr u32 LANES = 16 / sizeof(T);
    T lane[LANES];
};

// A line, or what else is a multiple of 16 bytes, as it is loaded and stored: words of 32 bits, which compilers move as
// they are. Narrower elements they would take apart where they are loaded, and so wait for one load before the next.
template <class L>
struct alignas(16) Raw {
    static constexpr u32 WORDS = sizeof(L) / 4;
    u32 word[WORDS];
};

template <class L>
DEVICE L formed(const Raw<L>& raw) {
    L line;
    memcpy(&line, raw.word, sizeof line);
    return line;
}
template <class L>
DEVICE Raw<L> raw(const L& line) {
    Raw<L> words;
    memcpy(words.word, &line, sizeof line);
    return words;
}

template <class Word>
DEVICE void take(Word& to, const Word& from) {
    to = from;
}
// Word by word: compilers for AMD devices keep an array of structures in registers if none is copied whole.
template <class L>
DEVICE void take(Raw<L>& to, const Raw<L>& from) {
    const Raw<L> all = from;
    Raw<L> taken;
#pragma unroll
    for (u32 i = 0; i < Raw<L>::WORDS; ++i) taken.word[i] = all.word[i];
    to = taken;
}

DEVICE void take(Packet& to, const Packet& from) {
    const u64 low = from.word[0], high = from.word[1];
    to.word[0] = low;
    to.word[1] = high;
}

template <class A, class T>
DEVICE A widen(T element) {
    return (A)element;
}
template <class A>
DEVICE A widen(f16 element) {
    return widen_f16(element.bits);
}
template <class A>
DEVICE A widen(bf16 element) {
    return float_of_bits((u32)element.bits << 16);
}

template <class T, class A>
DEVICE void narrow(T& to, A value) {
    to = (T)value;
}
#if defined(PLANTED_NATIVE_NAN)
DEVICE void narrow(float& to, float value) { to = value; }
#else
DEVICE void narrow(float& to, float value) { to = value == value ? value : float_of_bits(0x7fc00000u); }
#endif
DEVICE void narrow(double& to, double value) { to = value == value ? value : double_of_bits(0x7ff8000000000000ull); }
DEVICE void narrow(f16& to, float value) { to.bits = value == value ? narrow_f16(value) : (u16)0x7e00u; }
DEVICE void narrow(bf16& to, float value) {
    const u32 bits = bits_of_float(value);
    const u32 rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    to.bits = (u16)(value == value ? rounded : 0x7fc0u);
}

// The same of several elements.
template <class T, class A, u32 COUNT>
DEVICE void widen_all(A (&to)[COUNT], const T* from) {
#pragma unroll
    for (u32 i = 0; i < COUNT; ++i) to[i] = widen<A>(from[i]);
}
template <class T, class A, u32 COUNT>
DEVICE void narrow_all(T* to, const A (&from)[COUNT]) {
#pragma unroll
    for (u32 i = 0; i < COUNT; ++i) narrow(to[i], from[i]);
}
// A host may have instructions for them.
template <u32 COUNT>
DEVICE void widen_all(float (&to)[COUNT], const f16* from) {
    if constexpr (COUNT % 16 == 0)
        if (widen_f16_all(to, &from->bits, COUNT)) return;
#pragma unroll
    for (u32 i = 0; i < COUNT; ++i) to[i] = widen<float>(from[i]);
}
template <u32 COUNT>
DEVICE void narrow_all(f16* to, const float (&from)[COUNT]) {
    if constexpr (COUNT % 16 == 0)
        if (narrow_f16_all(&to->bits, from, COUNT)) return;
#pragma unroll
    for (u32 i = 0; i < COUNT; ++i) narrow(to[i], from[i]);
}
