// SPDX-License-Identifier: MPL-2.0
//
// Modules and launches. A module is any bundle that has an object for gfx90a; its functions are all kernels that the
// stand-in was built with, since what is in the object is not looked at.
#include "hip.h"

#include <cstring>

DRIVER hipModuleLoadData(void** module, const void* image) {
    HIP;
    static const char MAGIC[] = "__CLANG_OFFLOAD_BUNDLE__", TARGET[] = "amdgcn-amd-amdhsa--gfx90a";
    const char* bundle = static_cast<const char*>(image);
    if (std::strncmp(bundle, MAGIC, sizeof MAGIC - 1) != 0) return INVALID_IMAGE;
    uint64_t entries;
    std::memcpy(&entries, bundle + sizeof MAGIC - 1, sizeof entries);
    const char* entry = bundle + sizeof MAGIC - 1 + sizeof entries;
    bool found = false;
    // Each: offset, bytes, and the length of the name, which follows.
    for (uint64_t words[3]; entries != 0; --entries, entry += sizeof words + words[2]) {
        std::memcpy(words, entry, sizeof words);
        const std::string name(entry + sizeof words, words[2]);
        found = found || name.find(TARGET) != std::string::npos;
    }
    if (!found) return NO_BINARY_FOR_GPU;
    const Lock lock(state().lock);
    auto made = std::make_unique<Module>(Module{current, "", {}});
    *module = made.get();
    state().modules.emplace(*module, std::move(made));
    return SUCCESS;
}

DRIVER hipModuleGetFunction(void** function, void* module, const char* name) {
    HIP;
    const Result result = cuModuleGetFunction(function, module, name);
    const Lock lock(state().lock);
    // All of the shared memory, without being asked.
    if (result == SUCCESS) state().functions.at(*function)->max_dynamic_shared = 65536;
    return result;
}

DRIVER hipModuleOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void* function, int threads, size_t shared) {
    HIP;
    return cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks, function, threads, shared);
}

DRIVER hipModuleLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                             unsigned block_y, unsigned block_z, unsigned shared, void* stream, void** parameters,
                             void** extra) {
    HIP;
    return cuLaunchKernel(function, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared, stream, parameters,
                          extra);
}
