// SPDX-License-Identifier: MPL-2.0
//
// Kernels with one mistake each, which argument `faulty` plants; without it they are right. The test finds the lines by
// the comments behind them.
#include "dialect.h"

struct Words {
    u32* from; // a word a thread
    u32* to;   // a word a thread
    u64 faulty;
};

// Each thread hands its word to the next one.
KERNEL(fault_dropped_barrier, Words) {
    SHARED u32 hand[256];
    hand[thread()] = args.from[thread()]; // LINE written
    if (args.faulty == 0) sync_block();
    args.to[thread()] = hand[(thread() + 1) % threads()]; // LINE read
}

KERNEL(fault_past_the_end_read, Words) {
    args.to[thread()] = args.from[thread() + (args.faulty != 0 ? 1 : 0)]; // LINE past read
}

KERNEL(fault_past_the_end_written, Words) {
    u8* const to = (u8*)args.to + 4 * thread();
    const u32 bytes = args.faulty != 0 ? 5 : 4;
    for (u32 i = 0; i < bytes; ++i) to[i] = (u8)(args.from[thread()] >> 8 * (i % 4)); // LINE past written
}

KERNEL(fault_argument_written, Words) {
    if (args.faulty != 0) ((volatile Words&)args).faulty = 2; // LINE argument
    args.to[thread()] = args.from[thread()];
}

KERNEL(fault_before_the_beginning, Words) {
    args.to[thread()] = args.from[thread() - (u64)(args.faulty != 0 ? 1 : 0)]; // LINE before
}

// As an instruction of that width would have it on a card.
KERNEL(fault_not_aligned, Words) {
    const u64 off = args.faulty != 0 ? 4 : 0;
    const u64 both = *(const volatile u64*)((const char*)args.from + thread() / 4 * 8 + off); // LINE not aligned
    args.to[thread()] = (u32)both;
}

// A sum by halves: the last steps are of one warp, if warps have 64 threads, and need no barrier then.
KERNEL(fault_warp_of_64, Words) {
    SHARED u32 sums[256];
    sums[thread()] = args.from[thread()];
    for (u32 half = threads() / 2; half > 0; half /= 2) {
        if (args.faulty == 0 || half >= 64) sync_block();
        else sync_warp();
        if (thread() < half) sums[thread()] += sums[thread() + half]; // LINE warp
    }
    if (thread() == 0) args.to[0] = sums[0];
}

KERNEL(fault_lane_of_64, Words) {
    u32 sum = args.from[thread()];
    for (u32 step = args.faulty != 0 ? 32 : warp() / 2; step > 0; step /= 2)
        sum += from_lane(sum, (lane() + step) % (args.faulty != 0 ? 64 : warp())); // LINE lane
    args.to[thread()] = sum;
}

KERNEL(fault_missed_barrier, Words) {
    if (args.faulty != 0 && thread() >= 100) return;
    sync_block(); // LINE missed
    args.to[thread()] = args.from[thread()];
}

KERNEL(fault_two_barriers, Words) {
    if (args.faulty != 0 && thread() % 2 == 1) {
        sync_block(); // LINE odd
    } else {
        sync_block(); // LINE even
    }
    args.to[thread()] = args.from[thread()];
}

// Some wait for their warp, and the rest of it for the block.
KERNEL(fault_warp_and_block, Words) {
    if (args.faulty != 0 && lane() == 0) sync_block();
    sync_warp();
    if (args.faulty == 0 || lane() != 0) sync_block();
    args.to[thread()] = args.from[thread()];
}

KERNEL(fault_unwritten, Words) {
    SHARED u32 own[256];
    if (args.faulty == 0 || thread() % 8 != 0) own[thread()] = args.from[thread()];
    args.to[thread()] = own[thread()]; // LINE unwritten
}

// The same in memory that the launch gives.
KERNEL(fault_unwritten_dynamic, Words) {
    u32* const own = (u32*)dynamic_shared();
    if (args.faulty == 0 || thread() != 5) own[thread()] = args.from[thread()];
    args.to[thread()] = own[thread()]; // LINE unwritten dynamic
}

KERNEL(fault_past_dynamic, Words) {
    u32* const own = (u32*)dynamic_shared();
    const u32 at = thread() + (args.faulty != 0 ? 1 : 0);
    own[at] = args.from[thread()]; // LINE past dynamic
    args.to[thread()] = own[at];
}

// Block 0 gives words to block 1 through one slot, which block 1 says that it has consumed.
struct Slots {
    u32* slot;     // the word, how many were given, how many were taken
    u32* to;       // a word each
    u64 words;
    u64 faulty;
};

KERNEL(fault_missing_consumed_flag, Slots) {
    if (thread() != 0) return;
    for (u32 i = 0; i < args.words; ++i) {
        if (block() == 0) {
            while (args.faulty == 0 && load_acquire_device(args.slot + 2) < i) pause();
            args.slot[0] = 1000 + i;
            store_release_device(args.slot + 1, i + 1);
        } else {
            while (load_acquire_device(args.slot + 1) < i + 1) pause();
            args.to[i] = args.slot[0];
            store_release_device(args.slot + 2, i + 1);
        }
    }
}

// How many blocks there are at a time, at the most, while each waits for as many as have room.
struct Room {
    u32* now; // how many; the most
    u64 expected;
};

KERNEL(room, Room) {
    if (thread() != 0) return;
    const u32 here = add_system(args.now, 1) + 1;
    while (load_acquire_device(args.now + 1) < args.expected) {
        if (here > load_acquire_device(args.now + 1)) store_release_device(args.now + 1, here);
        pause();
    }
    if (here > load_acquire_device(args.now + 1)) store_release_device(args.now + 1, here);
    add_system(args.now, ~0u);
}
