// SPDX-License-Identifier: MPL-2.0
//
// The dialect's words: indices, shared memory, the barrier and what happens where threads miss it, waiting in a block.
#include "../../kernels/dialect.h"
#include "cases.h"

struct Indices {
    u32* out; // four words a thread
};

KERNEL(test_indices, Indices) {
    u32* mine = args.out + 4 * (block() * threads() + thread());
    mine[0] = block();
    mine[1] = blocks();
    mine[2] = thread();
    mine[3] = threads();
}

CASE(indices) {
    for (u32 threads : {1u, 7u, 64u, 256u}) {
        const u32 blocks = 9;
        std::vector<u32> out(4 * blocks * threads);
        const Indices args{out.data()};
        EXPECT(run({"test_indices", &args, blocks, threads, 0}).ended == host::Ended::WELL);
        for (u32 i = 0; i < blocks * threads; ++i) {
            EXPECT(out[4 * i] == i / threads && out[4 * i + 1] == blocks);
            EXPECT(out[4 * i + 2] == i % threads && out[4 * i + 3] == threads);
        }
    }
}

// Each round, each thread hands its value to the next one through shared memory.
struct Pass {
    u32* out; // a word a thread
    u32 rounds;
    u32 race; // not 0: without the barrier between writing and reading
};

KERNEL(test_pass, Pass) {
    SHARED u32 hand[256];
    u32 value = thread();
    for (u32 round = 0; round < args.rounds; ++round) {
        hand[thread()] = value;
        if (args.race == 0) sync_block();
        value = hand[(thread() + 1) % threads()];
        sync_block();
    }
    args.out[block() * threads() + thread()] = value;
}

static void pass(u32 race) {
    const u32 blocks = 5, threads = 64, rounds = 9;
    std::vector<u32> out(blocks * threads);
    const Pass args{out.data(), rounds, race};
    EXPECT(run({"test_pass", &args, blocks, threads, 0}).ended == host::Ended::WELL);
    for (u32 i = 0; i < blocks * threads; ++i) EXPECT(out[i] == (i % threads + rounds) % threads);
}

CASE(shared_memory_between_barriers) { pass(0); }
CASE(planted_race) { pass(1); }

// Threads from `stay` on end before the barrier.
struct Leave {
    u32* passed;
    u32 stay;
};

KERNEL(test_leave, Leave) {
    if (thread() >= args.stay) return;
    sync_block();
    add_system(args.passed, 1);
}

CASE(a_thread_that_ended_counts_as_arrived_and_is_reported) {
    for (u32 stay : {1u, 31u, 63u}) {
        u32 passed = 0;
        const Leave args{&passed, stay};
        const host::Outcome outcome = run({"test_leave", &args, 3, 64, 0});
        EXPECT(passed == 3 * stay);
        EXPECT(outcome.ended == host::Ended::MISSED && outcome.absent == 64 - stay);
    }
    u32 passed = 0;
    const Leave all{&passed, 64};
    EXPECT(run({"test_leave", &all, 3, 64, 0}).ended == host::Ended::WELL && passed == 3 * 64);
    // No barrier is passed where nobody is left.
    const Leave none{&passed, 0};
    EXPECT(run({"test_leave", &none, 3, 64, 0}).ended == host::Ended::WELL);
}

// The last thread of block 1 waits for a word that nobody raises; the others wait for it at the barrier.
struct Stuck {
    const u32* word;
    u32* passed;
};

KERNEL(test_stuck, Stuck) {
    if (block() == 1 && thread() == threads() - 1)
        while (load_acquire_system(args.word) == 0) pause();
    sync_block();
    add_system(args.passed, 1);
}

CASE(a_barrier_that_never_opens_ends_the_block) {
    u32 word = 0, passed = 0;
    const Stuck args{&word, &passed};
    const host::Outcome outcome = run_impatient({"test_stuck", &args, 3, 64, 0});
    EXPECT(outcome.ended == host::Ended::STUCK && outcome.block == 1 && outcome.absent == 1);
    EXPECT(passed == 2 * 64);
    // The stacks of its threads serve the next launch.
    pass(0);
}

// Each thread waits for the one after it, so all but the last wait at the same time.
struct Chain {
    u32* words; // one more than there are threads
};

KERNEL(test_chain, Chain) {
    while (load_acquire_device(args.words + thread() + 1) == 0) pause();
    store_release_device(args.words + thread(), 1);
}

CASE(threads_of_a_block_wait_for_one_another) {
    std::vector<u32> words(257);
    words[256] = 1;
    const Chain args{words.data()};
    EXPECT(run({"test_chain", &args, 1, 256, 0}).ended == host::Ended::WELL && words[0] == 1);
}

// Words of a warp and the launch's shared memory: each thread leaves its number there, and takes that of the lane behind
// it, and of the warp's even lanes.
struct Lanes {
    u32* out; // three words a thread
};

KERNEL(test_lanes, Lanes) {
    u32* const numbers = (u32*)dynamic_shared();
    numbers[thread()] = thread();
    const u64 even = lanes_where(lane() % 2 == 0);
    const float behind = from_lane((float)thread(), lane() + 1);
    sync_warp();
    u32* const mine = args.out + 3 * (block() * threads() + thread());
    mine[0] = numbers[thread() / warp() * warp()];
    mine[1] = (u32)behind;
    mine[2] = (u32)even;
}

CASE(lanes_of_a_warp_meet) {
    for (u32 threads : {1u, 31u, 33u, 128u}) {
        std::vector<u32> out(3 * 2 * threads);
        const Lanes args{out.data()};
        EXPECT(run({"test_lanes", &args, 2, threads, 4 * threads}).ended == host::Ended::WELL);
        for (u32 i = 0; i < 2 * threads; ++i) {
            const u32 own = i % threads, first = own / 32 * 32, lanes = threads - first < 32 ? threads - first : 32;
            EXPECT(out[3 * i] == first);
            if (own % 32 + 1 < lanes) EXPECT(out[3 * i + 1] == own + 1);
            EXPECT(out[3 * i + 2] == (0x55555555u & (u32)((1ull << lanes) - 1)));
        }
    }
}

// Every other thread waits for its warp, and the rest for the block.
KERNEL(test_apart, Leave) {
    if (thread() % 2 == 0) sync_warp();
    sync_block();
    add_system(args.passed, 1);
}

CASE(threads_that_wait_for_one_another_are_given_up) {
    u32 passed = 0;
    const Leave args{&passed, 0};
    const host::Outcome outcome = run({"test_apart", &args, 1, 64, 0});
    EXPECT(outcome.ended == host::Ended::STUCK && outcome.absent == 32 && passed == 0);
}

struct Write {
    u32* to;
};

KERNEL(test_write, Write) { args.to[thread()] = thread(); }

// Only a sanitizer can see it.
CASE(planted_overflow) {
    u32* words = new u32[63];
    const Write args{words};
    run({"test_write", &args, 1, 64, 0});
    delete[] words;
}
