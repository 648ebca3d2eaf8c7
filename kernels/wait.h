// SPDX-License-Identifier: MPL-2.0
//
// Waiting for what another rank writes: the one loop in which kernels wait.
//
// It ends. Between looks at what it waits for it looks, every 64th time, at the abort word and at the clock, both of
// which are too far away to be asked more often; and it answers why it ended, so that the caller can go on to every
// sync_block() of its kernel without touching data, and leave a record of who was missing.
//
// Counters only grow, and are compared by the sign of their difference: right as long as they are less than half their
// range apart, also where they wrap.
#pragma once

#include "dialect.h"

// Tests count the waits that had to look twice, by the phase of a call (pad.h), or 0 outside of calls.
#if !defined(SPUN)
#define SPUN(phase)
#endif

enum Ended : u32 {
    REACHED = 0,
    ABORTED = 1,
    LATE = 2,
    DIFFERS = 3,  // a rank's call is another one
    DESERTED = 4, // a rank that had entered the call gave it up
    GONE = 5,     // a rank names memory that this one has given up
};

// Looks at the counter between looks at what may end the wait otherwise.
constexpr u32 LOOKS = 64;

// Waits until `seen()` is true, the abort word is not zero, or `clock_ns()` has passed `deadline`.
template <class Seen>
DEVICE u32 wait_for(Seen seen, const u32* abort, u64 deadline) {
    for (u32 looks = 1;; ++looks) {
        if (seen()) return REACHED;
        SPUN(0);
        if (looks % LOOKS == 0) {
            if (load_relaxed_system(abort) != 0) return ABORTED;
            if (clock_ns() > deadline) return LATE;
        }
        pause();
    }
}

// Waits for a counter to be at least `value`. What its writer wrote before it raised the counter is visible to this
// thread afterwards.
DEVICE u32 wait_until(const u32* counter, u32 value, const u32* abort, u64 deadline) {
    return wait_for([&] { return (i32)(load_acquire_system(counter) - value) >= 0; }, abort, deadline);
}
