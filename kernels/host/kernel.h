// SPDX-License-Identifier: MPL-2.0
//
// The kernels of this program, by name. KERNEL (dialect.h) adds each before main begins.
#pragma once

#include <cstddef>
#include <cstdint>

namespace host {

struct Kernel {
    const char* name;
    void (*run)(const void* args); // what one GPU thread does
    size_t argument_bytes;
    size_t argument_alignment;
    const char* file; // where it is, as its compiler was told
};

// One entry of the list, of static storage; never changed after it was added.
class Registered {
public:
    explicit Registered(const Kernel& kernel);

private:
    friend const Kernel* find(const char* name);
    const Kernel kernel_;
    const Registered* const next_;
};

// The kernel of that name, or null.
const Kernel* find(const char* name);

} // namespace host
