// SPDX-License-Identifier: MPL-2.0
//
// Memory of devices, pinned memory, and what moves bytes. Device memory is the process's own memory, mapped from a
// memfd so that other processes can map it (ipc.cpp); stream-ordered memory is anonymous, so that they cannot.
#include "driver.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <iterator>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

std::map<Address, Allocation>::iterator find_memory(Address first, size_t bytes) {
    auto& memory = state().memory;
    auto found = memory.upper_bound(first);
    if (found == memory.begin()) return memory.end();
    --found;
    const Address offset = first - found->first;
    return offset <= found->second.bytes && bytes <= found->second.bytes - offset ? found : memory.end();
}

static bool known(Address first, size_t bytes) {
    const auto found = find_memory(first, bytes);
    return found != state().memory.end() && first != found->first + found->second.bytes;
}

static size_t pinned = 0; // bytes

static bool can_pin(size_t bytes) {
    static const char* limit = std::getenv("STANDIN_PINNED");
    return limit == nullptr || pinned + bytes <= static_cast<size_t>(std::atoi(limit)) << 20;
}

// Of what is freed and what was free, a pool keeps no more than its threshold. A driver gives the rest back when somebody
// next waits for a stream.
static void keep(Pool& pool, size_t bytes) {
    pool.context->used -= pool.spare;
    pool.spare = static_cast<size_t>(std::min<uint64_t>(pool.spare + bytes, pool.threshold));
    pool.context->used += pool.spare;
}

void release_memory(std::map<Address, Allocation>::iterator found) {
    Allocation& allocation = found->second;
    if (allocation.kind != Kind::REGISTERED) munmap(reinterpret_cast<void*>(found->first), allocation.bytes);
    if (allocation.fd >= 0) close(allocation.fd);
    if (allocation.kind == Kind::DEVICE || allocation.kind == Kind::POOL) allocation.context->used -= allocation.bytes;
    if (allocation.kind == Kind::PINNED) pinned -= allocation.bytes;
    if (allocation.pool != nullptr) keep(*allocation.pool, allocation.bytes);
    state().memory.erase(found);
}

// A memfd of so many bytes that nobody can make smaller, or -1.
static int sealed_memfd(size_t bytes) {
    const int fd = memfd_create("stand-in device memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) return -1;
    if (ftruncate(fd, static_cast<off_t>(bytes)) == 0 &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
        return fd;
    close(fd);
    return -1;
}

static Result allocate(Context& context, Kind kind, size_t bytes, Address* to, Pool* pool = nullptr) {
    if (to == nullptr || bytes == 0) return INVALID_VALUE;
    const size_t spare = pool == nullptr ? 0 : std::min(pool->spare, bytes);
    if (kind != Kind::PINNED && bytes - spare > total_memory() - context.used) return OUT_OF_MEMORY;
    if (kind == Kind::PINNED && !can_pin(bytes)) return OUT_OF_MEMORY;
    const int fd = kind == Kind::DEVICE ? sealed_memfd(bytes) : -1;
    if (kind == Kind::DEVICE && fd < 0) return OUT_OF_MEMORY;
    const int flags = fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
    void* mapping = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (mapping == MAP_FAILED) {
        if (fd >= 0) close(fd);
        return OUT_OF_MEMORY;
    }
    (kind == Kind::PINNED ? pinned : context.used) += bytes - spare;
    if (pool != nullptr) pool->spare -= spare;
    *to = reinterpret_cast<Address>(mapping);
    Allocation allocation(kind, bytes, &context);
    allocation.fd = fd;
    allocation.pool = pool;
    state().memory.emplace(*to, std::move(allocation));
    return SUCCESS;
}

DRIVER cuMemAlloc_v2(Address* to, size_t bytes) {
    ENTER_CONTEXT;
    if (const Result refused = refuse_in_capture(); refused != SUCCESS) return refused;
    return allocate(context, Kind::DEVICE, bytes, to);
}

// Ends the process where it frees what another one maps, if it is asked to.
static void refuse_lent(const Allocation& allocation) {
    static const char* asked = std::getenv("STANDIN_LENT");
    if (asked == nullptr || *asked != '1' || allocation.kind != Kind::DEVICE) return;
    if (flock(allocation.fd, LOCK_EX | LOCK_NB) != 0) {
        std::fputs("stand-in: memory is freed that another process maps\n", stderr);
        std::abort();
    }
    flock(allocation.fd, LOCK_UN);
}

// Waits for all work of the device first, as drivers do.
static Result free_now(Context& context, Address address, std::initializer_list<Kind> kinds, Lock& lock) {
    if (const Result refused = refuse_in_capture(); refused != SUCCESS) return refused;
    const auto wanted = [&] {
        const auto found = state().memory.find(address);
        const bool right = found != state().memory.end() &&
                           std::find(kinds.begin(), kinds.end(), found->second.kind) != kinds.end();
        return right ? found : state().memory.end();
    };
    if (wanted() == state().memory.end()) return INVALID_VALUE;
    drain(context, lock);
    // Others could free it meanwhile.
    const auto found = wanted();
    if (found == state().memory.end()) return INVALID_VALUE;
    refuse_lent(found->second);
    release_memory(found);
    return SUCCESS;
}

DRIVER cuMemFree_v2(Address address) {
    ENTER_CONTEXT;
    if (address == 0) return SUCCESS;
    return free_now(context, address, {Kind::DEVICE, Kind::POOL}, lock);
}

// What was freed on the stream before is there for it: a driver takes it at once, and this waits for it.
static Result allocate_of(Context& context, Pool* pool, size_t bytes, Address* to, void* handle, Lock& lock) {
    const auto stream = find_stream(context, handle);
    if (stream == nullptr) return INVALID_HANDLE;
    if (stream->capture != nullptr) {
        invalidate(*stream->capture);
        return CAPTURE_UNSUPPORTED;
    }
    wait_for(*stream, stream->submitted, lock);
    return allocate(context, Kind::POOL, bytes, to, pool);
}

DRIVER cuMemAllocAsync(Address* to, size_t bytes, void* handle) {
    ENTER_CONTEXT;
    return allocate_of(context, nullptr, bytes, to, handle, lock);
}

static Pool* find_pool(void* handle) {
    const auto found = state().pools.find(handle);
    return found == state().pools.end() ? nullptr : found->second.get();
}

DRIVER cuMemAllocFromPoolAsync(Address* to, size_t bytes, void* handle, void* stream) {
    ENTER_CONTEXT;
    Pool* pool = find_pool(handle);
    if (pool == nullptr || pool->context != &context) return INVALID_VALUE;
    return allocate_of(context, pool, bytes, to, stream, lock);
}

// CUmemPoolProps. What is reserved must be zeros.
struct PoolProperties {
    int type, handles, location, device;
    void* security;
    unsigned char reserved[64];
};

// Pinned memory of a device, exported to nobody: what pools are made for here.
DRIVER cuMemPoolCreate(void** to, const PoolProperties* asked) {
    ENTER_INITIALIZED;
    constexpr int PINNED = 1, NO_HANDLES = 0, OF_A_DEVICE = 1;
    if (to == nullptr || asked == nullptr || asked->type != PINNED || asked->location != OF_A_DEVICE) return INVALID_VALUE;
    if (asked->handles != NO_HANDLES) return NOT_SUPPORTED;
    if (asked->device < 0 || asked->device >= devices()) return INVALID_DEVICE;
    const auto is_zero = [](unsigned char byte) { return byte == 0; };
    if (!std::all_of(std::begin(asked->reserved), std::end(asked->reserved), is_zero)) return INVALID_VALUE;
    auto pool = std::make_unique<Pool>();
    pool->context = state().contexts[static_cast<size_t>(asked->device)].get();
    *to = pool.get();
    state().pools.emplace(*to, std::move(pool));
    return SUCCESS;
}

// By CUmemPool_attribute; the threshold is the one that can be set here.
DRIVER cuMemPoolSetAttribute(void* handle, int which, const void* value) {
    ENTER_INITIALIZED;
    constexpr int RELEASE_THRESHOLD = 4;
    Pool* pool = find_pool(handle);
    if (pool == nullptr || value == nullptr || which != RELEASE_THRESHOLD) return INVALID_VALUE;
    std::memcpy(&pool->threshold, value, sizeof pool->threshold);
    return SUCCESS;
}

// Waits for all work of the device first, as drivers may do.
DRIVER cuMemPoolTrimTo(void* handle, size_t least) {
    ENTER_CONTEXT;
    Pool* pool = find_pool(handle);
    if (pool == nullptr) return INVALID_VALUE;
    drain(*pool->context, lock);
    const size_t given_back = pool->spare - std::min(pool->spare, least);
    pool->spare -= given_back;
    pool->context->used -= given_back;
    return SUCCESS;
}

DRIVER cuMemFreeAsync(Address address, void* handle) {
    ENTER_CONTEXT;
    const auto stream = find_stream(context, handle);
    if (stream == nullptr) return INVALID_HANDLE;
    const auto found = state().memory.find(address);
    if (found == state().memory.end()) return INVALID_VALUE;
    if (found->second.kind != Kind::DEVICE && found->second.kind != Kind::POOL) return INVALID_VALUE;
    if (stream->capture != nullptr) {
        invalidate(*stream->capture);
        return CAPTURE_UNSUPPORTED;
    }
    return enqueue(stream, [address] {
        const Lock lock_free(state().lock);
        const auto gone = state().memory.find(address);
        if (gone != state().memory.end()) release_memory(gone);
    });
}

DRIVER cuMemHostAlloc(void** to, size_t bytes, unsigned flags) {
    ENTER_CONTEXT;
    if (flags > 7) return INVALID_VALUE;
    if (const Result refused = refuse_in_capture(); refused != SUCCESS) return refused;
    return allocate(context, Kind::PINNED, bytes, reinterpret_cast<Address*>(to));
}

DRIVER cuMemFreeHost(void* address) {
    ENTER_CONTEXT;
    return free_now(context, reinterpret_cast<Address>(address), {Kind::PINNED}, lock);
}

// Memory that somebody else has mapped, and unmaps when it is registered no more.
DRIVER cuMemHostRegister_v2(void* address, size_t bytes, unsigned flags) {
    ENTER_CONTEXT;
    const auto begin = reinterpret_cast<Address>(address);
    if (address == nullptr || bytes == 0 || flags > 3) return INVALID_VALUE;
    if (const Result refused = refuse_in_capture(); refused != SUCCESS) return refused;
    for (const auto& [base, allocation] : state().memory)
        if (base < begin + bytes && begin < base + allocation.bytes) return ALREADY_REGISTERED;
    state().memory.emplace(begin, Allocation(Kind::REGISTERED, bytes, &context));
    return SUCCESS;
}

DRIVER cuMemHostUnregister(void* address) {
    ENTER_CONTEXT;
    return free_now(context, reinterpret_cast<Address>(address), {Kind::REGISTERED}, lock);
}

// Pinned memory has one address everywhere.
DRIVER cuMemHostGetDevicePointer_v2(Address* to, void* address, unsigned flags) {
    ENTER_CONTEXT;
    const auto found = find_memory(reinterpret_cast<Address>(address), 1);
    if (to == nullptr || flags != 0 || found == state().memory.end()) return INVALID_VALUE;
    if (found->second.kind != Kind::PINNED && found->second.kind != Kind::REGISTERED) return INVALID_VALUE;
    *to = reinterpret_cast<Address>(address);
    return SUCCESS;
}

DRIVER cuMemGetAddressRange_v2(Address* base, size_t* bytes, Address address) {
    ENTER_CONTEXT;
    const auto found = find_memory(address, 1);
    if (found == state().memory.end()) return NOT_FOUND;
    if (base != nullptr) *base = found->first;
    if (bytes != nullptr) *bytes = found->second.bytes;
    return SUCCESS;
}

// By CUpointer_attribute: the memory's type (1 host, 2 device), its device, whether it can be exported.
DRIVER cuPointerGetAttribute(void* value, int which, Address address) {
    ENTER_INITIALIZED;
    const auto found = find_memory(address, 1);
    if (value == nullptr || found == state().memory.end()) return INVALID_VALUE;
    const Allocation& allocation = found->second;
    switch (which) {
        case 2: *static_cast<unsigned*>(value) = is_of_host(allocation) ? 1 : 2; return SUCCESS;
        case 9: *static_cast<int*>(value) = allocation.context->device; return SUCCESS;
        case 10: *static_cast<bool*>(value) = allocation.kind == Kind::DEVICE; return SUCCESS;
        default: return NOT_SUPPORTED;
    }
}

DRIVER cuMemGetInfo_v2(size_t* free_bytes, size_t* total) {
    ENTER_CONTEXT;
    if (free_bytes == nullptr || total == nullptr) return INVALID_VALUE;
    *free_bytes = total_memory() - context.used;
    *total = total_memory();
    return SUCCESS;
}

// Copies in the default stream, and waits for it.
static Result copy_now(Context& context, void* to, const void* from, size_t bytes, Lock& lock) {
    const auto stream = context.legacy;
    const Result result = enqueue(stream, [=] { std::memcpy(to, from, bytes); });
    if (result != SUCCESS) return result;
    wait_for(*stream, stream->submitted, lock);
    return context.fault;
}

DRIVER cuMemcpyHtoD_v2(Address to, const void* from, size_t bytes) {
    ENTER_CONTEXT;
    if (bytes == 0) return SUCCESS;
    if (from == nullptr || !known(to, bytes)) return INVALID_VALUE;
    return copy_now(context, reinterpret_cast<void*>(to), from, bytes, lock);
}

DRIVER cuMemcpyDtoH_v2(void* to, Address from, size_t bytes) {
    ENTER_CONTEXT;
    if (bytes == 0) return SUCCESS;
    if (to == nullptr || !known(from, bytes)) return INVALID_VALUE;
    return copy_now(context, to, reinterpret_cast<const void*>(from), bytes, lock);
}

DRIVER cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, void* handle) {
    ENTER_CONTEXT;
    const auto stream = find_stream(context, handle);
    if (stream == nullptr) return INVALID_HANDLE;
    if (bytes == 0) return SUCCESS;
    if (!known(to, bytes) || !known(from, bytes)) return INVALID_VALUE;
    return enqueue(stream, [=] {
        std::memmove(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes);
    });
}

// Between any memory, the host's among it. Of the host's that is not pinned, what is to be read is read at once, and the
// call returns when what is to be written has been; from the host to the host, when all has been done.
DRIVER cuMemcpyAsync(Address to, Address from, size_t bytes, void* handle) {
    ENTER_CONTEXT;
    const auto stream = find_stream(context, handle);
    if (stream == nullptr) return INVALID_HANDLE;
    if (bytes == 0) return SUCCESS;
    if (to == 0 || from == 0) return INVALID_VALUE;
    const void* source = reinterpret_cast<const void*>(from);
    std::shared_ptr<void> read;
    if (stream->capture == nullptr && !known(from, bytes)) {
        read.reset(std::malloc(bytes), std::free);
        if (read == nullptr) return OUT_OF_MEMORY;
        source = std::memcpy(read.get(), source, bytes);
    }
    const auto copy = [=] {
        std::memmove(reinterpret_cast<void*>(to), source, bytes);
        (void)read;
    };
    const Result result = enqueue(stream, copy);
    const auto of_host = [](Address address) {
        const auto found = find_memory(address, 1);
        return found == state().memory.end() || is_of_host(found->second);
    };
    if (result == SUCCESS && stream->capture == nullptr && (!known(to, bytes) || (of_host(to) && of_host(from))))
        wait_for(*stream, stream->submitted, lock);
    return result;
}

DRIVER cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t bytes, void* stream) {
    return cuMemcpyAsync(to, reinterpret_cast<Address>(from), bytes, stream);
}

DRIVER cuMemcpyDtoHAsync_v2(void* to, Address from, size_t bytes, void* stream) {
    return cuMemcpyAsync(reinterpret_cast<Address>(to), from, bytes, stream);
}

// Of memory of two contexts, each named with its own.
DRIVER cuMemcpyPeerAsync(Address to, void* to_context, Address from, void* from_context, size_t bytes, void* handle) {
    ENTER_CONTEXT;
    const auto stream = find_stream(context, handle);
    if (stream == nullptr) return INVALID_HANDLE;
    if (bytes == 0) return SUCCESS;
    const auto target = find_memory(to, bytes), source = find_memory(from, bytes);
    const auto none = state().memory.end();
    if (target == none || source == none) return INVALID_VALUE;
    if (target->second.context != to_context || source->second.context != from_context) return INVALID_CONTEXT;
    return enqueue(stream, [=] {
        std::memmove(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes);
    });
}

DRIVER cuMemsetD8Async(Address to, unsigned char value, size_t count, void* handle) {
    ENTER_CONTEXT;
    const auto stream = find_stream(context, handle);
    if (stream == nullptr) return INVALID_HANDLE;
    if (count == 0) return SUCCESS;
    if (!known(to, count)) return INVALID_VALUE;
    return enqueue(stream, [=] { std::memset(reinterpret_cast<void*>(to), value, count); });
}

DRIVER cuMemsetD16Async(Address to, unsigned short value, size_t count, void* handle) {
    ENTER_CONTEXT;
    const auto stream = find_stream(context, handle);
    if (stream == nullptr) return INVALID_HANDLE;
    if (count == 0) return SUCCESS;
    if (to % 2 != 0 || count > total_memory() || !known(to, 2 * count)) return INVALID_VALUE;
    return enqueue(stream, [=] { std::fill_n(reinterpret_cast<uint16_t*>(to), count, value); });
}

DRIVER cuMemsetD32Async(Address to, unsigned value, size_t count, void* handle) {
    ENTER_CONTEXT;
    const auto stream = find_stream(context, handle);
    if (stream == nullptr) return INVALID_HANDLE;
    if (count == 0) return SUCCESS;
    if (to % 4 != 0 || count > total_memory() || !known(to, 4 * count)) return INVALID_VALUE;
    return enqueue(stream, [=] { std::fill_n(reinterpret_cast<uint32_t*>(to), count, value); });
}
