// SPDX-License-Identifier: MPL-2.0
//
// Initialisation, devices and their primary contexts.
#include "driver.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <vector>

thread_local Context* current = nullptr;

State& state() {
    static State& only = *new State;
    return only;
}

static host::Model model() {
    host::Model model;
    model.multiprocessors = multiprocessors();
    return model;
}

Context::Context(int ordinal) : device(ordinal), compute(model()) {}

DRIVER cuInit(unsigned flags) {
    ENTER;
    if (flags != 0) return INVALID_VALUE;
    if (devices() <= 0) return NO_DEVICE;
    for (int device = static_cast<int>(state().contexts.size()); device < devices(); ++device)
        state().contexts.push_back(std::make_unique<Context>(device));
    state().initialized = true;
    return SUCCESS;
}

DRIVER cuDriverGetVersion(int* to) {
    ENTER;
    if (to == nullptr) return INVALID_VALUE;
    *to = version();
    return SUCCESS;
}

DRIVER cuDeviceGetCount(int* count) {
    ENTER_INITIALIZED;
    if (count == nullptr) return INVALID_VALUE;
    *count = devices();
    return SUCCESS;
}

DRIVER cuDeviceGet(int* device, int ordinal) {
    ENTER_INITIALIZED;
    if (device == nullptr) return INVALID_VALUE;
    if (ordinal < 0 || ordinal >= devices()) return INVALID_DEVICE;
    *device = ordinal;
    return SUCCESS;
}

DRIVER cuDeviceGetName(char* name, int length, int device) {
    ENTER_INITIALIZED;
    if (name == nullptr || length <= 0) return INVALID_VALUE;
    if (device < 0 || device >= devices()) return INVALID_DEVICE;
    std::snprintf(name, static_cast<size_t>(length), "stand-in, no GPU");
    return SUCCESS;
}

// Of the card, whatever number it is seen under.
DRIVER cuDeviceGetUuid_v2(char (*uuid)[16], int device) {
    ENTER_INITIALIZED;
    if (uuid == nullptr) return INVALID_VALUE;
    if (device < 0 || device >= devices()) return INVALID_DEVICE;
    std::memcpy(*uuid, "stand-in, no GP", 15);
    (*uuid)[15] = static_cast<char>(card(device));
    return SUCCESS;
}

DRIVER cuDeviceGetPCIBusId(char* name, int length, int device) {
    ENTER_INITIALIZED;
    if (name == nullptr || length <= 0) return INVALID_VALUE;
    if (device < 0 || device >= devices()) return INVALID_DEVICE;
    std::snprintf(name, static_cast<size_t>(length), "0000:00:%02X.0", static_cast<unsigned>(card(device)));
    return SUCCESS;
}

DRIVER cuDeviceTotalMem_v2(size_t* bytes, int device) {
    ENTER_INITIALIZED;
    if (bytes == nullptr) return INVALID_VALUE;
    if (device < 0 || device >= devices()) return INVALID_DEVICE;
    *bytes = total_memory();
    return SUCCESS;
}

// By CUdevice_attribute; what is not listed is 0.
static int attribute(int which, int device, const host::Model& model) {
    switch (which) {
        case 1: return static_cast<int>(model.threads_per_block);
        case 2: case 3: return 1024; // block x, y
        case 4: return 64;           // block z
        case 5: return 2147483647;   // grid x
        case 6: case 7: return 65535; // grid y, z
        case 8: return 49152;         // shared memory of a block
        case 9: return 65536;         // constant memory
        case 10: return static_cast<int>(model.warp);
        case 11: return 2147483647; // pitch
        case 12: return 65536;      // registers of a block
        case 13: return 1000000;    // kHz
        case 15: return 1;          // copies overlap
        case 16: return static_cast<int>(model.multiprocessors);
        case 19: return 1;       // maps host memory
        case 31: return 1;       // concurrent kernels
        case 34: return card(device); // PCI device
        case 36: return 1000000; // memory clock, kHz
        case 37: return 64;      // memory bus, bits
        case 38: return 1 << 20; // L2, bytes
        case 39: return static_cast<int>(model.threads_per_multiprocessor);
        case 40: return 1; // copy engines
        case 41: return 1; // unified addresses
        case 75: return 9; // compute capability
        case 76: return 0;
        case 81: return static_cast<int>(model.shared_per_multiprocessor);
        case 82: return 65536;  // registers of a multiprocessor
        case 94: case 123: return 1; // wait value, NOR
        case 95: return 1;      // cooperative launch
        case 97: return 232448; // shared memory of a block that asks for more
        case 106: return static_cast<int>(model.blocks_per_multiprocessor);
        case 111: return static_cast<int>(model.shared_reserved_per_block);
        case 115: return 1; // memory pools
        default: return 0;
    }
}

DRIVER cuDeviceGetAttribute(int* value, int which, int device) {
    ENTER_INITIALIZED;
    if (value == nullptr || which < 1 || which > 150) return INVALID_VALUE;
    if (device < 0 || device >= devices()) return INVALID_DEVICE;
    *value = attribute(which, device, state().contexts[static_cast<size_t>(device)]->compute.model());
    return SUCCESS;
}

DRIVER cuDevicePrimaryCtxRetain(void** handle, int device) {
    ENTER_INITIALIZED;
    if (handle == nullptr) return INVALID_VALUE;
    if (device < 0 || device >= devices()) return INVALID_DEVICE;
    Context& context = *state().contexts[static_cast<size_t>(device)];
    if (context.retained++ == 0) {
        context.fault = SUCCESS;
        context.legacy = new_stream(context, true);
    }
    *handle = &context;
    return SUCCESS;
}

template <class T>
static void erase_of(T& objects, const Context& context) {
    for (auto entry = objects.begin(); entry != objects.end();)
        entry = entry->second->context == &context ? objects.erase(entry) : std::next(entry);
}

// The last release ends the context and all that was made in it.
DRIVER cuDevicePrimaryCtxRelease_v2(int device) {
    ENTER_INITIALIZED;
    if (device < 0 || device >= devices()) return INVALID_DEVICE;
    Context& context = *state().contexts[static_cast<size_t>(device)];
    if (context.retained == 0) return INVALID_CONTEXT;
    if (--context.retained != 0) return SUCCESS;
    drain(context, lock);
    std::vector<std::shared_ptr<Stream>> streams{context.legacy};
    for (const auto& entry : state().streams)
        if (entry.second->context == &context) streams.push_back(entry.second);
    for (const auto& stream : streams) {
        stream->closed = true;
        stream->wake.notify_one();
    }
    context.legacy.reset();
    erase_of(state().streams, context);
    erase_of(state().events, context);
    for (auto entry = state().functions.begin(); entry != state().functions.end();)
        entry = entry->second->module->context == &context ? state().functions.erase(entry) : std::next(entry);
    erase_of(state().modules, context);
    for (auto entry = state().memory.begin(); entry != state().memory.end();) {
        const auto next = std::next(entry);
        if (entry->second.context == &context) release_memory(entry);
        entry = next;
    }
    return SUCCESS;
}

DRIVER cuCtxSetCurrent(void* handle) {
    ENTER_INITIALIZED;
    if (handle == nullptr) {
        current = nullptr;
        return SUCCESS;
    }
    for (const auto& context : state().contexts) {
        if (context.get() != handle || context->retained == 0) continue;
        current = context.get();
        return SUCCESS;
    }
    return INVALID_CONTEXT;
}

DRIVER cuCtxGetCurrent(void** handle) {
    ENTER_INITIALIZED;
    if (handle == nullptr) return INVALID_VALUE;
    *handle = current;
    return SUCCESS;
}

// What was current before, by thread.
static thread_local std::vector<Context*> below;

DRIVER cuCtxPushCurrent_v2(void* handle) {
    ENTER_INITIALIZED;
    for (const auto& context : state().contexts) {
        if (context.get() != handle || context->retained == 0) continue;
        below.push_back(current);
        current = context.get();
        return SUCCESS;
    }
    return INVALID_CONTEXT;
}

DRIVER cuCtxPopCurrent_v2(void** handle) {
    ENTER_INITIALIZED;
    if (below.empty()) return INVALID_CONTEXT;
    if (handle != nullptr) *handle = current;
    current = below.back();
    below.pop_back();
    return SUCCESS;
}

DRIVER cuCtxSynchronize() {
    ENTER_CONTEXT;
    for (const auto& entry : state().streams) {
        if (entry.second->context != &context || entry.second->capture == nullptr) continue;
        invalidate(*entry.second->capture);
        return CAPTURE_UNSUPPORTED;
    }
    drain(context, lock);
    return context.fault;
}

DRIVER cuModuleGetLoadingMode(int* mode) {
    ENTER_INITIALIZED;
    if (mode == nullptr) return INVALID_VALUE;
    const char* wanted = std::getenv("CUDA_MODULE_LOADING");
    *mode = wanted != nullptr && std::strcmp(wanted, "EAGER") == 0 ? 1 : 2;
    return SUCCESS;
}
