// SPDX-License-Identifier: MPL-2.0
//
// The dialect's words where the compiler is one for the host (included by ../dialect.h alone).
//
// A kernel becomes a plain function of its arguments, which block.h calls once for each GPU thread, and an entry in the
// list that kernel.h searches by name. Where a thread is, it reads in thread-local words that block.cpp keeps; a block
// never leaves the thread of the operating system that it began on, so SHARED memory is thread-local too.
//
// Where ANNULUS_STRICT is defined, the kernel becomes part of a module for a strict device (module/module.cpp), and
// a thread's elements lie as they do on a card.
//
// The host has one scope: `system` and `device` are the same accesses here, and a scope too small goes unnoticed.
// Compile with -ffp-contract=off. Objects that only define kernels must be linked whole, since nothing refers to them.
#pragma once

#include <cstring>
#include <ctime>

#include "halves.h"
#include "kernel.h"
#include "words.h"

#define DEVICE inline __attribute__((always_inline))
#define SHARED static __thread
#define KERNEL(name, Args)                                                                                             \
    void name(const Args& args);                                                                                       \
    static void name##_of_bytes(const void* args) { name(*static_cast<const Args*>(args)); }                           \
    static const host::Registered name##_registered({#name, name##_of_bytes, sizeof(Args), alignof(Args), __FILE__});  \
    void name([[maybe_unused]] const Args& args)

// A processor multiplies and adds in one step, eight floats at a time, if it is one of the last ten years; the compiler
// may not assume so. So the kernel is compiled twice, and each call looks. Without such instructions, fused() calls the
// C library, which gives the same bits, slowly.
#if defined(__x86_64__)
#define FUSED_KERNEL(name, Args)                                                                                       \
    static DEVICE void name##_body(const Args& args);                                                                  \
    __attribute__((target("avx2,fma"))) static void name##_wide(const Args& args) { name##_body(args); }              \
    static void name##_plain(const Args& args) { name##_body(args); }                                                  \
    KERNEL(name, Args) {                                                                                               \
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) name##_wide(args);                        \
        else name##_plain(args);                                                                                       \
    }                                                                                                                  \
    static DEVICE void name##_body(const Args& args)
#else
#define FUSED_KERNEL(name, Args) KERNEL(name, Args)
#endif

DEVICE u32 block() { return host::here.block; }
DEVICE u32 blocks() { return host::here.blocks; }
DEVICE u32 thread() { return host::here.thread; }
DEVICE u32 threads() { return host::here.threads; }
DEVICE char* dynamic_shared() { return host::here.dynamic; }
DEVICE u32 warp() { return host::WARP; }
DEVICE u32 lane() { return thread() % warp(); }
DEVICE void pause() { host::pause(); }

// A word that all threads must come to says where it stands.
#define PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()
DEVICE void sync_block(PLACE) { host::sync_block({file, line}); }
DEVICE void sync_warp(PLACE) { host::sync_warp({file, line}); }
DEVICE u32 from_lane(u32 value, u32 lane, PLACE) { return (u32)host::from_lane(value, lane, {file, line}); }

// In the fast mode a thread goes on until it waits, and only then the next one has its turn.
#if defined(ANNULUS_STRICT)
constexpr bool SIDE_BY_SIDE = false;
#else
constexpr bool SIDE_BY_SIDE = true;
#endif
// One function for each width, into which the loop is inlined; the compiler finds the vector instructions by itself.
#if defined(__x86_64__)
template <class Loop>
__attribute__((target("avx2"), noinline)) void with_256_bits(const Loop& loop) {
    loop();
}
template <class Loop>
__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"), noinline)) void with_512_bits(const Loop& loop) {
    loop();
}
template <class Loop>
DEVICE void with_vectors(const Loop& loop) {
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        with_512_bits(loop);
    else if (__builtin_cpu_supports("avx2")) with_256_bits(loop);
    else loop();
}
#else
template <class Loop>
DEVICE void with_vectors(const Loop& loop) {
    loop();
}
#endif

// The monotonic clock, which all processes of the machine share.
DEVICE u64 clock_ns() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (u64)now.tv_sec * 1000000000u + (u64)now.tv_nsec;
}
// Ticks of the processor's constant counter.
DEVICE u64 cycles() {
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    u64 now;
    asm volatile("mrs %0, cntvct_el0" : "=r"(now));
    return now;
#else
    return clock_ns();
#endif
}

DEVICE u32 load_acquire_system(const u32* word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
DEVICE u32 load_relaxed_system(const u32* word) { return __atomic_load_n(word, __ATOMIC_RELAXED); }
DEVICE void store_release_system(u32* word, u32 value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }
DEVICE void store_relaxed_system(u32* word, u32 value) { __atomic_store_n(word, value, __ATOMIC_RELAXED); }
DEVICE u32 load_acquire_device(const u32* word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
DEVICE void store_release_device(u32* word, u32 value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }
DEVICE u64 load_acquire_system(const u64* word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
DEVICE u64 load_relaxed_system(const u64* word) { return __atomic_load_n(word, __ATOMIC_RELAXED); }
DEVICE void store_release_system(u64* word, u64 value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }
DEVICE void store_relaxed_system(u64* word, u64 value) { __atomic_store_n(word, value, __ATOMIC_RELAXED); }
DEVICE Packet load_relaxed_system(const Packet* packet) {
    return {{load_relaxed_system(&packet->word[0]), load_relaxed_system(&packet->word[1])}};
}
DEVICE void store_relaxed_system(Packet* packet, Packet value) {
    store_relaxed_system(&packet->word[0], value.word[0]);
    store_relaxed_system(&packet->word[1], value.word[1]);
}
DEVICE u32 recomputed(u32 value) { return value; }
DEVICE void store_at_once(Packet* to, Packet value) { *to = value; }
DEVICE u32 add_system(u32* word, u32 value) { return __atomic_fetch_add(word, value, __ATOMIC_ACQ_REL); }
DEVICE void or_system(u32* word, u32 bits) { __atomic_fetch_or(word, bits, __ATOMIC_RELAXED); }

DEVICE float float_of_bits(u32 bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
DEVICE u32 bits_of_float(float value) {
    u32 bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}
DEVICE double double_of_bits(u64 bits) {
    double value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
DEVICE u64 bits_of_double(double value) {
    u64 bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

DEVICE float from_lane(float value, u32 lane, PLACE) {
    return float_of_bits(from_lane(bits_of_float(value), lane, file, line));
}
DEVICE u64 lanes_where(bool holds, PLACE) {
    u64 bits = 0;
    for (u32 lane = 0; lane < warp() && thread() / warp() * warp() + lane < threads(); ++lane)
        bits |= (u64)from_lane((u32)holds, lane, file, line) << lane;
    return bits;
}
#undef PLACE

DEVICE float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
DEVICE float square_root(float value) { return __builtin_sqrtf(value); }
DEVICE double square_root(double value) { return __builtin_sqrt(value); }

// By integers and exact products alone, without a branch, so that loops over it become vector instructions.
DEVICE float widen_f16(u16 bits) {
    // The sign, and the others where a float has them. The exponent is then 112 too small; a power of two makes good for
    // that, for subnormal numbers too.
    const u32 placed = (u32)(i32)(i16)bits << 13 & 0x8fffe000u;
    const u32 beyond = (placed & 0x0f800000u) == 0x0f800000u ? 0x7f800000u : 0; // infinity and NaN
    return float_of_bits(bits_of_float(float_of_bits(placed) * float_of_bits(0x77800000u)) | beyond);
}
// Of numbers: elements.h sees to NaN.
DEVICE u16 narrow_f16(float value) {
    const u32 size = bits_of_float(value) & 0x7fffffffu;
    // Ordinary numbers: half a unit less one, and one more where the last kept bit is odd, then a smaller exponent.
    const u32 ordinary = (size + 0xfffu + (size >> 13 & 1u) - 0x38000000u) >> 13;
    // Below the smallest ordinary one, an addition rounds to a multiple of 2^-24 and leaves it in the last bits.
    const u32 small = bits_of_float(float_of_bits(size) + 0.5f) - 0x3f000000u;
    const u32 finite = size < 0x38800000u ? small : ordinary;
    const u32 magnitude = size >= 0x477ff000u ? 0x7c00u : finite;
    return (u16)(magnitude | (bits_of_float(value) >> 16 & 0x8000u));
}
// By the processor's own instructions, if it has some, of a multiple of 16 elements; false if not. Narrowing makes every
// NaN the canonical one.
DEVICE bool widen_f16_all(float* to, const u16* from, u32 count) {
    if (host::HALVES == nullptr) return false;
    host::HALVES->widen(to, from, count);
    return true;
}
DEVICE bool narrow_f16_all(u16* to, const float* from, u32 count) {
    if (host::HALVES == nullptr) return false;
    host::HALVES->narrow(to, from, count);
    return true;
}
