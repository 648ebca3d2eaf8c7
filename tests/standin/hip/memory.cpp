// SPDX-License-Identifier: MPL-2.0
//
// Memory, and what moves bytes. Fine-grained memory is known apart: no other is exported.
#include "hip.h"

#include <set>

constexpr unsigned FINE_GRAINED = 1;

static std::mutex guard;
static std::set<Address> fine; // by first address

static Address address_of(const void* memory) { return reinterpret_cast<Address>(memory); }

DRIVER hipExtMallocWithFlags(void** memory, size_t bytes, unsigned flags) {
    HIP;
    if (flags > FINE_GRAINED) return INVALID_VALUE;
    const Result result = cuMemAlloc_v2(reinterpret_cast<Address*>(memory), bytes);
    const std::lock_guard<std::mutex> lock(guard);
    if (result == SUCCESS && flags == FINE_GRAINED) fine.insert(address_of(*memory));
    return result;
}

DRIVER hipFree(void* memory) {
    HIP;
    {
        const std::lock_guard<std::mutex> lock(guard);
        fine.erase(address_of(memory));
    }
    return cuMemFree_v2(address_of(memory));
}

// The properties have the same layout and numbers.
DRIVER hipMemPoolCreate(void** pool, const PoolProperties* asked) {
    HIP;
    return cuMemPoolCreate(pool, asked);
}

DRIVER hipMemPoolSetAttribute(void* pool, int which, const void* value) {
    HIP;
    return cuMemPoolSetAttribute(pool, which, value);
}

DRIVER hipMemPoolTrimTo(void* pool, size_t least) {
    HIP;
    return cuMemPoolTrimTo(pool, least);
}

DRIVER hipMallocFromPoolAsync(void** memory, size_t bytes, void* pool, void* stream) {
    HIP;
    return cuMemAllocFromPoolAsync(reinterpret_cast<Address*>(memory), bytes, pool, stream);
}

DRIVER hipFreeAsync(void* memory, void* stream) {
    HIP;
    return cuMemFreeAsync(address_of(memory), stream);
}

DRIVER hipMemGetInfo(size_t* free, size_t* total) {
    HIP;
    return cuMemGetInfo_v2(free, total);
}

// Portable, mapped and coherent, or it would not do.
DRIVER hipHostMalloc(void** memory, size_t bytes, unsigned flags) {
    HIP;
    return flags == 0x40000003u ? cuMemHostAlloc(memory, bytes, 3) : INVALID_VALUE;
}

DRIVER hipHostRegister(void* memory, size_t bytes, unsigned flags) {
    HIP;
    return flags == 3 ? cuMemHostRegister_v2(memory, bytes, flags) : INVALID_VALUE;
}

DRIVER hipHostUnregister(void* memory) {
    HIP;
    return cuMemHostUnregister(memory);
}

DRIVER hipHostGetDevicePointer(void** address, void* memory, unsigned flags) {
    HIP;
    return cuMemHostGetDevicePointer_v2(reinterpret_cast<Address*>(address), memory, flags);
}

DRIVER hipMemGetAddressRange(void** base, size_t* bytes, void* address) {
    HIP;
    return cuMemGetAddressRange_v2(reinterpret_cast<Address*>(base), bytes, address_of(address));
}

DRIVER hipMemcpyAsync(void* to, const void* from, size_t bytes, int kind, void* stream) {
    HIP;
    constexpr int WHATEVER_THEY_ARE = 4; // hipMemcpyDefault
    if (kind != WHATEVER_THEY_ARE) return INVALID_VALUE;
    return cuMemcpyAsync(address_of(to), address_of(from), bytes, stream);
}

DRIVER hipMemcpyPeerAsync(void* to, int to_device, const void* from, int from_device, size_t bytes, void* stream) {
    HIP;
    Context* target = context_of(to_device);
    Context* source = context_of(from_device);
    if (target == nullptr || source == nullptr) return INVALID_DEVICE;
    return cuMemcpyPeerAsync(address_of(to), target, address_of(from), source, bytes, stream);
}

DRIVER hipMemsetD8Async(void* to, unsigned char value, size_t count, void* stream) {
    HIP;
    return cuMemsetD8Async(address_of(to), value, count, stream);
}

DRIVER hipMemsetD16Async(void* to, unsigned short value, size_t count, void* stream) {
    HIP;
    return cuMemsetD16Async(address_of(to), value, count, stream);
}

DRIVER hipMemsetD32Async(void* to, int value, size_t count, void* stream) {
    HIP;
    return cuMemsetD32Async(address_of(to), static_cast<unsigned>(value), count, stream);
}

DRIVER hipIpcGetMemHandle(Handle64* handle, void* memory) {
    HIP;
    const std::lock_guard<std::mutex> lock(guard);
    return fine.count(address_of(memory)) == 0 ? INVALID_VALUE : cuIpcGetMemHandle(handle, address_of(memory));
}

DRIVER hipIpcOpenMemHandle(void** memory, Handle64 handle, unsigned flags) {
    HIP;
    const unsigned lazy_enable_peer_access = hip_version() < 60000000 ? 0 : 1;
    if (flags != lazy_enable_peer_access) return INVALID_VALUE;
    return cuIpcOpenMemHandle_v2(reinterpret_cast<Address*>(memory), handle, 1);
}

DRIVER hipIpcCloseMemHandle(void* memory) {
    HIP;
    return cuIpcCloseMemHandle(address_of(memory));
}
