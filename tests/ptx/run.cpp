// SPDX-License-Identifier: MPL-2.0
//
// A launch: its threads, and what they may touch.
#include "thread.h"

#include <algorithm>
#include <cstdio>

namespace ptx {

// What nothing has been stored to.
constexpr unsigned char NONSENSE = 0xcb;


void fail(Thread& thread, const Instruction& at, Fault fault, uint64_t address, size_t bytes) {
    thread.ended = true;
    Fault before = Fault::NONE;
    // Nothing is published by it: the launch is over when it is looked at.
    if (!thread.launch->fault.compare_exchange_strong(before, fault, std::memory_order_relaxed)) return;
    std::fprintf(stderr, "PTX: %s, line %u: thread %u of block %u touches %zu bytes at %#llx, which %s\n",
                 thread.launch->entry->name.c_str(), at.line, host::here.thread, host::here.block, bytes,
                 static_cast<unsigned long long>(address),
                 fault == Fault::MISALIGNED ? "is no multiple of that" : "is no memory that it may touch");
}

Range reached(const Thread& thread, uint64_t address, size_t bytes) {
    for (const Range& own : {thread.shared, thread.dynamic})
        if (is_within(own, address, bytes)) return own;
    const std::vector<Range>& memory = thread.launch->memory;
    // Where nothing is known of memory, all but the beginning is: that is nobody's.
    Range found = {1 << 16, UINT64_MAX};
    if (!memory.empty()) {
        const auto after = std::upper_bound(memory.begin(), memory.end(), address,
                                            [](uint64_t place, const Range& range) { return place < range.begin; });
        if (after == memory.begin()) return {0, 0};
        found = *std::prev(after);
    }
    return is_within(found, address, bytes) ? found : Range{0, 0};
}

// The shared memory of the block that this thread of the operating system runs.
struct Shared {
    std::vector<uint64_t> words;

    Range of(const Entry& entry) {
        const size_t wanted = (entry.shared_bytes + 15) / 16 * 2 + 2;
        if (words.size() < wanted) words.resize(wanted);
        const uint64_t begin = (reinterpret_cast<uint64_t>(words.data()) + 15) / 16 * 16;
        return {begin, begin + entry.shared_bytes};
    }
};

void run(const void* of_launch) {
    static thread_local Shared shared;
    Launch& launch = *static_cast<Launch*>(const_cast<void*>(of_launch));
    const Entry& entry = *launch.entry;
    Thread thread{};
    thread.launch = &launch;
    thread.shared = shared.of(entry);
    const uint64_t dynamic = reinterpret_cast<uint64_t>(host::here.dynamic);
    thread.dynamic = {dynamic, dynamic + launch.dynamic_bytes};
    // The first thread of a block begins before all others.
    if (host::here.thread == 0) {
        std::memset(reinterpret_cast<void*>(thread.shared.begin), NONSENSE, entry.shared_bytes);
        if (launch.dynamic_bytes != 0) std::memset(host::here.dynamic, NONSENSE, launch.dynamic_bytes);
    }
    // Not on the fiber's stack, which is short.
    const std::unique_ptr<uint64_t[]> registers(new uint64_t[entry.registers.size()]);
    thread.registers = registers.get();
    std::copy(entry.registers.begin(), entry.registers.end(), thread.registers);
    thread.registers[THREAD] = host::here.thread;
    thread.registers[THREADS] = host::here.threads;
    thread.registers[BLOCK] = host::here.block;
    thread.registers[BLOCKS] = host::here.blocks;
    thread.registers[ARGUMENT] = reinterpret_cast<uint64_t>(launch.argument);
    for (const auto& [number, offset] : entry.shared) thread.registers[number] = thread.shared.begin + offset;
    for (const uint32_t number : entry.dynamic) thread.registers[number] = dynamic;
    const Instruction* const code = entry.code.data();
    while (!thread.ended) {
        const Instruction& instruction = code[thread.next++];
        instruction.execute(thread, instruction);
    }
}

} // namespace ptx
