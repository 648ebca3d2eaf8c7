// SPDX-License-Identifier: MPL-2.0
//
// The list behind kernel.h. It is built by constructors of static objects, one after the other, and only read later.
#include "kernel.h"

#include <cstring>

namespace host {

// Zero before the first constructor runs, whatever their order is.
static const Registered* first = nullptr;

Registered::Registered(const Kernel& kernel) : kernel_(kernel), next_(first) { first = this; }

const Kernel* find(const char* name) {
    for (const Registered* entry = first; entry != nullptr; entry = entry->next_)
        if (std::strcmp(entry->kernel_.name, name) == 0) return &entry->kernel_;
    return nullptr;
}

} // namespace host
