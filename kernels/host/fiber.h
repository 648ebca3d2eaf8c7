// SPDX-License-Identifier: MPL-2.0
//
// A fiber: a stack, and where its execution stands. GPU threads that wait are fibers.
//
// A switch saves the registers that a call preserves and no others: about ten instructions, by hand for x86-64 and
// aarch64, ucontext elsewhere. Floating-point control words belong to the thread of the operating system.
#pragma once

#include <cstddef>
#include <cstdint>

#include "sanitizers.h"

#if !defined(__x86_64__) && !defined(__aarch64__) && !defined(HOST_UCONTEXT)
#define HOST_UCONTEXT 1
#endif
#if HOST_UCONTEXT
#include <ucontext.h>
#endif

namespace host {

struct Fiber {
#if HOST_UCONTEXT
    ucontext_t context;
#else
    void* stack_pointer; // what was saved lies there
#endif
    char* stack;       // its lowest byte; null for the stack of the thread of the operating system
    size_t stack_size; // bytes
    Fiber* next;       // in whichever list it is
    uint32_t thread;   // the GPU thread that runs on it
#if HOST_TSAN
    void* tsan; // what ThreadSanitizer knows it by
#endif
#if HOST_ASAN
    void* fake_stack;
#endif
};

// Makes the next switch to the fiber begin `entry` on an empty stack, whatever it did before. `entry` never returns.
void prepare(Fiber& fiber, void (*entry)());

// Must come first in `entry`; `before` is the fiber that was switched from, and may be a thread's own stack.
void entered(Fiber& before);

// Leaves `from`, which is the running one, and continues `to`. Returns when somebody switches back to `from`.
void switch_fiber(Fiber& from, Fiber& to);

// A fiber with a stack from the pool, or null where memory ends. A guard page lies below the stack, the fiber above it.
Fiber* take_fiber();

// Puts a list of fibers, linked by `next`, back into the pool.
void give_back(Fiber* list);

} // namespace host
