// SPDX-License-Identifier: MPL-2.0
//
// Launches by all ranks at the same time, on one device that has room for all of their blocks.
#pragma once

#include "../../../kernels/host/device.h"

#include <thread>
#include <vector>

inline host::Device& device() {
    static host::Device& made = *new host::Device([] {
        host::Model model;
        model.multiprocessors = 64;
        return model;
    }());
    return made;
}

// Has each rank launch, `times` in a row; `launch(rank)` is 0 if that ended well. 0, or what the lowest rank got for which
// it did not.
template <class Launch>
int by_all_ranks(uint32_t ranks, uint32_t times, const Launch& launch) {
    std::vector<int> ended(ranks);
    std::vector<std::thread> streams;
    for (uint32_t rank = 0; rank < ranks; ++rank) {
        const auto run = [&, rank] {
            for (uint32_t time = 0; time < times; ++time)
                if (const int how = launch(rank)) ended[rank] = how;
        };
        if (rank + 1 == ranks) run();
        else streams.emplace_back(run);
    }
    for (std::thread& stream : streams) stream.join();
    for (const int one : ended)
        if (one != 0) return one;
    return 0;
}
