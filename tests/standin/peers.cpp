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

bool may_address(const Context& context, const void* argument, size_t bytes) {
    for (size_t at = 0; at + sizeof(Address) <= bytes; at += sizeof(Address)) {
        Address word;
        std::memcpy(&word, static_cast<const char*>(argument) + at, sizeof word);
        const auto found = find_memory(word, 1);
        if (found == state().memory.end() || found->second.context == &context) continue;
        const Allocation& allocation = found->second;
        if (is_of_host(allocation)) continue;
        // Memory of a pool is the device's own, whatever was enabled.
        if (allocation.kind == Kind::POOL || context.peers.count(allocation.context) == 0) return false;
    }
    return true;
}
