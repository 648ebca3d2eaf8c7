// SPDX-License-Identifier: MPL-2.0
//
// Threads are dealt out by whole warps, shared memory with what each block costs beside its own.
#include "rooms.h"

#include <algorithm>

namespace host {

static uint32_t whole_warps(uint32_t threads, uint32_t warp) { return (threads + warp - 1) / warp * warp; }

uint32_t Model::resident_blocks(uint32_t threads, uint32_t shared) const {
    if (threads == 0 || threads > threads_per_block) return 0;
    const uint32_t by_threads = threads_per_multiprocessor / whole_warps(threads, warp);
    const uint64_t by_shared = shared_per_multiprocessor / (static_cast<uint64_t>(shared) + shared_reserved_per_block);
    return std::min({by_threads, blocks_per_multiprocessor, static_cast<uint32_t>(by_shared)});
}

Rooms::Rooms(const Model& model)
    : model_(model), rooms_(model.multiprocessors, Room{model.threads_per_multiprocessor,
                                                        model.blocks_per_multiprocessor,
                                                        model.shared_per_multiprocessor}) {}

bool Rooms::take(uint32_t threads, uint32_t shared, uint32_t& multiprocessor) {
    threads = whole_warps(threads, model_.warp);
    shared += model_.shared_reserved_per_block;
    Room* best = nullptr;
    for (Room& room : rooms_) {
        if (room.threads < threads || room.blocks == 0 || room.shared < shared) continue;
        if (best == nullptr || room.threads > best->threads) best = &room;
    }
    if (best == nullptr) return false;
    best->threads -= threads;
    best->blocks -= 1;
    best->shared -= shared;
    multiprocessor = static_cast<uint32_t>(best - rooms_.data());
    return true;
}

void Rooms::give_back(uint32_t threads, uint32_t shared, uint32_t multiprocessor) {
    Room& room = rooms_[multiprocessor];
    room.threads += whole_warps(threads, model_.warp);
    room.blocks += 1;
    room.shared += shared + model_.shared_reserved_per_block;
}

} // namespace host
