// SPDX-License-Identifier: MPL-2.0
//
// Which memory kernels may access: what this process's simulated devices have allocated or imported.
//
// Whoever allocates adds a range, and removes it before the memory goes. Runs look ranges up by address; each keeps the
// range that it found last, which is right as long as `changes()` says the same.
#pragma once

#include <cstddef>
#include <cstdint>

namespace host::strict {

struct Range {
    uintptr_t begin = 0;
    size_t bytes = 0;

    bool holds(uintptr_t address, size_t count) const {
        return address - begin < bytes && count <= bytes - (address - begin);
    }
};

void add_memory(Range range);
void remove_memory(uintptr_t begin);

// How often a range was removed.
uint64_t changes();

// The range that begins last at or before the address; of no bytes where there is none.
Range range_before(uintptr_t address);

} // namespace host::strict
