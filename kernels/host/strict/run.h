// SPDX-License-Identifier: MPL-2.0
//
// One launch on a strict device: all of its resident blocks, taken through a kernel by one thread of the operating system
// in an order that a seed decides.
//
// Every GPU thread is a fiber. Which thread goes on is drawn whenever one waits, pauses or ends, and also between two
// accesses to memory, so that threads overtake each other anywhere; how often that is, is drawn for each launch. So is
// the order in which blocks begin. A launch that waits for nobody else does the same for the same seed, always.
//
// Each access to memory is looked at before it is made (access()). The first mistake ends the launch: its threads are not
// gone on with, and fault() says what it was.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "../device.h"
#include "../fiber.h"
#include "../module/module.h"
#include "fault.h"
#include "random.h"
#include "shared.h"

namespace host::strict {

class Run {
public:
    // `seed` is that of the schedule, `filler` what shared memory is filled from.
    Run(const Module& module, const Launch& launch, uint64_t seed, uint64_t filler);
    Run(const Run&) = delete;
    ~Run();

    // Makes the next block resident, on that multiprocessor.
    void begin_block(uint32_t multiprocessor);

    size_t not_begun() const { return order_.size(); }
    size_t resident() const { return residents_.size(); }
    bool failed() const { return fault_.wrong != Wrong::NOTHING; }

    // Goes on with resident blocks until one has ended, for whose multiprocessor it answers true; or has gone on for a
    // while, where blocks have not begun; or has failed.
    bool go_on(uint32_t& multiprocessor);

    const Fault& fault() const { return fault_; }
    const Unwritten& unwritten() const { return unwritten_; }

    // What modules are told to call.
    static const Runtime& runtime();

private:
    struct Resident;

    struct Thread {
        Resident* block;
        uint32_t index;
        Fiber* fiber = nullptr; // null: has not begun
        bool ended = false;
        Place at{}; // what it waits at
    };

    // Threads that wait for one another.
    struct Meeting {
        std::vector<Thread*> waiting;
        uint32_t members = 0;
        uint32_t ended = 0;
        uint32_t last_ended = 0; // one of them
        uint32_t opened = 0;
    };

    struct Resident {
        uint32_t index;
        uint32_t multiprocessor;
        std::vector<Thread> threads;
        std::vector<Thread*> ready;
        Meeting all;
        std::vector<Meeting> warps;
        std::vector<uint64_t> lanes; // what each thread has for the others of its warp
        std::unique_ptr<char[]> dynamic_bytes;
        char* dynamic; // aligned to 16
        Shared dynamic_shared;
        Shared declared_shared;
        std::vector<char> declared_bytes; // what is accessed of them, while another block runs
    };

    static void entry();
    static void sync_block(Place place);
    static void sync_warp(Place place);
    static uint64_t from_lane(uint64_t value, uint32_t lane, Place place);
    static void pause();
    static void access(const void* memory, size_t bytes, uint32_t how, const void* from);

    void meet(Meeting& meeting, Place place, bool of_warp);
    void open(Meeting& meeting);
    void end(Thread& thread);
    Thread* choose();
    void run(Thread& thread);
    void leave();
    void let_others();
    void move_in(Resident* block);
    void fail(const Fault& fault);
    Fault fault_of(Wrong wrong) const;
    Fault waiting_in_vain() const;
    void check(const Access& access);
    void check_shared(Shared& shared, char* memory, size_t offset, const Access& access);
    void find_declared();

    const Module module_;
    const Launch launch_;
    const uint64_t filler_;
    Random random_;
    uint32_t pace_;  // accesses from a switch to the next, on average
    uint32_t until_; // .. to the next one
    uint32_t pauses_ = 0;

    std::vector<uint32_t> order_; // blocks that have not begun, the next one last
    std::vector<std::unique_ptr<Resident>> residents_;
    Resident* home_ = nullptr;  // whose shared memory is in place
    Thread* running_ = nullptr; // null: the thread of the operating system
    Fiber own_{};
    Fiber* idle_ = nullptr;

    Here* here_ = nullptr;
    Range declared_; // this thread's SHARED memory, with `here_` in it
    Range image_;    // the module's other memory: constants
    Range found_;    // the allocation that was accessed last
    uint64_t changes_ = 0;

    Fault fault_;
    Unwritten unwritten_;
};

} // namespace host::strict
