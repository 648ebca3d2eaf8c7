// SPDX-License-Identifier: MPL-2.0
//
// The kernels as a library for tests: launches by name, at the same time for all ranks, and the layout of arguments.
#include "../../../kernels/convert.cu"
#include "../../../kernels/flags.cu"
#include "../../../kernels/fold.cu"
#include "../../../kernels/fold_partials.cu"
#include "../../../kernels/messages.cu"
#include "../../../kernels/one_shot.cu"
#include "../../../kernels/pad.h"
#include "../../../kernels/relay.cu"
#include "ranks.h"

#include <cstddef>
#include <cstdio>

// Launches a kernel once for each rank, with `bytes` of arguments each, one after the other in memory; all at once, and
// `times` in a row for each. 0: all ended well; 1: there is no such kernel; 2: a launch ended otherwise.
extern "C" int annulus_launch(const char* name, const void* arguments, size_t bytes, uint32_t ranks, uint32_t blocks,
                              uint32_t threads, uint32_t times) {
    const host::Kernel* const kernel = host::find(name);
    if (kernel == nullptr || kernel->argument_bytes != bytes) return 1;
    return by_all_ranks(ranks, times, [&](uint32_t rank) {
        const char* const own = static_cast<const char*>(arguments) + rank * bytes;
        return device().run({kernel, own, blocks, threads, 0}).ended == host::Ended::WELL ? 0 : 2;
    });
}

// Writes a line for each field of each struct that kernels are given or share: struct, field, offset, size; and the
// constant that the host must know.
extern "C" void annulus_layout(char* to, size_t length) {
    size_t at = 0;
#define FIELD(Struct, field)                                                                                           \
    at += static_cast<size_t>(std::snprintf(to + at, length - at, "%s %s %zu %zu\n", #Struct, #field,                  \
                                            offsetof(Struct, field), sizeof(Struct::field)));
#define WHOLE(Struct)                                                                                                  \
    at += static_cast<size_t>(std::snprintf(to + at, length - at, "%s %s %zu %zu\n", #Struct, "-", size_t(0),          \
                                            sizeof(Struct)));
#include "layout.h"
    std::snprintf(to + at, length - at, "ALWAYS_STAGED %llu\n", ALWAYS_STAGED);
}
