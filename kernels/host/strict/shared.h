// SPDX-License-Identifier: MPL-2.0
//
// What is known of each byte of a block's shared memory: who wrote and read it last, and between which barriers.
//
// Two accesses to a byte by different threads, one of them a write, are a race unless a barrier of the block lies between
// them, or, of threads of one warp, one of the warp: on a card either may come first. Atomic operations race with
// nothing here. A byte that no thread has written gets a value from the seed before it is read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "fault.h"

namespace host::strict {

// A thread, and how many barriers of its block and its warp have opened. Blocks count from 1 on.
struct Moment {
    uint32_t thread;
    uint32_t of_block;
    uint32_t of_warp;
};

// What an access to shared memory has shown.
struct Seen {
    bool race = false;
    bool unwritten = false;
    uint32_t other = 0; // of a race
    bool other_wrote = false;
    const void* other_from = nullptr;
};

class Shared {
public:
    // So many bytes. Whether there was memory for what is kept of them.
    bool resize(size_t bytes);

    // Notes an access to `memory`, which are `bytes` bytes at `offset`, and fills those that nobody has written.
    Seen access(char* memory, size_t offset, const Access& access, Moment now, uint64_t seed);

    // From where to where anything was accessed.
    size_t begin() const { return begin_; }
    size_t end() const { return end_; }

private:
    enum Readers : uint8_t { NONE, ONE, OF_ONE_WARP, MANY };

    struct Byte {
        Moment written; // of_block 0: by nobody
        Moment read;
        const void* written_from;
        const void* read_from;
        Readers readers; // since the last write and barrier
        bool has_value;
    };

    struct Free {
        void operator()(Byte* bytes) const { std::free(bytes); }
    };

    static bool ordered(const Moment& before, const Moment& now);
    Seen touch(Byte& byte, const Access& access, Moment now);

    std::unique_ptr<Byte[], Free> bytes_; // zeros, of which only what is touched takes memory
    size_t begin_ = SIZE_MAX;
    size_t end_ = 0;
};

} // namespace host::strict
