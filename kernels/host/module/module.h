// SPDX-License-Identifier: MPL-2.0
//
// A module: kernels in a shared library of their own, compiled so that each access to memory is told to whoever executes
// them. Modules are for strict devices (../strict/run.h), which load them while the program runs.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../kernel.h"
#include "../words.h"

namespace host {

// How memory is accessed, as bits.
constexpr uint32_t WRITES = 1;
constexpr uint32_t ATOMIC = 2;
constexpr uint32_t READS = 4;     // where it writes too: what it writes depends on what is there
constexpr uint32_t UNALIGNED = 8; // the compiler knows that it may be

// What a module calls.
struct Runtime {
    void (*sync_block)(Place place);
    void (*sync_warp)(Place place);
    uint64_t (*from_lane)(uint64_t value, uint32_t lane, Place place);
    void (*pause)();
    // Before an access to memory; `from` is the return address of whoever accesses it. Returns if it is right.
    void (*access)(const void* memory, size_t bytes, uint32_t how, const void* from);
};

// What a module offers.
struct Module {
    const Kernel* (*find)(const char* name);
    // This thread's. SHARED memory is thread-local too, and the module has no other thread-local memory.
    Here* (*here)();
};

} // namespace host

// The one function that a module exports. To be called once, before all others.
extern "C" host::Module annulus_module(const host::Runtime* runtime);
