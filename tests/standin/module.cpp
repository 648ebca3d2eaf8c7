// SPDX-License-Identifier: MPL-2.0
//
// Modules, functions and launches. A module is any text that reads like PTX for this device; its functions are the
// kernels of the same names that the stand-in was built with.
#include "driver.h"

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <cstring>

constexpr int SHARED_DEFAULT = 49152, SHARED_MOST = 232448; // bytes of dynamic shared memory

// The text after a directive at the begin of a line, or null.
static const char* directive(const std::string& image, const char* name) {
    for (size_t at = image.find(name); at != std::string::npos; at = image.find(name, at + 1)) {
        const char* after = image.c_str() + at + std::strlen(name);
        if ((at == 0 || image[at - 1] == '\n') && std::isspace(static_cast<unsigned char>(*after))) return after;
    }
    return nullptr;
}

// What a driver says of PTX that it is to compile for compute capability 9.0.
static Result judge(const std::string& image) {
    const char* language = directive(image, ".version");
    const char* target = directive(image, ".target");
    int major, minor, capability;
    if (language == nullptr || std::sscanf(language, "%d.%d", &major, &minor) != 2) return INVALID_PTX;
    if (target == nullptr || std::sscanf(target, " sm_%d", &capability) != 1) return INVALID_PTX;
    const int newest = version() < 12000 ? 78 : 88;
    if (10 * major + minor > newest) return UNSUPPORTED_PTX_VERSION;
    return capability > 90 ? NO_BINARY_FOR_GPU : SUCCESS;
}

DRIVER cuModuleLoadData(void** handle, const void* image) {
    ENTER_CONTEXT;
    if (handle == nullptr || image == nullptr) return INVALID_VALUE;
    const char* text = static_cast<const char*>(image);
    if (std::strncmp(text, "\x7f" "ELF", 4) == 0) return INVALID_IMAGE;
    auto module = std::make_unique<Module>(Module{&context, text});
    if (const Result result = judge(module->image); result != SUCCESS) return result;
    *handle = module.get();
    state().modules.emplace(*handle, std::move(module));
    return SUCCESS;
}

DRIVER cuModuleUnload(void* handle) {
    ENTER_CONTEXT;
    const auto found = state().modules.find(handle);
    if (found == state().modules.end()) return INVALID_HANDLE;
    for (auto entry = state().functions.begin(); entry != state().functions.end();)
        entry = entry->second->module == handle ? state().functions.erase(entry) : std::next(entry);
    state().modules.erase(found);
    return SUCCESS;
}

static bool has_entry(const std::string& image, const std::string& name) {
    for (size_t at = image.find(".entry"); at != std::string::npos; at = image.find(".entry", at + 1)) {
        const char* after = image.c_str() + at + std::strlen(".entry");
        while (std::isspace(static_cast<unsigned char>(*after))) ++after;
        if (std::strncmp(after, name.c_str(), name.size()) != 0) continue;
        after += name.size();
        while (std::isspace(static_cast<unsigned char>(*after))) ++after;
        if (*after == '(') return true;
    }
    return false;
}

DRIVER cuModuleGetFunction(void** handle, void* module_handle, const char* name) {
    ENTER_CONTEXT;
    if (handle == nullptr || name == nullptr) return INVALID_VALUE;
    const auto module = state().modules.find(module_handle);
    if (module == state().modules.end()) return INVALID_HANDLE;
    // An empty image is one of HIP's, whose entries are not read.
    const std::string& text = module->second->image;
    if (!text.empty() && !has_entry(text, name)) return NOT_FOUND;
    const host::Kernel* kernel = host::find(name);
    if (kernel == nullptr) {
        std::fprintf(stderr, "stand-in: it was built without %s, which the module has\n", name);
        return NOT_FOUND;
    }
    auto function = std::make_unique<Function>(Function{module->second.get(), kernel, SHARED_DEFAULT});
    *handle = function.get();
    state().functions.emplace(*handle, std::move(function));
    return SUCCESS;
}

static Function* find_function(Context& context, void* handle) {
    const auto found = state().functions.find(handle);
    if (found == state().functions.end() || found->second->module->context != &context) return nullptr;
    return found->second.get();
}

DRIVER cuFuncLoad(void* handle) {
    ENTER_CONTEXT;
    return find_function(context, handle) == nullptr ? INVALID_HANDLE : SUCCESS;
}

DRIVER cuFuncGetAttribute(int* value, int which, void* handle) {
    ENTER_CONTEXT;
    const Function* function = find_function(context, handle);
    if (function == nullptr) return INVALID_HANDLE;
    if (value == nullptr) return INVALID_VALUE;
    int major = 0, minor = 0;
    std::sscanf(directive(function->module->image, ".version"), "%d.%d", &major, &minor);
    switch (which) {
        case 0: *value = static_cast<int>(context.compute.model().threads_per_block); return SUCCESS;
        case 1: case 2: case 3: case 7: *value = 0; return SUCCESS; // shared, constant, local bytes; cache mode
        case 4: *value = 32; return SUCCESS;                        // registers
        case 5: *value = 10 * major + minor; return SUCCESS;
        case 6: *value = 90; return SUCCESS;
        case 8: *value = function->max_dynamic_shared; return SUCCESS;
        case 9: *value = -1; return SUCCESS;
        default: return INVALID_VALUE;
    }
}

DRIVER cuFuncSetAttribute(void* handle, int which, int value) {
    ENTER_CONTEXT;
    Function* function = find_function(context, handle);
    if (function == nullptr) return INVALID_HANDLE;
    if (which == 9) return value >= -1 && value <= 100 ? SUCCESS : INVALID_VALUE;
    if (which != 8 || value < 0 || value > SHARED_MOST) return INVALID_VALUE;
    function->max_dynamic_shared = value;
    return SUCCESS;
}

DRIVER cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void* handle, int threads, size_t shared) {
    ENTER_CONTEXT;
    const Function* function = find_function(context, handle);
    if (function == nullptr) return INVALID_HANDLE;
    if (blocks == nullptr || threads <= 0) return INVALID_VALUE;
    const bool fits = shared <= static_cast<size_t>(function->max_dynamic_shared);
    *blocks = fits ? static_cast<int>(context.compute.model().resident_blocks(static_cast<uint32_t>(threads),
                                                                             static_cast<uint32_t>(shared)))
                   : 0;
    return SUCCESS;
}

// Work that ran into something a card would not have survived, or that other cards do differently.
static void judge_outcome(Context& context, const char* kernel, const host::Outcome& outcome) {
    switch (outcome.ended) {
        case host::Ended::WELL: return;
        case host::Ended::MISSED:
            std::fprintf(stderr, "stand-in: %s: %u threads of block %u ended before a barrier that the others passed\n",
                         kernel, outcome.absent, outcome.block);
            return;
        case host::Ended::STUCK:
        case host::Ended::NO_STACKS:
            std::fprintf(stderr, "stand-in: %s: block %u could not be run to its end\n", kernel, outcome.block);
            const Lock lock(state().lock);
            context.fault = LAUNCH_FAILED;
    }
}

struct Dimensions {
    unsigned x, y, z;
};

static Result launch(Context& context, void* handle, Dimensions grid, Dimensions block, unsigned shared,
                     void* stream_handle, void** parameters, bool cooperative) {
    const Function* function = find_function(context, handle);
    const auto stream = find_stream(context, stream_handle);
    if (function == nullptr || stream == nullptr) return INVALID_HANDLE;
    const host::Model& model = context.compute.model();
    for (const Dimensions& size : {grid, block})
        if (size.x == 0 || size.y == 0 || size.z == 0 || size.x > 2147483647u) return INVALID_VALUE;
    // Our kernels have one dimension, and the host executes no other.
    for (const Dimensions& size : {grid, block})
        if (size.y != 1 || size.z != 1) return NOT_SUPPORTED;
    if (block.x > model.threads_per_block || shared > static_cast<unsigned>(function->max_dynamic_shared))
        return INVALID_VALUE;
    const uint32_t resident = model.resident_blocks(block.x, shared);
    if (resident == 0) return LAUNCH_OUT_OF_RESOURCES;
    if (cooperative && grid.x > resident * model.multiprocessors) return COOPERATIVE_LAUNCH_TOO_LARGE;
    const host::Kernel* kernel = function->kernel;
    if (parameters == nullptr || parameters[0] == nullptr) return INVALID_VALUE;
    // The arguments are read now, and kept as long as the launch may run again.
    const size_t alignment = std::max(kernel->argument_alignment, alignof(std::max_align_t));
    const size_t room = (kernel->argument_bytes + alignment - 1) / alignment * alignment;
    const std::shared_ptr<void> args(std::aligned_alloc(alignment, room), std::free);
    if (args == nullptr) return OUT_OF_MEMORY;
    std::memcpy(args.get(), parameters[0], kernel->argument_bytes);
    if (!may_address(context, args.get(), kernel->argument_bytes)) {
        // A card notices when the kernel touches it.
        context.fault = ILLEGAL_ADDRESS;
        return SUCCESS;
    }
    Context* where = &context;
    const Work work = [where, kernel, args, grid, block, shared] {
        judge_outcome(*where, kernel->name, where->compute.run({kernel, args.get(), grid.x, block.x, shared}));
    };
    return enqueue(stream, work, true);
}

DRIVER cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                      unsigned block_y, unsigned block_z, unsigned shared, void* stream, void** parameters,
                      void** extra) {
    ENTER_CONTEXT;
    if (extra != nullptr) return NOT_SUPPORTED;
    return launch(context, function, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared, stream, parameters,
                  false);
}

DRIVER cuLaunchCooperativeKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                                 unsigned block_y, unsigned block_z, unsigned shared, void* stream, void** parameters) {
    ENTER_CONTEXT;
    return launch(context, function, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared, stream, parameters,
                  true);
}
