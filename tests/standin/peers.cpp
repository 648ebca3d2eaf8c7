// SPDX-License-Identifier: MPL-2.0
//
// Devices that reach each other's memory. All of it is the process's own, so a kernel could address any; that it was
// allowed to, launches look at: an argument must hold no address of a device's memory to which access was not enabled.
#include "driver.h"

#include <cstring>

static bool are_devices(int a, int b) { return a >= 0 && a < devices() && b >= 0 && b < devices(); }

DRIVER cuDeviceCanAccessPeer(int* can, int device, int peer) {
    ENTER_INITIALIZED;
    if (can == nullptr) return INVALID_VALUE;
    if (!are_devices(device, peer)) return INVALID_DEVICE;
    *can = device != peer && reach_each_other(card(device), card(peer)) ? 1 : 0;
    return SUCCESS;
}

DRIVER cuCtxEnablePeerAccess(void* handle, unsigned flags) {
    ENTER_CONTEXT;
    if (flags != 0) return INVALID_VALUE;
    for (const auto& peer : state().contexts) {
        if (peer.get() != handle || peer->retained == 0 || peer.get() == &context) continue;
        if (!reach_each_other(card(context.device), card(peer->device))) return PEER_ACCESS_UNSUPPORTED;
        return context.peers.insert(peer.get()).second ? SUCCESS : PEER_ACCESS_ALREADY_ENABLED;
    }
    return INVALID_CONTEXT;
}

// Memory of a pool is the device's own, whatever was enabled.
static bool may_address(const Context& context, const Allocation& allocation) {
    if (allocation.context == &context || is_of_host(allocation)) return true;
    return allocation.kind != Kind::POOL && context.peers.count(allocation.context) != 0;
}

std::vector<ptx::Range> addressed(const Context& context) {
    std::vector<ptx::Range> ranges;
    for (const auto& [begin, allocation] : state().memory)
        if (may_address(context, allocation)) ranges.push_back({begin, begin + allocation.bytes});
    return ranges;
}

bool may_address(const Context& context, const void* argument, size_t bytes) {
    for (size_t at = 0; at + sizeof(Address) <= bytes; at += sizeof(Address)) {
        Address word;
        std::memcpy(&word, static_cast<const char*>(argument) + at, sizeof word);
        const auto found = find_memory(word, 1);
        if (found != state().memory.end() && !may_address(context, found->second)) return false;
    }
    return true;
}
