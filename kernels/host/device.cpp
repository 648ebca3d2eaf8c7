// SPDX-License-Identifier: MPL-2.0
//
// Dealing blocks out to room and threads. One lock guards it all, and is not held while a block runs.
#include "device.h"

#include <cfenv>
#include <system_error>
#include <thread>

namespace host {

Device::Device(const Model& model) : model_(model), rooms_(model) {}

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
        if (!rooms_.take(grid.launch.threads, grid.launch.shared, multiprocessor)) return;
        Runner* runner = idle_runner(grid);
        if (runner == nullptr) {
            rooms_.give_back(grid.launch.threads, grid.launch.shared, multiprocessor);
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
    const Outcome outcome = block.run(*launch.kernel, launch.args, index, launch.blocks, launch.threads, launch.shared,
                                      model_.barrier_patience_ns);
    lock.lock();
    rooms_.give_back(launch.threads, launch.shared, runner.multiprocessor);
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
