// SPDX-License-Identifier: MPL-2.0
//
// What a device has, and the room that blocks take of it.
#pragma once

#include <cstdint>
#include <vector>

#include "words.h"

namespace host {

// The figures that are not given are those of a card of compute capability 9.0.
struct Model {
    uint32_t multiprocessors = 4;
    uint32_t threads_per_multiprocessor = 2048;
    uint32_t blocks_per_multiprocessor = 32;
    uint32_t shared_per_multiprocessor = 233472; // bytes
    uint32_t shared_reserved_per_block = 1024;   // bytes
    uint32_t threads_per_block = 1024;
    uint32_t warp = WARP;             // threads are dealt out by warps
    uint64_t barrier_patience_ns = 0; // Block::run

    // How many blocks of so many threads and bytes of dynamic shared memory one multiprocessor has room for. Shared
    // memory that a kernel declares is not known here and not counted.
    uint32_t resident_blocks(uint32_t threads, uint32_t shared) const;
};

// The room of one device. Whoever uses it sees to that one thread at a time does.
class Rooms {
public:
    explicit Rooms(const Model& model);

    // Takes room for a block on the multiprocessor with the fewest threads, as cards spread their blocks; whether there
    // was any.
    bool take(uint32_t threads, uint32_t shared, uint32_t& multiprocessor);

    // Gives back what take() took.
    void give_back(uint32_t threads, uint32_t shared, uint32_t multiprocessor);

private:
    struct Room {
        uint32_t threads, blocks, shared;
    };

    const Model model_;
    std::vector<Room> rooms_; // what is free, of each multiprocessor
};

} // namespace host
