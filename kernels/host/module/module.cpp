// SPDX-License-Identifier: MPL-2.0
//
// A module's side of module.h: the dialect's words, and what the compiler calls at accesses to memory.
//
// Kernels are compiled with -fsanitize=thread, for which GCC and clang insert a call before each load and store, and
// replace each atomic operation by a call. The functions that they call are those of this file and not ThreadSanitizer's:
// a module is not linked with it, and exports none of them. This file itself, and kernel.cpp, are compiled without.
#include "module.h"

#define CALLED extern "C" __attribute__((visibility("hidden"), used))
#define FROM __builtin_return_address(0)

namespace host {

__thread Here here;

static const Runtime* runtime;

void sync_block(Place place) { runtime->sync_block(place); }
void sync_warp(Place place) { runtime->sync_warp(place); }
uint64_t from_lane(uint64_t value, uint32_t lane, Place place) { return runtime->from_lane(value, lane, place); }
void pause() { runtime->pause(); }

// Constructors of the module's own objects run before there is anybody to tell.
static inline void access(const void* memory, size_t bytes, uint32_t how, const void* from) {
    if (runtime != nullptr) runtime->access(memory, bytes, how, from);
}

static void copy(void* to, const void* from, size_t bytes, const void* caller) {
    access(from, bytes, UNALIGNED, caller);
    access(to, bytes, WRITES | UNALIGNED, caller);
}

} // namespace host

using host::access;
using host::ATOMIC;
using host::READS;
using host::UNALIGNED;
using host::WRITES;

extern "C" __attribute__((visibility("default"))) host::Module annulus_module(const host::Runtime* runtime) {
    host::runtime = runtime;
    return {host::find, [] { return &host::here; }};
}

CALLED void __tsan_init() {}
CALLED void __tsan_func_entry(void*) {}
CALLED void __tsan_func_exit() {}
CALLED void __tsan_vptr_update(void**, void*) {}
CALLED void __tsan_vptr_read(void**) {}
CALLED void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
CALLED void __tsan_atomic_signal_fence(int) { __atomic_signal_fence(__ATOMIC_SEQ_CST); }
CALLED void __tsan_read_range(const void* memory, size_t bytes) { access(memory, bytes, UNALIGNED, FROM); }
CALLED void __tsan_write_range(const void* memory, size_t bytes) { access(memory, bytes, WRITES | UNALIGNED, FROM); }

// Copies and fills by the C library, as clang calls them, and as the linker is told to wrap them (--wrap).
#define LIBRARY(NAME, PARAMETERS, TOLD, ARGUMENTS)                                                                     \
    extern "C" void* __real_##NAME PARAMETERS;                                                                         \
    CALLED void* __wrap_##NAME PARAMETERS {                                                                            \
        TOLD;                                                                                                          \
        return __real_##NAME ARGUMENTS;                                                                                \
    }                                                                                                                  \
    CALLED void* __tsan_##NAME PARAMETERS {                                                                            \
        TOLD;                                                                                                          \
        return __real_##NAME ARGUMENTS;                                                                                \
    }
LIBRARY(memcpy, (void* to, const void* from, size_t bytes), host::copy(to, from, bytes, FROM), (to, from, bytes))
LIBRARY(memmove, (void* to, const void* from, size_t bytes), host::copy(to, from, bytes, FROM), (to, from, bytes))
LIBRARY(memset, (void* to, int value, size_t bytes), access(to, bytes, WRITES | UNALIGNED, FROM), (to, value, bytes))

#define PLAIN(BYTES)                                                                                                   \
    CALLED void __tsan_read##BYTES(const void* memory) { access(memory, BYTES, 0, FROM); }                             \
    CALLED void __tsan_write##BYTES(const void* memory) { access(memory, BYTES, WRITES, FROM); }                       \
    CALLED void __tsan_volatile_read##BYTES(const void* memory) { access(memory, BYTES, 0, FROM); }                    \
    CALLED void __tsan_volatile_write##BYTES(const void* memory) { access(memory, BYTES, WRITES, FROM); }              \
    CALLED void __tsan_unaligned_read##BYTES(const void* memory) { access(memory, BYTES, UNALIGNED, FROM); }           \
    CALLED void __tsan_unaligned_write##BYTES(const void* memory) { access(memory, BYTES, WRITES | UNALIGNED, FROM); } \
    CALLED void __tsan_read_write##BYTES(const void* memory) { access(memory, BYTES, READS | WRITES, FROM); }          \
    CALLED void __tsan_unaligned_read_write##BYTES(const void* memory) {                                               \
        access(memory, BYTES, READS | WRITES | UNALIGNED, FROM);                                                       \
    }
PLAIN(1)
PLAIN(2)
PLAIN(4)
PLAIN(8)
PLAIN(16)

// All of them as if sequentially consistent was asked for, which every order allows.
#define FETCH(BITS, NAME)                                                                                              \
    CALLED uint##BITS##_t __tsan_atomic##BITS##_fetch_##NAME(volatile uint##BITS##_t* word, uint##BITS##_t value, int) { \
        access(const_cast<const uint##BITS##_t*>(word), BITS / 8, READS | WRITES | ATOMIC, FROM);                      \
        return __atomic_fetch_##NAME(word, value, __ATOMIC_SEQ_CST);                                                   \
    }
#define EXCHANGE(BITS, STRENGTH, WEAK)                                                                                 \
    CALLED int __tsan_atomic##BITS##_compare_exchange_##STRENGTH(volatile uint##BITS##_t* word,                        \
                                                                 uint##BITS##_t* expected, uint##BITS##_t value, int,  \
                                                                 int) {                                                \
        access(const_cast<const uint##BITS##_t*>(word), BITS / 8, READS | WRITES | ATOMIC, FROM);                      \
        return __atomic_compare_exchange_n(word, expected, value, WEAK, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);           \
    }
#define ATOMICS(BITS)                                                                                                  \
    CALLED uint##BITS##_t __tsan_atomic##BITS##_load(const volatile uint##BITS##_t* word, int) {                       \
        access(const_cast<const uint##BITS##_t*>(word), BITS / 8, ATOMIC, FROM);                                       \
        return __atomic_load_n(word, __ATOMIC_SEQ_CST);                                                                \
    }                                                                                                                  \
    CALLED void __tsan_atomic##BITS##_store(volatile uint##BITS##_t* word, uint##BITS##_t value, int) {                \
        access(const_cast<const uint##BITS##_t*>(word), BITS / 8, WRITES | ATOMIC, FROM);                              \
        __atomic_store_n(word, value, __ATOMIC_SEQ_CST);                                                               \
    }                                                                                                                  \
    CALLED uint##BITS##_t __tsan_atomic##BITS##_exchange(volatile uint##BITS##_t* word, uint##BITS##_t value, int) {   \
        access(const_cast<const uint##BITS##_t*>(word), BITS / 8, READS | WRITES | ATOMIC, FROM);                      \
        return __atomic_exchange_n(word, value, __ATOMIC_SEQ_CST);                                                     \
    }                                                                                                                  \
    FETCH(BITS, add)                                                                                                   \
    FETCH(BITS, sub)                                                                                                   \
    FETCH(BITS, and)                                                                                                   \
    FETCH(BITS, or)                                                                                                    \
    FETCH(BITS, xor)                                                                                                   \
    EXCHANGE(BITS, strong, false)                                                                                      \
    EXCHANGE(BITS, weak, true)                                                                                         \
    CALLED uint##BITS##_t __tsan_atomic##BITS##_compare_exchange_val(                                                  \
        volatile uint##BITS##_t* word, uint##BITS##_t expected, uint##BITS##_t value, int, int) {                      \
        access(const_cast<const uint##BITS##_t*>(word), BITS / 8, READS | WRITES | ATOMIC, FROM);                      \
        __atomic_compare_exchange_n(word, &expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                \
        return expected;                                                                                               \
    }
ATOMICS(8)
ATOMICS(16)
ATOMICS(32)
ATOMICS(64)
