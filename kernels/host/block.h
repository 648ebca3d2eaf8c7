// SPDX-License-Identifier: MPL-2.0
//
// One block: its GPU threads, taken through a kernel by one thread of the operating system.
//
// A GPU thread begins on the stack that the one before it has left; only one that waits keeps its stack, and becomes a
// fiber. So a kernel without barriers is a loop over calls.
//
// The barrier is that of NVIDIA devices since compute capability 7.0: it lets its threads go on when all threads of the
// block that have not ended have reached it; one that ended counts as arrived. The dialect promises less ("every thread
// of the block, or none", which is what other devices need), so a barrier that some threads ended without reaching is
// reported in the outcome, though the kernel runs on as it does on the card.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "fiber.h"
#include "kernel.h"
#include "words.h"

namespace host {

// Lets other threads of the operating system run.
void let_others_run();

// How a block ended, the worst last.
enum class Ended {
    WELL,
    MISSED,    // a barrier was passed without threads that had ended before
    STUCK,     // given up: threads waited at a barrier for longer than they may while the others paused, or for threads
               // that waited for them
    NO_STACKS, // given up: no memory for the stacks of its threads
};

struct Outcome {
    Ended ended = Ended::WELL;
    uint32_t block = 0;  // the first block that ended so
    uint32_t absent = 0; // MISSED, STUCK: how many of its threads were not at the barrier
};

class Block {
public:
    Block() = default;
    Block(const Block&) = delete;
    ~Block() { release(); }

    // Runs block `index` of `blocks`, each of `threads` GPU threads and `shared` bytes of dynamic shared memory. Where some of its threads wait at a barrier for
    // more than `patience_ns` while the others pause, it is given up; 0 is for ever. Never from within a kernel.
    Outcome run(const Kernel& kernel, const void* args, uint32_t index, uint32_t blocks, uint32_t threads,
                uint32_t shared, uint64_t patience_ns);

    // Gives up the stacks that are kept for the next block.
    void release();

private:
    friend void sync_block(Place);
    friend void sync_warp(Place);
    friend uint64_t from_lane(uint64_t, uint32_t, Place);
    friend void pause();

    // What dynamic shared memory is made of.
    struct alignas(16) Packet {
        char bytes[16];
    };

    // Fibers in a row, first in first out.
    struct Row {
        Fiber* first = nullptr;
        Fiber* last = nullptr;
        void push(Fiber* fiber);
        Fiber* pop();
    };

    // Threads of a warp that wait for its others.
    struct Warp {
        Row waiting;
        uint32_t arrived = 0;
        uint32_t left = 0; // threads that have not ended
#if HOST_TSAN
        uint32_t generation = 0;
        uint64_t words[2] = {}; // as barrier_words_
#endif
    };

    static void entry();
    void live();
    void make_ready(Row& row);
    void open_warp(Warp& warp);
    void leave();
    void open_barrier();
    void give_up(Ended ended, uint32_t absent);
    Fiber* idle_fiber();
    void grow(uint32_t fibers);

    const Kernel* kernel_ = nullptr;
    const void* args_ = nullptr;
    uint32_t threads_ = 0;
    uint32_t begun_ = 0;   // threads 0 to begun_ - 1 have begun
    uint32_t ended_ = 0;   // how many of them have ended
    uint32_t pauses_ = 0;  // since the operating system was last let run others
    uint64_t patience_ = 0;
    uint64_t stuck_since_ = 0; // when somebody first looked at a barrier that did not open; 0: has not looked yet
    Fiber own_{};              // the stack of the thread of the operating system
    Fiber* running_ = nullptr;
    Row ready_;     // can go on
    Row barrier_;   // wait at the barrier
    uint32_t arrived_ = 0; // how many these are
    Row idle_;      // run nothing
    uint32_t fibers_ = 0; // taken from the pool, wherever they are
    std::vector<Warp> warps_;
    std::vector<uint64_t> lanes_; // what each thread has for the others of its warp
    std::vector<Packet> dynamic_; // the dynamic shared memory; aligned to 16 bytes
    Outcome outcome_;
#if HOST_TSAN
    void begin_tsan();
    void end_tsan();
    void** tsan_ = nullptr; // what each GPU thread is known by
    uint32_t generation_ = 0;
    uint64_t barrier_words_[2] = {}; // order what came before a barrier, by parity of its number
    uint64_t end_word_ = 0;          // orders what the threads did before what follows the block
#endif
};

} // namespace host
