// SPDX-License-Identifier: MPL-2.0
//
// The dialect in which kernels are written: the one header that knows which compiler it is.
//
// A kernel is plain C++17 of a few words that this header defines, and is compiled unchanged by NVRTC and nvcc (PTX), by
// hipcc and hiprtc (AMD code objects) and by any C++ compiler for the host, which executes it (host/). No other file asks
// which compiler it is, includes a vendor's header, writes inline assembly, or knows how many lanes a warp has.
//
//   KERNEL(name, Args) { .. args.x .. }   a kernel; its one argument is a struct, mirrored in Rust
//   block() blocks() thread() threads()   where this thread is: one dimension is enough for us
//   SHARED T name;                        memory of the block, in a kernel's own scope; starts undefined
//   dynamic_shared()                      memory of the block, as many bytes as the launch says, aligned to 16
//   sync_block()                          every thread of the block, or none, and what they wrote before is seen after
//   warp() lane() sync_warp()             threads of a warp (32, or 64); which of them this one is; as sync_block()
//   from_lane(value, l)                   what lane l of the warp has as `value`: every thread of the warp, or none
//   lanes_where(holds)                    the lanes for which it holds, as bits: as above
//   pause()                               in every loop that waits for another thread
//   clock_ns()                            nanoseconds of a clock that the whole device shares
//   cycles()                              cycles of this multiprocessor's clock
//   square_root(x)                        of a float or a double, rounded once
//   recomputed(x)                         x; what follows from it is not computed once for all rounds of a loop, and kept
//   store_at_once(&packet, value)         a plain store of 16 bytes that no compiler makes several of
//   FUSED_KERNEL(name, Args), fused(..)   a kernel that may call fused(a, b, c), which is a * b + c rounded once; of all
//                                         kernels matrix products alone
//   SIDE_BY_SIDE                          whether a thread's lines lie better side by side than beside other threads'
//   with_vectors(loop)                    loop(), compiled for the widest vectors there are, where there are vectors
//
// Words that others watch are read and written only through the functions below: `system` scope for peers, other devices
// and the host, `device` scope for what never leaves the device. A release store publishes what its thread wrote before;
// for what the *block* wrote, sync_block() comes first. An acquire load is followed by sync_block() before the block's
// other threads read (kernels' own headers argue each case).
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed char i8;
typedef short i16;
typedef int i32;
typedef long long i64;

// binary16 and bfloat16, by their bits; their arithmetic is that of float.
struct f16 {
    u16 bits;
};
struct bf16 {
    u16 bits;
};

// The most threads of a block. So many have 128 registers each on every card.
#define THREADS 512
// Of a FUSED_KERNEL, which is small blocks of many registers each.
#define FUSED_THREADS 128

// Two words that are moved at once, each of them whole: where both were stored together, a load may see one of the two
// new and the other old, but never half a word.
struct alignas(16) Packet {
    u64 word[2];
};

#if defined(__CUDACC__) || defined(__CUDACC_RTC__) || (defined(__clang__) && defined(__CUDA__))

#define DEVICE __device__ __forceinline__
#define SHARED __shared__
#define KERNEL(name, Args)                                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS, 1) name(const __grid_constant__ Args args)
#define FUSED_KERNEL(name, Args)                                                                                       \
    extern "C" __global__ void __launch_bounds__(FUSED_THREADS, 1) name(const __grid_constant__ Args args)

DEVICE u32 block() { return blockIdx.x; }
DEVICE u32 blocks() { return gridDim.x; }
DEVICE u32 thread() { return threadIdx.x; }
DEVICE u32 threads() { return blockDim.x; }
DEVICE void sync_block() { __syncthreads(); }
DEVICE char* dynamic_shared() {
    extern __shared__ Packet of_launch[];
    return (char*)of_launch;
}
DEVICE u32 warp() { return (u32)warpSize; }
DEVICE u32 lane() { return thread() % warp(); }
DEVICE void sync_warp() { __syncwarp(); }
DEVICE u32 from_lane(u32 value, u32 lane) { return __shfl_sync(0xffffffffu, value, (int)lane); }
DEVICE float from_lane(float value, u32 lane) { return __shfl_sync(0xffffffffu, value, (int)lane); }
DEVICE u64 lanes_where(bool holds) { return __ballot_sync(0xffffffffu, holds); }
DEVICE void pause() {}
constexpr bool SIDE_BY_SIDE = false;
template <class Loop>
DEVICE void with_vectors(const Loop& loop) {
    loop();
}
DEVICE u64 clock_ns() {
    u64 now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now)::"memory");
    return now;
}
DEVICE u64 cycles() {
    u64 now;
    asm volatile("mov.u64 %0, %%clock64;" : "=l"(now)::"memory");
    return now;
}

DEVICE u32 load_acquire_system(const u32* word) {
    u32 value;
    asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(word) : "memory");
    return value;
}
DEVICE u32 load_relaxed_system(const u32* word) {
    u32 value;
    asm volatile("ld.relaxed.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(word) : "memory");
    return value;
}
DEVICE void store_release_system(u32* word, u32 value) {
    asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(word), "r"(value) : "memory");
}
DEVICE void store_relaxed_system(u32* word, u32 value) {
    asm volatile("st.relaxed.sys.global.u32 [%0], %1;" ::"l"(word), "r"(value) : "memory");
}
DEVICE u32 load_acquire_device(const u32* word) {
    u32 value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(word) : "memory");
    return value;
}
DEVICE void store_release_device(u32* word, u32 value) {
    asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(word), "r"(value) : "memory");
}
DEVICE u64 load_acquire_system(const u64* word) {
    u64 value;
    asm volatile("ld.acquire.sys.global.u64 %0, [%1];" : "=l"(value) : "l"(word) : "memory");
    return value;
}
DEVICE u64 load_relaxed_system(const u64* word) {
    u64 value;
    asm volatile("ld.relaxed.sys.global.u64 %0, [%1];" : "=l"(value) : "l"(word) : "memory");
    return value;
}
DEVICE void store_release_system(u64* word, u64 value) {
    asm volatile("st.release.sys.global.u64 [%0], %1;" ::"l"(word), "l"(value) : "memory");
}
DEVICE void store_relaxed_system(u64* word, u64 value) {
    asm volatile("st.relaxed.sys.global.u64 [%0], %1;" ::"l"(word), "l"(value) : "memory");
}
DEVICE Packet load_relaxed_system(const Packet* packet) {
    Packet value;
    asm volatile("ld.relaxed.sys.global.v2.u64 {%0, %1}, [%2];"
                 : "=l"(value.word[0]), "=l"(value.word[1])
                 : "l"(packet)
                 : "memory");
    return value;
}
DEVICE void store_relaxed_system(Packet* packet, Packet value) {
    asm volatile("st.relaxed.sys.global.v2.u64 [%0], {%1, %2};" ::"l"(packet), "l"(value.word[0]), "l"(value.word[1])
                 : "memory");
}
// NVRTC joins the same store element by element, in another branch, with this one.
DEVICE void store_at_once(Packet* to, Packet value) {
    asm volatile("st.v2.u64 [%0], {%1, %2};" ::"l"(to), "l"(value.word[0]), "l"(value.word[1]) : "memory");
}
// Adds, and answers what was there before: an acquire and a release.
DEVICE u32 add_system(u32* word, u32 value) {
    u32 before;
    asm volatile("atom.acq_rel.sys.global.add.u32 %0, [%1], %2;" : "=r"(before) : "l"(word), "r"(value) : "memory");
    return before;
}
// Sets bits; orders nothing.
DEVICE void or_system(u32* word, u32 bits) {
    asm volatile("red.relaxed.sys.global.or.b32 [%0], %1;" ::"l"(word), "r"(bits) : "memory");
}

DEVICE float float_of_bits(u32 bits) { return __uint_as_float(bits); }
DEVICE u32 bits_of_float(float value) { return __float_as_uint(value); }
DEVICE double double_of_bits(u64 bits) { return __longlong_as_double((i64)bits); }
DEVICE u64 bits_of_double(double value) { return (u64)__double_as_longlong(value); }
DEVICE float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }
DEVICE u32 recomputed(u32 value) {
    asm volatile("" : "+r"(value));
    return value;
}
DEVICE float square_root(float value) { return __fsqrt_rn(value); }
DEVICE double square_root(double value) { return __dsqrt_rn(value); }
// Exact, and to nearest even; subnormal numbers are kept.
DEVICE float widen_f16(u16 bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}
DEVICE u16 narrow_f16(float value) {
    u16 bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
// Nothing converts several elements at once here.
DEVICE bool widen_f16_all(float*, const u16*, u32) { return false; }
DEVICE bool narrow_f16_all(u16*, const float*, u32) { return false; }

#elif defined(__HIPCC__) || defined(__HIPCC_RTC__) || (defined(__clang__) && defined(__HIP__))

#if !defined(__HIPCC_RTC__)
#include <hip/hip_runtime.h>
#endif

#define DEVICE __device__ __forceinline__
#define SHARED __shared__
#define KERNEL(name, Args) extern "C" __global__ void __launch_bounds__(THREADS, 1) name(const Args args)
#define FUSED_KERNEL(name, Args)                                                                                       \
    extern "C" __global__ void __launch_bounds__(FUSED_THREADS, 1) name(const Args args)

DEVICE u32 block() { return blockIdx.x; }
DEVICE u32 blocks() { return gridDim.x; }
DEVICE u32 thread() { return threadIdx.x; }
DEVICE u32 threads() { return blockDim.x; }
DEVICE void sync_block() { __syncthreads(); }
DEVICE char* dynamic_shared() {
    extern __shared__ Packet of_launch[];
    return (char*)of_launch;
}
DEVICE u32 warp() { return (u32)warpSize; }
DEVICE u32 lane() { return thread() % warp(); }
DEVICE void sync_warp() {
    __builtin_amdgcn_fence(__ATOMIC_ACQ_REL, "wavefront");
    __builtin_amdgcn_wave_barrier();
}
DEVICE u32 from_lane(u32 value, u32 lane) { return (u32)__shfl((int)value, (int)lane); }
DEVICE float from_lane(float value, u32 lane) { return __shfl(value, (int)lane); }
DEVICE u64 lanes_where(bool holds) { return __ballot(holds); }
DEVICE void pause() { __builtin_amdgcn_s_sleep(1); }
constexpr bool SIDE_BY_SIDE = false;
template <class Loop>
DEVICE void with_vectors(const Loop& loop) {
    loop();
}
// The constant clock of AMD devices counts in steps of 10 ns.
DEVICE u64 clock_ns() { return (u64)wall_clock64() * 10; }
DEVICE u64 cycles() { return (u64)clock64(); }

DEVICE u32 load_acquire_system(const u32* word) {
    return __hip_atomic_load(word, __ATOMIC_ACQUIRE, __HIP_MEMORY_SCOPE_SYSTEM);
}
DEVICE u32 load_relaxed_system(const u32* word) {
    return __hip_atomic_load(word, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_SYSTEM);
}
DEVICE void store_release_system(u32* word, u32 value) {
    __hip_atomic_store(word, value, __ATOMIC_RELEASE, __HIP_MEMORY_SCOPE_SYSTEM);
}
DEVICE void store_relaxed_system(u32* word, u32 value) {
    __hip_atomic_store(word, value, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_SYSTEM);
}
DEVICE u32 load_acquire_device(const u32* word) {
    return __hip_atomic_load(word, __ATOMIC_ACQUIRE, __HIP_MEMORY_SCOPE_AGENT);
}
DEVICE void store_release_device(u32* word, u32 value) {
    __hip_atomic_store(word, value, __ATOMIC_RELEASE, __HIP_MEMORY_SCOPE_AGENT);
}
DEVICE u64 load_acquire_system(const u64* word) {
    return __hip_atomic_load(word, __ATOMIC_ACQUIRE, __HIP_MEMORY_SCOPE_SYSTEM);
}
DEVICE u64 load_relaxed_system(const u64* word) {
    return __hip_atomic_load(word, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_SYSTEM);
}
DEVICE void store_release_system(u64* word, u64 value) {
    __hip_atomic_store(word, value, __ATOMIC_RELEASE, __HIP_MEMORY_SCOPE_SYSTEM);
}
DEVICE void store_relaxed_system(u64* word, u64 value) {
    __hip_atomic_store(word, value, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_SYSTEM);
}
DEVICE Packet load_relaxed_system(const Packet* packet) {
    return {{load_relaxed_system(&packet->word[0]), load_relaxed_system(&packet->word[1])}};
}
DEVICE void store_relaxed_system(Packet* packet, Packet value) {
    store_relaxed_system(&packet->word[0], value.word[0]);
    store_relaxed_system(&packet->word[1], value.word[1]);
}
DEVICE void store_at_once(Packet* to, Packet value) { *to = value; }
DEVICE u32 add_system(u32* word, u32 value) {
    return __hip_atomic_fetch_add(word, value, __ATOMIC_ACQ_REL, __HIP_MEMORY_SCOPE_SYSTEM);
}
DEVICE void or_system(u32* word, u32 bits) {
    __hip_atomic_fetch_or(word, bits, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_SYSTEM);
}

DEVICE float float_of_bits(u32 bits) { return __uint_as_float(bits); }
DEVICE u32 bits_of_float(float value) { return __float_as_uint(value); }
DEVICE double double_of_bits(u64 bits) { return __longlong_as_double((i64)bits); }
DEVICE u64 bits_of_double(double value) { return (u64)__double_as_longlong(value); }
DEVICE float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
DEVICE u32 recomputed(u32 value) {
    asm volatile("" : "+v"(value));
    return value;
}
DEVICE float square_root(float value) { return sqrtf(value); }
DEVICE double square_root(double value) { return sqrt(value); }
DEVICE float widen_f16(u16 bits) { return (float)__builtin_bit_cast(_Float16, bits); }
// By name: compilers join a product and its conversion into one instruction, which would round once and not twice.
DEVICE u16 narrow_f16(float value) {
    u32 bits;
    asm("v_cvt_f16_f32 %0, %1" : "=v"(bits) : "v"(value));
    return (u16)bits;
}
// Nothing converts several elements at once here.
DEVICE bool widen_f16_all(float*, const u16*, u32) { return false; }
DEVICE bool narrow_f16_all(u16*, const float*, u32) { return false; }

#else

#include "host/dialect.h"

#endif
