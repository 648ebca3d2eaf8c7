// SPDX-License-Identifier: MPL-2.0
//
// A launch takes room when its turn has come, and looks for more whenever it comes by.
#include "device.h"

#include <algorithm>
#include <cfenv>

namespace host::strict {

Fault Device::run(const Module& module, const Launch& launch, uint64_t number, Unwritten& unwritten) {
    uint64_t seed = mixed(seed_) ^ number;
    for (const char* letter = launch.kernel->name; *letter != 0; ++letter)
        seed = mixed(seed + static_cast<unsigned char>(*letter));
    std::fenv_t callers;
    std::fegetenv(&callers);
    std::fesetenv(FE_DFL_ENV);
    Run run(module, launch, seed, mixed(seed_));
    std::vector<uint32_t> taken; // the multiprocessors of resident blocks
    std::unique_lock<std::mutex> lock(lock_);
    if (run.not_begun() != 0) waiting_.push_back(&run);
    while (!run.failed() && (run.not_begun() != 0 || run.resident() != 0)) {
        uint32_t multiprocessor;
        while (run.not_begun() != 0 && waiting_.front() == &run &&
               rooms_.take(launch.threads, launch.shared, multiprocessor)) {
            run.begin_block(multiprocessor);
            taken.push_back(multiprocessor);
            if (run.not_begun() != 0) continue;
            waiting_.pop_front();
            changed_.notify_all();
        }
        if (run.resident() == 0) {
            changed_.wait(lock);
            continue;
        }
        lock.unlock();
        const bool ended = run.go_on(multiprocessor);
        lock.lock();
        if (!ended) continue;
        rooms_.give_back(launch.threads, launch.shared, multiprocessor);
        taken.erase(std::find(taken.begin(), taken.end(), multiprocessor));
        changed_.notify_all();
    }
    for (const uint32_t multiprocessor : taken) rooms_.give_back(launch.threads, launch.shared, multiprocessor);
    waiting_.erase(std::remove(waiting_.begin(), waiting_.end(), &run), waiting_.end());
    changed_.notify_all();
    lock.unlock();
    std::fesetenv(&callers);
    unwritten = run.unwritten();
    return run.fault();
}

} // namespace host::strict
