// SPDX-License-Identifier: MPL-2.0
//
// A device: how many blocks it has room for, and the order in which the blocks of all launches take that room.
//
// Each resident block runs on a thread of the operating system of its own, so resident blocks make progress together,
// and no others do: kernels that wait for one another without all being resident never meet, as on a card. Launches are
// served in their order; the blocks of the next begin when the last block of the one before has room. A block that does
// not fit waits, and with it all behind it.
//
// The thread that launches waits for the end, and runs blocks of its launch meanwhile, so that a launch of one block
// costs no switch to another thread. Other threads are kept and used again; they are never joined, so a device must not
// be destroyed, and a library that holds this code must not be unloaded.
//
// Kernels run in the default floating-point environment, whatever that of the launching thread is.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "block.h"
#include "kernel.h"
#include "rooms.h"

namespace host {

struct Launch {
    const Kernel* kernel;
    const void* args; // as aligned as the kernel asks; read until the launch ends
    uint32_t blocks;
    uint32_t threads; // of a block
    uint32_t shared;  // bytes of dynamic shared memory of a block
};

class Device {
public:
    explicit Device(const Model& model);
    Device(const Device&) = delete;

    // Runs a launch to its end; may be called by many threads at a time. The outcome is that of the block that ended
    // worst. A launch that no multiprocessor has room for (resident_blocks() is 0) must not be asked for.
    Outcome run(const Launch& launch);

    const Model& model() const { return model_; }

private:
    struct Grid;

    // A thread that runs blocks: one of ours, or one that launches, which runs those of its grid only.
    struct Runner {
        std::condition_variable wake;
        Grid* grid = nullptr; // whose block it is to run; null: none
        uint32_t index = 0;
        uint32_t multiprocessor = 0;
    };

    struct Grid {
        const Launch& launch;
        Runner caller;
        bool caller_idle = true;
        uint32_t begun = 0; // blocks
        uint32_t ended = 0;
        Outcome outcome{};
    };

    void deal();
    Runner* idle_runner(Grid& grid);
    void run_block(Runner& runner, Block& block, std::unique_lock<std::mutex>& lock);
    void serve(Runner& runner);

    const Model model_;
    std::mutex lock_; // of all below, and of the grids and runners
    Rooms rooms_;
    std::vector<Grid*> grids_; // with blocks that have not begun, the earliest first
    std::vector<Runner*> idle_; // threads of ours without a block; the one that ended last is the first to go on
};

} // namespace host
