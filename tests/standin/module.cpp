// SPDX-License-Identifier: MPL-2.0
//
// Modules, functions and launches. A module is a text that reads like PTX for this device, whose kernels are executed as
// they stand there (../ptx).
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
    auto module = std::make_unique<Module>(Module{&context, text, {}});
    if (const Result result = judge(module->image); result != SUCCESS) return result;
    for (std::string& name : ptx::names(module->image)) module->names.insert(std::move(name));
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

DRIVER cuModuleGetFunction(void** handle, void* module_handle, const char* name) {
    ENTER_CONTEXT;
    if (handle == nullptr || name == nullptr) return INVALID_VALUE;
    const auto module = state().modules.find(module_handle);
    if (module == state().modules.end()) return INVALID_HANDLE;
    const bool is_text = !module->second->image.empty();
    const host::Kernel* const kernel = is_text ? nullptr : host::find(name);
    if (is_text ? module->second->names.count(name) == 0 : kernel == nullptr) return NOT_FOUND;
    auto function = std::make_unique<Function>(Function{module->second.get(), name, SHARED_DEFAULT, nullptr, kernel});
    *handle = function.get();
    state().functions.emplace(*handle, std::move(function));
    return SUCCESS;
}

static Function* find_function(Context& context, void* handle) {
    const auto found = state().functions.find(handle);
    if (found == state().functions.end() || found->second->module->context != &context) return nullptr;
    return found->second.get();
}

// Reads a function's text, when it is first asked for. A driver would have refused the module.
static Result read_text(Function& function) {
    if (function.entry != nullptr || function.kernel != nullptr) return SUCCESS;
    try {
        function.entry = std::make_shared<const ptx::Entry>(ptx::read(function.module->image, function.name));
        return SUCCESS;
    } catch (const ptx::Mistake& mistake) {
        std::fprintf(stderr, "stand-in: %s\n", mistake.what());
        return INVALID_PTX;
    }
}

// The most threads of a block that the function may be launched with.
static uint32_t most_threads(const Context& context, const Function& function) {
    const uint32_t of_device = context.compute.model().threads_per_block;
    return function.entry == nullptr ? of_device : std::min(of_device, function.entry->most_threads);
}

// How many of its blocks a multiprocessor has room for.
static uint32_t resident_blocks(const Context& context, const Function& function, uint32_t threads, size_t shared) {
    if (threads > most_threads(context, function) || shared > static_cast<size_t>(function.max_dynamic_shared)) return 0;
    const uint32_t fixed = function.entry == nullptr ? 0 : function.entry->shared_bytes;
    return context.compute.model().resident_blocks(threads, fixed + static_cast<uint32_t>(shared));
}

DRIVER cuFuncLoad(void* handle) {
    ENTER_CONTEXT;
    return find_function(context, handle) == nullptr ? INVALID_HANDLE : SUCCESS;
}

DRIVER cuFuncGetAttribute(int* value, int which, void* handle) {
    ENTER_CONTEXT;
    Function* function = find_function(context, handle);
    if (function == nullptr) return INVALID_HANDLE;
    if (value == nullptr) return INVALID_VALUE;
    if (const Result result = which == 0 ? read_text(*function) : SUCCESS; result != SUCCESS) return result;
    int major = 0, minor = 0;
    std::sscanf(directive(function->module->image, ".version"), "%d.%d", &major, &minor);
    switch (which) {
        case 0: *value = static_cast<int>(most_threads(context, *function)); return SUCCESS;
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
    Function* function = find_function(context, handle);
    if (function == nullptr) return INVALID_HANDLE;
    if (blocks == nullptr || threads <= 0) return INVALID_VALUE;
    if (const Result result = read_text(*function); result != SUCCESS) return result;
    *blocks = static_cast<int>(resident_blocks(context, *function, static_cast<uint32_t>(threads), shared));
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

// Runs a launch of a text.
static void execute(Context& context, const ptx::Entry& entry, const void* argument, uint32_t blocks, uint32_t threads,
                    uint32_t shared) {
    ptx::Launch launch{&entry, argument, shared, {}};
    {
        const Lock lock(state().lock);
        launch.memory = addressed(context);
    }
    const host::Kernel kernel = {entry.name.c_str(), ptx::run, sizeof launch, alignof(ptx::Launch), "PTX"};
    judge_outcome(context, kernel.name, context.compute.run({&kernel, &launch, blocks, threads, shared}));
    const ptx::Fault fault = launch.fault.load(std::memory_order_relaxed);
    if (fault == ptx::Fault::NONE) return;
    const Lock lock(state().lock);
    context.fault = fault == ptx::Fault::MISALIGNED ? MISALIGNED_ADDRESS : ILLEGAL_ADDRESS;
}

struct Dimensions {
    unsigned x, y, z;
};

static Result launch(Context& context, void* handle, Dimensions grid, Dimensions block, unsigned shared,
                     void* stream_handle, void** parameters, bool cooperative) {
    Function* function = find_function(context, handle);
    const auto stream = find_stream(context, stream_handle);
    if (function == nullptr || stream == nullptr) return INVALID_HANDLE;
    for (const Dimensions& size : {grid, block})
        if (size.x == 0 || size.y == 0 || size.z == 0 || size.x > 2147483647u) return INVALID_VALUE;
    // Our kernels have one dimension, and the host executes no other.
    for (const Dimensions& size : {grid, block})
        if (size.y != 1 || size.z != 1) return NOT_SUPPORTED;
    if (parameters == nullptr || parameters[0] == nullptr) return INVALID_VALUE;
    if (const Result result = read_text(*function); result != SUCCESS) return result;
    if (block.x > most_threads(context, *function) || shared > static_cast<unsigned>(function->max_dynamic_shared))
        return INVALID_VALUE;
    const uint32_t resident = resident_blocks(context, *function, block.x, shared);
    if (resident == 0) return LAUNCH_OUT_OF_RESOURCES;
    if (cooperative && grid.x > resident * context.compute.model().multiprocessors) return COOPERATIVE_LAUNCH_TOO_LARGE;
    const bool is_text = function->entry != nullptr;
    // The arguments are read now, and kept as long as the launch may run again.
    const size_t bytes = is_text ? function->entry->argument_bytes : function->kernel->argument_bytes;
    const size_t alignment =
        std::max(is_text ? 0 : function->kernel->argument_alignment, alignof(std::max_align_t));
    const std::shared_ptr<void> args(std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment),
                                     std::free);
    if (args == nullptr) return OUT_OF_MEMORY;
    std::memcpy(args.get(), parameters[0], bytes);
    if (!may_address(context, args.get(), bytes)) {
        // A card notices when the kernel touches it.
        context.fault = ILLEGAL_ADDRESS;
        return SUCCESS;
    }
    Context* where = &context;
    Work work;
    if (is_text) {
        work = [where, entry = function->entry, args, grid, block, shared] {
            execute(*where, *entry, args.get(), grid.x, block.x, shared);
        };
    } else {
        work = [where, kernel = function->kernel, args, grid, block, shared] {
            judge_outcome(*where, kernel->name, where->compute.run({kernel, args.get(), grid.x, block.x, shared}));
        };
    }
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
