// SPDX-License-Identifier: MPL-2.0
//
// The executor of PTX as a library for tests: texts are read, and their kernels launched by name, at the same time for
// all ranks.
#include "../../kernels/library/ranks.h"
#include "../ptx.h"

#include <cstdio>
#include <map>

static std::map<std::string, ptx::Entry>& entries() {
    static auto& all = *new std::map<std::string, ptx::Entry>;
    return all;
}

// Reads all kernels of a text. 0, or 1 and why not.
extern "C" int annulus_read(const char* text, char* mistake, size_t length) {
    try {
        for (const std::string& name : ptx::names(text)) entries()[name] = ptx::read(text, name);
        return 0;
    } catch (const ptx::Mistake& found) {
        std::snprintf(mistake, length, "%s", found.what());
        return 1;
    }
}

// Launches a kernel once for each rank, with `bytes` of arguments each, one after the other in memory; all at once, and
// `times` in a row for each. They may touch memory from `begin` up to `end`, or any where that is 0. 0: all ended well;
// 1: there is no such kernel; 2: a launch ended otherwise; 3: at a misaligned address; 4: at one that it may not touch.
static int launch(const char* name, const void* arguments, size_t bytes, uint32_t ranks, uint32_t blocks,
                  uint32_t threads, uint32_t times, uint64_t begin, uint64_t end) {
    const auto found = entries().find(name);
    if (found == entries().end() || found->second.argument_bytes != bytes) return 1;
    const ptx::Entry& entry = found->second;
    return by_all_ranks(ranks, times, [&](uint32_t rank) {
        const host::Kernel kernel = {name, ptx::run, sizeof(ptx::Launch), alignof(ptx::Launch), "PTX"};
        ptx::Launch launch{&entry, static_cast<const char*>(arguments) + rank * bytes, 0, {}};
        if (end != 0) launch.memory = {{begin, end}};
        const host::Ended ended = device().run({&kernel, &launch, blocks, threads, 0}).ended;
        switch (launch.fault.load(std::memory_order_relaxed)) {
            case ptx::Fault::MISALIGNED: return 3;
            case ptx::Fault::ILLEGAL: return 4;
            default: return ended == host::Ended::WELL ? 0 : 2;
        }
    });
}

extern "C" int annulus_launch(const char* name, const void* arguments, size_t bytes, uint32_t ranks, uint32_t blocks,
                              uint32_t threads, uint32_t times) {
    return launch(name, arguments, bytes, ranks, blocks, threads, times, 0, 0);
}

extern "C" int annulus_launch_within(const char* name, const void* arguments, size_t bytes, uint32_t blocks,
                                     uint32_t threads, uint64_t begin, uint64_t end) {
    return launch(name, arguments, bytes, 1, blocks, threads, 1, begin, end);
}
