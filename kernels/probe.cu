// SPDX-License-Identifier: MPL-2.0
//
// Small kernels that ask a device how it behaves (`annulus doctor --gpu`).
//
// Every one of them ends by itself, whatever the answer is: waits have a deadline and an abort word (wait.h), loops a
// count. What they find they write to `out`, which the host reads after the stream has passed them.
#include "dialect.h"
#include "wait.h"

// Nothing: what a launch costs.
struct Nothing {
    u32 unused;
};

KERNEL(probe_nothing, Nothing) {}

// Raises an epoch in device memory by one, and keeps it where the epoch says: one block, any number of threads.
struct Advance {
    u32* epoch;
    u32* kept; // `length` words; word (epoch - 1) % length becomes the epoch
    u32 length;
};

KERNEL(probe_advance, Advance) {
    if (thread() == 0) {
        const u32 epoch = *args.epoch + 1;
        args.kept[(epoch - 1) % args.length] = epoch;
        *args.epoch = epoch;
    }
}

// Every block says that it runs, then waits until `expected` blocks have said so, of this launch or of others. Thus
// blocks that do not run together are late. The first thread does both, with the others at the barrier, so that the
// block is resident with all its threads.
struct Meet {
    u32* arrivals;
    u32* ended; // three words: how many blocks ended REACHED, ABORTED, LATE
    const u32* abort;
    u64 patience; // nanoseconds
    u32 expected;
};

KERNEL(probe_meet, Meet) {
    if (thread() == 0) {
        const u64 deadline = clock_ns() + args.patience;
        add_system(args.arrivals, 1);
        add_system(args.ended + wait_until(args.arrivals, args.expected, args.abort, deadline), 1);
    }
    sync_block();
}

// One of two sides that answer each other's counter, one thread each. Side 0 serves, side 1 returns; a block plays side
// `first + block()`, so that one launch of two blocks plays both, and two launches or two processes play one each.
struct Side {
    u32* mine;
    const u32* theirs;
};

struct Ping {
    Side sides[2];
    u64* out; // two words a side: why it ended (Ended), nanoseconds
    const u32* abort;
    u64 patience; // nanoseconds, for all rounds together
    u32 first;
    u32 rounds;
    u32 scope; // 0: system, 1: device
};

KERNEL(probe_ping, Ping) {
    if (thread() != 0) return;
    const u32 number = args.first + block();
    const Side side = args.sides[number];
    const u64 began = clock_ns();
    const u64 deadline = began + args.patience;
    u32 ended = REACHED;
    for (u32 round = 1; round <= args.rounds && ended == REACHED; ++round) {
        if (args.scope == 0) {
            if (number == 0) store_release_system(side.mine, round);
            ended = wait_until(side.theirs, round, args.abort, deadline);
            if (number == 1 && ended == REACHED) store_release_system(side.mine, round);
        } else {
            if (number == 0) store_release_device(side.mine, round);
            u32 looks = 0;
            while (load_acquire_device(side.theirs) != round) {
                SPUN(0);
                if (++looks % LOOKS == 0 && clock_ns() > deadline) {
                    ended = LATE;
                    break;
                }
                pause();
            }
            if (number == 1 && ended == REACHED) store_release_device(side.mine, round);
        }
    }
    args.out[2 * number] = ended;
    args.out[2 * number + 1] = clock_ns() - began;
}

// Looks `looks` times at a counter, and every `gate`-th time at an abort word too (0: never): what a look costs.
struct Poll {
    const u32* counter;
    const u32* abort;
    u64* out; // nanoseconds, cycles, the sum of what was read
    u32 looks;
    u32 gate;
};

KERNEL(probe_poll, Poll) {
    if (thread() != 0 || block() != 0) return;
    u64 sum = 0;
    u32 until_abort = args.gate;
    const u64 began = clock_ns();
    const u64 cycle = cycles();
    for (u32 look = 0; look < args.looks; ++look) {
        sum += load_acquire_system(args.counter);
        if (args.gate != 0 && --until_abort == 0) {
            sum += load_relaxed_system(args.abort);
            until_abort = args.gate;
        }
    }
    args.out[1] = cycles() - cycle;
    args.out[0] = clock_ns() - began;
    args.out[2] = sum;
}

// Waits for a counter that nobody may ever raise, having told the host that it has begun.
struct Wait {
    const u32* counter;
    const u32* abort;
    u32* begun; // becomes 1
    u64* out;   // why it ended (Ended), nanoseconds from its begin to its end
    u64 patience;
    u32 value;
};

KERNEL(probe_wait, Wait) {
    if (thread() == 0 && block() == 0) {
        const u64 began = clock_ns();
        store_release_system(args.begun, 1);
        args.out[0] = wait_until(args.counter, args.value, args.abort, began + args.patience);
        args.out[1] = clock_ns() - began;
    }
    sync_block();
}

// The clock of clock_ns(): the smallest step it was seen to take, how many steps, and how long that took by both clocks.
struct Ticks {
    u64* out; // smallest step, steps, nanoseconds, cycles
    u32 looks;
};

KERNEL(probe_ticks, Ticks) {
    if (thread() != 0 || block() != 0) return;
    u64 smallest = ~0ull, steps = 0;
    const u64 began = clock_ns();
    const u64 cycle = cycles();
    u64 before = began;
    for (u32 look = 0; look < args.looks; ++look) {
        const u64 now = clock_ns();
        if (now != before) {
            const u64 step = now - before;
            smallest = step < smallest ? step : smallest;
            ++steps;
            before = now;
        }
    }
    args.out[0] = smallest;
    args.out[1] = steps;
    args.out[2] = before - began;
    args.out[3] = cycles() - cycle;
}
