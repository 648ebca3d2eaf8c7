// SPDX-License-Identifier: MPL-2.0
//
// The ranges, in order, under one lock that readers share.
#include "memory.h"

#include <atomic>
#include <map>
#include <mutex>
#include <shared_mutex>

namespace host::strict {

// Never destroyed, since threads may still run blocks while the process ends.
struct Ranges {
    std::shared_mutex lock;
    std::map<uintptr_t, size_t> bytes; // by where a range begins
    std::atomic<uint64_t> changes{0};
};

static Ranges& ranges() {
    static Ranges& all = *new Ranges;
    return all;
}

void add_memory(Range range) {
    const std::unique_lock<std::shared_mutex> lock(ranges().lock);
    ranges().bytes[range.begin] = range.bytes;
}

void remove_memory(uintptr_t begin) {
    const std::unique_lock<std::shared_mutex> lock(ranges().lock);
    ranges().bytes.erase(begin);
    // Relaxed: who frees memory that a kernel is about to access is at fault whether this is seen at once or not.
    ranges().changes.fetch_add(1, std::memory_order_relaxed);
}

uint64_t changes() { return ranges().changes.load(std::memory_order_relaxed); }

Range range_before(uintptr_t address) {
    const std::shared_lock<std::shared_mutex> lock(ranges().lock);
    auto after = ranges().bytes.upper_bound(address);
    if (after == ranges().bytes.begin()) return {};
    --after;
    return {after->first, after->second};
}

} // namespace host::strict
