// SPDX-License-Identifier: MPL-2.0
//
// Devices: one for each thread, 0 until it says otherwise.
#include "hip.h"

#include <cstdlib>
#include <cstring>

static thread_local int chosen = 0;

Context* context_of(int device) {
    if (cuInit(0) != SUCCESS || device < 0 || device >= devices()) return nullptr;
    static std::mutex one_at_a_time;
    static std::map<int, void*> contexts;
    const std::lock_guard<std::mutex> guard(one_at_a_time);
    const auto found = contexts.find(device);
    if (found != contexts.end()) return static_cast<Context*>(found->second);
    void* context;
    if (cuDevicePrimaryCtxRetain(&context, device) != SUCCESS) return nullptr;
    contexts[device] = context;
    return static_cast<Context*>(context);
}

Result in_device() {
    Context* context = context_of(chosen);
    return context == nullptr ? INVALID_DEVICE : cuCtxSetCurrent(context);
}

int hip_version() {
    const char* version = std::getenv("STANDIN_HIP_VERSION");
    return version == nullptr ? 60443484 : std::atoi(version);
}

// Of the numbers that tests meet. HIP has a name for any.
extern "C" __attribute__((visibility("default"))) const char* hipGetErrorName(Result error) {
    switch (error) {
        case SUCCESS: return "hipSuccess";
        case INVALID_VALUE: return "hipErrorInvalidValue";
        case OUT_OF_MEMORY: return "hipErrorOutOfMemory";
        case NO_DEVICE: return "hipErrorNoDevice";
        case INVALID_DEVICE: return "hipErrorInvalidDevice";
        case INVALID_IMAGE: return "hipErrorInvalidImage";
        case INVALID_CONTEXT: return "hipErrorInvalidContext";
        case ALREADY_MAPPED: return "hipErrorAlreadyMapped";
        case NO_BINARY_FOR_GPU: return "hipErrorNoBinaryForGpu";
        case NOT_FOUND: return "hipErrorNotFound";
        case NOT_READY: return "hipErrorNotReady";
        case PEER_ACCESS_ALREADY_ENABLED: return "hipErrorPeerAccessAlreadyEnabled";
        case NOT_SUPPORTED: return "hipErrorNotSupported";
        default: return "hipErrorUnknown";
    }
}

DRIVER hipDriverGetVersion(int* to) {
    if (const Result result = planted(__func__); result != SUCCESS) return result;
    *to = hip_version();
    return SUCCESS;
}

DRIVER hipGetDeviceCount(int* count) {
    if (const Result result = planted(__func__); result != SUCCESS) return result;
    *count = devices();
    return devices() == 0 ? NO_DEVICE : SUCCESS;
}

DRIVER hipDeviceGet(int* device, int ordinal) {
    HIP;
    return cuDeviceGet(device, ordinal);
}

DRIVER hipGetDevice(int* device) {
    HIP;
    *device = chosen;
    return SUCCESS;
}

DRIVER hipSetDevice(int device) {
    HIP;
    if (device < 0 || device >= devices()) return INVALID_DEVICE;
    chosen = device;
    return SUCCESS;
}

DRIVER hipDeviceGetName(char* name, int length, int device) {
    HIP;
    return cuDeviceGetName(name, length, device);
}

// The same for all, as of cards that have no number of their own.
DRIVER hipDeviceGetUuid(char (*uuid)[16], int) {
    HIP;
    std::memcpy(*uuid, "stand-in, no GPU", 16);
    return SUCCESS;
}

DRIVER hipDeviceGetPCIBusId(char* name, int length, int device) {
    HIP;
    return cuDeviceGetPCIBusId(name, length, device);
}

DRIVER hipDeviceTotalMem(size_t* bytes, int device) {
    HIP;
    return cuDeviceTotalMem_v2(bytes, device);
}

// By hipDeviceAttribute_t. Wavefronts have 64 lanes, as on gfx90a; the host's kernels, whose warps are their own affair,
// run all the same.
DRIVER hipDeviceGetAttribute(int* value, int which, int device) {
    HIP;
    switch (which) {
        case 23: *value = 9; return SUCCESS; // compute capability
        case 61: *value = 0; return SUCCESS;
        case 87: *value = 64; return SUCCESS;
        case 56: return cuDeviceGetAttribute(value, 1, device);
        case 63: return cuDeviceGetAttribute(value, 16, device);
        case 74: *value = 65536; return SUCCESS; // shared memory of a block
        case 88: return cuDeviceGetAttribute(value, 115, device);
        default: return INVALID_VALUE;
    }
}

DRIVER hipDeviceCanAccessPeer(int* can, int device, int peer) {
    HIP;
    return cuDeviceCanAccessPeer(can, device, peer);
}

DRIVER hipDeviceEnablePeerAccess(int peer, unsigned flags) {
    HIP;
    Context* context = context_of(peer);
    return context == nullptr ? INVALID_DEVICE : cuCtxEnablePeerAccess(context, flags);
}
