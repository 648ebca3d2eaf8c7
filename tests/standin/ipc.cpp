// SPDX-License-Identifier: MPL-2.0
//
// Device memory between processes. A handle names the exporter's process and the memfd behind a whole allocation, and
// the file's number, so that a descriptor that was closed and used again is not taken for it. The memory itself lives
// as long as any process maps it; whoever does has a lock on the file, by which its owner knows (is_lent()).
#include "driver.h"

#include <cstdio>
#include <cstring>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct Handle {
    char reserved[64]; // CUipcMemHandle
};

struct Named {
    char magic[8];
    int64_t process;
    int64_t fd;
    uint64_t bytes;
    uint64_t base; // in the exporting process
    uint64_t file;
    int64_t card;
};
static_assert(sizeof(Named) <= sizeof(Handle));

static const char MAGIC[8] = {'s', 't', 'a', 'n', 'd', '-', 'i', 'n'};

// Of plain allocations only; of an address inside one, the allocation.
DRIVER cuIpcGetMemHandle(Handle* handle, Address address) {
    ENTER_CONTEXT;
    const auto found = find_memory(address, 1);
    if (handle == nullptr || found == state().memory.end() || found->second.kind != Kind::DEVICE) return INVALID_VALUE;
    struct stat status;
    if (fstat(found->second.fd, &status) != 0) return OPERATING_SYSTEM;
    Named named{};
    std::memcpy(named.magic, MAGIC, sizeof MAGIC);
    named.process = getpid();
    named.fd = found->second.fd;
    named.bytes = found->second.bytes;
    named.base = found->first;
    named.file = status.st_ino;
    named.card = card(found->second.context->device);
    std::memset(handle, 0, sizeof *handle);
    std::memcpy(handle, &named, sizeof named);
    return SUCCESS;
}

// The descriptor of the named memory in this process, or -1.
static int open_named(const Named& named) {
    char path[64];
    std::snprintf(path, sizeof path, "/proc/%lld/fd/%lld", static_cast<long long>(named.process),
                  static_cast<long long>(named.fd));
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return -1;
    struct stat status;
    if (fstat(fd, &status) == 0 && status.st_ino == named.file && static_cast<uint64_t>(status.st_size) == named.bytes)
        return fd;
    close(fd);
    return -1;
}

// Whether the context maps memory that the same process had there before, and has freed.
static bool is_mapped(const Context& context, const Named& named) {
    for (const auto& entry : state().memory) {
        const Allocation& allocation = entry.second;
        if (allocation.kind != Kind::IMPORTED || allocation.context != &context) continue;
        Named other;
        std::memcpy(&other, allocation.handle.data(), sizeof other);
        if (other.process == named.process && other.base < named.base + named.bytes &&
            named.base < other.base + other.bytes)
            return true;
    }
    return false;
}

DRIVER cuIpcOpenMemHandle_v2(Address* to, Handle handle, unsigned flags) {
    ENTER_CONTEXT;
    if (to == nullptr || flags > 1) return INVALID_VALUE;
    Named named;
    std::memcpy(&named, &handle, sizeof named);
    if (std::memcmp(named.magic, MAGIC, sizeof MAGIC) != 0) return INVALID_VALUE;
    if (named.process == getpid()) return INVALID_CONTEXT;
    if (!reach_each_other(static_cast<int>(named.card), card(context.device))) return PEER_ACCESS_UNSUPPORTED;
    const std::string bytes(handle.reserved, sizeof handle.reserved);
    for (auto& [base, allocation] : state().memory) {
        if (allocation.kind != Kind::IMPORTED || allocation.handle != bytes || allocation.context != &context) continue;
        ++allocation.opened;
        *to = base;
        return SUCCESS;
    }
    if (is_mapped(context, named)) return ALREADY_MAPPED;
    const int fd = open_named(named);
    if (fd < 0) return INVALID_VALUE;
    void* mapping = mmap(nullptr, named.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapping == MAP_FAILED || flock(fd, LOCK_SH | LOCK_NB) != 0) {
        close(fd);
        return MAP_FAILED_ERROR;
    }
    *to = reinterpret_cast<Address>(mapping);
    Allocation allocation(Kind::IMPORTED, named.bytes, &context);
    allocation.opened = 1;
    allocation.fd = fd;
    allocation.handle = bytes;
    state().memory.emplace(*to, std::move(allocation));
    return SUCCESS;
}

DRIVER cuIpcCloseMemHandle(Address address) {
    ENTER_CONTEXT;
    const auto wanted = [&] {
        const auto found = state().memory.find(address);
        return found != state().memory.end() && found->second.kind == Kind::IMPORTED ? found : state().memory.end();
    };
    if (wanted() == state().memory.end()) return INVALID_VALUE;
    drain(context, lock);
    const auto found = wanted();
    if (found == state().memory.end()) return INVALID_VALUE;
    if (--found->second.opened == 0) release_memory(found);
    return SUCCESS;
}
