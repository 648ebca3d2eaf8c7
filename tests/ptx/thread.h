// SPDX-License-Identifier: MPL-2.0
//
// A GPU thread that executes PTX: its registers, and memory as it sees it.
#pragma once

#include "ptx.h"

#include <cstring>

#include "../../kernels/host/words.h"

namespace ptx {

struct Thread {
    Launch* launch;
    uint64_t* registers;
    uint32_t next = 0;   // instruction
    bool ended = false;
    Range shared = {0, 0}, dynamic = {0, 0};
    // Where its accesses have been last: an instruction mostly comes back to the memory that it was at.
    Range near[8] = {};
    // What it has found last where others may store, and how often it has looked.
    struct Found {
        uint64_t address, value;
    } found[16] = {};
    uint32_t looks = 0;
};

// A register holds the bits of a value of any type, zeros above them.
template <class T>
T get(const Thread& thread, uint32_t number) {
    T value;
    std::memcpy(&value, &thread.registers[number], sizeof value);
    return value;
}

template <class T>
void set(Thread& thread, uint32_t number, T value) {
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    thread.registers[number] = bits;
}

// Ends the thread, and says why, once for each launch.
void fail(Thread& thread, const Instruction& at, Fault fault, uint64_t address, size_t bytes);

// The memory with these bytes, if the launch may touch it, or none.
Range reached(const Thread& thread, uint64_t address, size_t bytes);

inline bool is_within(const Range& range, uint64_t address, size_t bytes) {
    return address >= range.begin && address + bytes <= range.end && address + bytes >= address;
}

// The address of an access to so many bytes, or null, and then the thread has ended.
inline char* reach(Thread& thread, const Instruction& at, size_t bytes) {
    const uint64_t address = get<uint64_t>(thread, at.from[0]) + static_cast<uint64_t>(at.offset);
    if (address % bytes != 0) {
        fail(thread, at, Fault::MISALIGNED, address, bytes);
        return nullptr;
    }
    Range& near = thread.near[at.line % 8];
    if (!is_within(near, address, bytes)) {
        near = reached(thread, address, bytes);
        if (near.end == 0) {
            fail(thread, at, Fault::ILLEGAL, address, bytes);
            return nullptr;
        }
    }
    return reinterpret_cast<char*>(address);
}

} // namespace ptx
