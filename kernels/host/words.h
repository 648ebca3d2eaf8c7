// SPDX-License-Identifier: MPL-2.0
//
// What the dialect's words are on the host. Whoever executes kernels defines them: block.cpp, and module/module.cpp for
// strict devices.
#pragma once

#include <cstdint>

namespace host {

// Threads of a warp, of every device that executes kernels on the host.
constexpr uint32_t WARP = 32;

// Where the running GPU thread is.
struct Here {
    uint32_t block, blocks, thread, threads;
    char* dynamic; // the block's dynamic shared memory
};
extern __thread Here here;

// Where a word stands in the source.
struct Place {
    const char* file;
    int line;
};

void sync_block(Place place);
void sync_warp(Place place);
uint64_t from_lane(uint64_t value, uint32_t lane, Place place);
void pause();

} // namespace host
