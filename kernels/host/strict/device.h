// SPDX-License-Identifier: MPL-2.0
//
// A strict device: the room that it has, taken as on other devices (../device.h), and what its launches do with it.
//
// The thread that launches runs all blocks of its launch (run.h). So launches of several threads go on at the same time,
// and wait for one another where they do so on a card.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>

#include "../rooms.h"
#include "run.h"

namespace host::strict {

class Device {
public:
    explicit Device(uint64_t seed) : rooms_(model_), seed_(seed) {}
    Device(const Device&) = delete;

    // Runs a launch to its end, or to its first mistake. `number` tells launches apart whose kernels and shapes are the
    // same. There must be room for one block.
    Fault run(const Module& module, const Launch& launch, uint64_t number, Unwritten& unwritten);

    const Model& model() const { return model_; }

private:
    const Model model_;
    std::mutex lock_; // of all below
    std::condition_variable changed_;
    Rooms rooms_;
    std::deque<const Run*> waiting_; // launches with blocks that have not begun, the earliest first
    const uint64_t seed_;
};

} // namespace host::strict
