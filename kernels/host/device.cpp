// SPDX-License-Identifier: MPL-2.0
//
// Dealing blocks out to room and threads. One lock guards it all, and is not held while a block runs.
#include "device.h"

#include <algorithm>
#include <cfenv>
#include <system_error>
#include <thread>

namespace host {

static uint32_t whole_warps(uint32_t threads, uint32_t warp) { return (threads + warp - 1) / warp * warp; }

uint32_t Model::resident_blocks(uint32_t threads, uint32_t shared) const {
    if (threads == 0 || threads > threads_per_block) return 0;
    const uint32_t by_threads = threads_per_multiprocessor / whole_warps(threads, warp);
    const uint64_t by_shared = shared_per_multiprocessor / (static_cast<uint64_t>(shared) + shared_reserved_per_block);
    return std::min({by_threads, blocks_per_multiprocessor, static_cast<uint32_t>(by_shared)});
}

Device::Device(const Model& model)
    : model_(model), rooms_(model.multiprocessors, Room{model.threads_per_multiprocessor,
                                                        model.blocks_per_multiprocessor,
                                                        model.shared_per_multiprocessor}) {}

uint32_t Device::room_threads(const Launch& launch) const { return whole_warps(launch.threads, model_.warp); }
uint32_t Device::room_shared(const Launch& launch) const { return launch.shared + model_.shared_reserved_per_block; }

// On the multiprocessor with the fewest threads, as cards spread their blocks.
bool Device::take_room(const Launch& launch, uint32_t& multiprocessor) {
    const uint32_t threads = room_threads(launch), shared = room_shared(launch);
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

// Null where the operating system gives no thread; then the block waits for one that is there.
Device::Runner* Device::idle_runner(Grid& grid) {
    if (grid.caller_idle) {
        grid.caller_idle = false;
        return &grid.caller;
    }
    if (!idle_.empty()) {
        Runner* runner = idle_.back();
        idle_.pop_back();
        return runner;
    }
    Runner* runner = new Runner;
    try {
        std::thread([this, runner] { serve(*runner); }).detach();
    } catch (const std::system_error&) {
        delete runner;
        return nullptr;
    }
    return runner;
}

void Device::deal() {
    while (!grids_.empty()) {
        Grid& grid = *grids_.front();
        uint32_t multiprocessor;
        if (!take_room(grid.launch, multiprocessor)) return;
        Runner* runner = idle_runner(grid);
        if (runner == nullptr) {
            Room& room = rooms_[multiprocessor];
            room.threads += room_threads(grid.launch);
            room.blocks += 1;
            room.shared += room_shared(grid.launch);
            return;
        }
        runner->grid = &grid;
        runner->index = grid.begun;
        runner->multiprocessor = multiprocessor;
        runner->wake.notify_one();
        if (++grid.begun == grid.launch.blocks) grids_.erase(grids_.begin());
    }
}

// Runs the runner's block, and deals its room out again; the runner is idle by then.
void Device::run_block(Runner& runner, Block& block, std::unique_lock<std::mutex>& lock) {
    Grid& grid = *runner.grid;
    const Launch& launch = grid.launch;
    const uint32_t index = runner.index;
    lock.unlock();
    const Outcome outcome =
        block.run(*launch.kernel, launch.args, index, launch.blocks, launch.threads, model_.barrier_patience_ns);
    lock.lock();
    Room& room = rooms_[runner.multiprocessor];
    room.threads += room_threads(launch);
    room.blocks += 1;
    room.shared += room_shared(launch);
    if (outcome.ended > grid.outcome.ended) grid.outcome = outcome;
    runner.grid = nullptr;
    if (&runner == &grid.caller) grid.caller_idle = true;
    else idle_.push_back(&runner);
    // The launching thread may return once this is said and the lock given up.
    if (++grid.ended == launch.blocks) grid.caller.wake.notify_one();
    deal();
}

// A thread of ours, for ever.
void Device::serve(Runner& runner) {
    // A new thread has the environment of the one that made it.
    std::fesetenv(FE_DFL_ENV);
    Block block;
    std::unique_lock<std::mutex> lock(lock_);
    for (;;) {
        while (runner.grid != nullptr) run_block(runner, block, lock);
        // Others may need the stacks while this one has nothing to do.
        block.release();
        runner.wake.wait(lock, [&] { return runner.grid != nullptr; });
    }
}

Outcome Device::run(const Launch& launch) {
    Block block;
    Grid grid{launch, {}};
    if (launch.blocks == 0) return grid.outcome;
    std::fenv_t callers;
    std::fegetenv(&callers);
    std::fesetenv(FE_DFL_ENV);
    std::unique_lock<std::mutex> lock(lock_);
    grids_.push_back(&grid);
    deal();
    while (grid.ended != launch.blocks) {
        if (grid.caller.grid != nullptr) run_block(grid.caller, block, lock);
        else grid.caller.wake.wait(lock, [&] { return grid.caller.grid != nullptr || grid.ended == launch.blocks; });
    }
    std::fesetenv(&callers);
    return grid.outcome;
}

} // namespace host
