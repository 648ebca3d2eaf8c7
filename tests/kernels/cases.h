// SPDX-License-Identifier: MPL-2.0
//
// The cases of this program, and the small device on which they run: two multiprocessors of 256 threads and 4 blocks.
#pragma once

#include <cstdint>
#include <vector>

#include "../../kernels/host/block.h"

constexpr uint32_t RESIDENT_64 = 8;  // blocks of 64 threads that the device has room for
constexpr uint32_t RESIDENT_128 = 4; // .. of 128

struct Case {
    const char* name;
    void (*run)();
    Case* next;
    Case(const char* name, void (*run)());
};

// A case whose name begins with `planted` runs only when it is asked for.
#define CASE(name)                                                                                                     \
    static void name();                                                                                                \
    static Case name##_case(#name, name);                                                                              \
    static void name()

// Says where, and counts the case as failed, if it does not hold.
#define EXPECT(holds) expect((holds), #holds, __FILE__, __LINE__)
void expect(bool holds, const char* what, const char* file, int line);

// Under ThreadSanitizer a GPU thread costs about a millisecond.
#if defined(__SANITIZE_THREAD__)
constexpr bool COSTLY = true;
#else
constexpr bool COSTLY = false;
#endif

struct Shape {
    const char* kernel;
    const void* args;
    uint32_t blocks;
    uint32_t threads;
    uint32_t shared;
};

// Runs one launch to its end.
host::Outcome run(const Shape& shape);

// The same on a device that gives a block up after 50 ms at a barrier.
host::Outcome run_impatient(const Shape& shape);

// Runs launches at the same time, each from a thread of its own; they are asked for in this order.
std::vector<host::Outcome> run_together(const std::vector<Shape>& shapes);
