// SPDX-License-Identifier: MPL-2.0
//
// What a strict launch can fail by, and what is said of it.
#pragma once

#include <cstdint>

#include "../words.h"
#include "memory.h"

namespace host::strict {

// By these numbers it is known in src/driver/host/strict/fault.rs.
enum class Wrong : uint32_t {
    NOTHING,
    ENDED,      // `thread` ended without a barrier (`place`) that `other` waits at
    APART,      // `thread` came to a barrier (`place`) while `other` waits at another (`other_place`)
    ENDED_WARP, // as ENDED, of a warp
    APART_WARP, // as APART, of a warp
    NO_LANE,    // `thread` asks for lane `asked` of its warp at `place`
    OUTSIDE,    // `thread` accesses memory that is nobody's; `near` is what begins before it, if anything does
    CONSTANT,   // `thread` writes to the kernel's argument, or to the module's constants
    UNALIGNED,  // `thread` accesses memory that is not aligned to the access
    RACE,       // `thread` accesses shared memory that `other` has accessed (`other_from`), with no barrier between
    NO_STACKS,  // no memory for the stacks of threads
};

// An access to memory.
struct Access {
    uintptr_t address = 0;
    uint64_t bytes = 0;
    uint32_t how = 0; // bits of module.h
    const void* from = nullptr;
};

struct Fault {
    Wrong wrong = Wrong::NOTHING;
    uint32_t block = 0;
    uint32_t thread = 0;
    uint32_t other = 0;
    uint32_t asked = 0;
    uint32_t other_wrote = 0; // RACE: whether the other's access was a write
    Place place{};
    Place other_place{};
    Access access;
    const void* other_from = nullptr;
    Range near;
};

// A read of shared memory that no thread of the block had written.
struct Unwritten {
    uint32_t block = 0;
    uint32_t thread = 0;
    const void* from = nullptr; // null: there was none
};

} // namespace host::strict
