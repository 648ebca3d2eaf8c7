// SPDX-License-Identifier: MPL-2.0
//
// The protocols of the collectives: thousands of calls in a row, counts that wrap, grids that change, ranks that are
// late, absent, aborted or in another call. What is folded are small whole numbers, so that every order has the same
// sum, and every call has other ones. (tests/kernels_bits.rs has the bits.)
//
// Each case also runs against kernels in which a mistake was planted (tests/kernels.rs), and must fail then.
#include "types.h"

#include <atomic>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <thread>

#include "../../kernels/dialect.h"

// Where a rank can be stalled, beside the phases; and how often each wait had to look twice.
constexpr u32 FOLDING = 0;
static void stall(u32 place, u32 rank);
static std::atomic<u32> spun[7];
#define AT(place, rank) stall(place, rank)
#define SPUN(phase) spun[phase].fetch_add(1, std::memory_order_relaxed)

#include "../../kernels/barrier.cu"
#include "../../kernels/flags.cu"
#include "../../kernels/low_latency.cu"
#include "../../kernels/messages.cu"
#include "../../kernels/relay.cu"
#include "../../kernels/one_shot.cu"
#include "../../kernels/parts.cu"
#include "../../kernels/ring.cu"
#include "../../kernels/share.cu"
#include "../../kernels/two_shot.cu"
#include "cases.h"

// One rank stalls at one place, two times of three.
static std::atomic<u32> stalled_place{~0u}, stalled_rank{0}, stalls{0};

static void stall(u32 place, u32 rank) {
    if (stalled_place.load(std::memory_order_relaxed) != place || stalled_rank.load(std::memory_order_relaxed) != rank ||
        thread() != 0)
        return;
    if (stalls.fetch_add(1, std::memory_order_relaxed) % 3 == 2) return;
    const timespec some = {0, 1000000};
    nanosleep(&some, nullptr);
}

struct Stall {
    Stall(u32 place, u32 rank) {
        stalled_rank = rank;
        stalled_place = place;
    }
    ~Stall() { stalled_place = ~0u; }
};

// Where a mistake is planted, ranks may wait in vain.
#if defined(PLANTED)
constexpr u64 LONG = 500000000;
#else
constexpr u64 LONG = 60ull * 1000000000;
#endif
constexpr u64 SHORT = 100000000;
constexpr u64 HALF = 16384, LINES = 64, HEAP = 8192, SLOT = 64;

// The memory of some ranks. Inputs lie in region 1, outputs in region 2; in place, inputs do.
struct World {
    u32 n;
    u64 patience = LONG;
    u32 abort = 0;
    std::vector<std::vector<Packet>> arenas, inputs, outputs;
    std::vector<State> states;
    std::vector<Report> reports;
    std::vector<u64> regions;

    // Ranks that have made so many calls of each kind.
    explicit World(u32 ranks, u32 calls = 0) : n(ranks), states(ranks), reports(ranks) {
        const u64 packets = 2 * n * LINES, slots = n * BLOCKS * PIECES * SLOT / 16;
        for (u32 rank = 0; rank < n; ++rank) {
            arenas.emplace_back((sizeof(Pad) + 2 * HALF) / 16 + packets + slots);
            inputs.emplace_back(HEAP / 16);
            outputs.emplace_back(HEAP / 16);
            for (Turn& turn : states[rank].turns) turn = {calls, calls, calls, 0};
            for (auto& way : states[rank].messages)
                for (auto& block : way)
                    for (u32& count : block) count = calls;
            // What a world that has come so far has in its pads and packets.
            Pad& pad = *(Pad*)arenas[rank].data();
            for (auto& slot : pad.entries)
                for (auto& block : slot)
                    for (Entry& entry : block) entry.word[0] = entry.word[1] = counter_of(calls, 0);
            for (auto& block : pad.done)
                for (u64& word : block) word = counter_of(calls, 1);
            for (u64& word : pad.passed) word = counter_of(calls, 1);
            for (u64& word : pad.taken) word = counter_of(calls, 1);
            for (auto& block : pad.sent)
                for (Sent& sent : block) sent.count = counter_of(calls, 1);
            for (auto& block : pad.received)
                for (u64& word : block) word = counter_of(calls, 2);
            for (u64 i = 0; i < packets; ++i)
                arenas[rank][sizeof(Pad) / 16 + i] = {{(u64)calls << 32, (u64)calls << 32}};
        }
        for (auto* all : {&arenas, &inputs, &outputs})
            for (auto& memory : *all) regions.push_back((u64)memory.data());
    }

    float* input(u32 rank) { return (float*)inputs[rank].data(); }
    float* output(u32 rank, bool in_place = false) { return in_place ? input(rank) : (float*)outputs[rank].data(); }

    Collective arguments(u32 rank, u64 elements, bool staged, bool in_place) {
        Collective args{};
        args.hash = 0x1234567890abcdef;
        args.regions = regions.data();
        args.state = &states[rank];
        args.report = &reports[rank];
        args.abort = &abort;
        args.patience = patience;
        args.from = input(rank);
        args.to = output(rank, in_place);
        args.from_place = staged ? STAGED : 1ull << 48;
        args.to_place = staged ? STAGED : (in_place ? 1ull : 2ull) << 48;
        args.elements = elements;
        args.packets = sizeof(Pad);
        args.lines = LINES;
        args.staging = sizeof(Pad) + 2 * n * LINES * 16;
        args.half = HALF;
        args.operation = SUM;
        args.rank = rank;
        args.world = n;
        return args;
    }
};

// A call of all ranks, or of all but some.
struct Call {
    const char* kernel;
    u64 elements; // of f32; bytes for kernels that move bytes are four times as many
    u32 blocks;
    bool staged, in_place;
};

static float input_of(u32 rank, u32 call, u64 i) { return (float)((rank * 131 + call * 17 + i * 7) % 251 + rank); }

static bool is(const Call& call, const char* kernel) { return std::strcmp(call.kernel, kernel) == 0; }

static bool is_parted(const Call& call) { return is(call, "scatter") || is(call, "gather") || is(call, "all_to_all"); }

static bool gets_nothing(const Call& call, bool is_root) {
    return !is_root && (is(call, "gather") || is(call, "reduce_f32"));
}

static u32 threads_of() { return COSTLY ? 8 : 64; }

// One rank's part of a call: it writes its input, launches, and checks its output. Whether that is right.
static bool make(World& world, const Call& call, u32 rank, u32 number) {
    const u32 n = world.n;
    const bool scatters = is(call, "reduce_scatter_f32"), parted = is_parted(call);
    const bool moves = parted || is(call, "all_gather") || is(call, "broadcast");
    const u32 root = number % n;
    const bool is_root = rank == root;
    const bool gives_all = scatters || is(call, "all_to_all") || (is(call, "scatter") && is_root);
    const bool gets_all = is(call, "all_gather") || is(call, "all_to_all") || (is(call, "gather") && is_root);
    const u64 given = gives_all ? call.elements * n : is(call, "scatter") ? 0 : call.elements;
    const u64 got = gets_all ? call.elements * n : gets_nothing(call, is_root) ? 0 : call.elements;
    Collective args = world.arguments(rank, moves ? call.elements * 4 : call.elements, call.staged, call.in_place);
    args.root = root;
    args.stride = call.elements * 4;
    args.hash += number;
    // In place, one of the two is a slice of the other.
    float* from = world.input(rank);
    float* to = world.output(rank, call.in_place);
    const bool gathers = is(call, "all_gather") || (is(call, "gather") && is_root);
    if (call.in_place && gathers) {
        args.from = from += rank * call.elements;
        if (!call.staged) args.from_place += rank * call.elements * 4;
    }
    if (call.in_place && (scatters || (is(call, "scatter") && is_root))) args.to = to += rank * call.elements;
    for (u64 i = 0; i < given; ++i) from[i] = input_of(rank, number, i);
    if (run({call.kernel, &args, call.blocks, threads_of(), 0}).ended != host::Ended::WELL) return false;
    if (world.reports[rank].claims != 0) return false;
    if (is(call, "barrier")) return true;
    for (u64 i = 0; i < got; ++i) {
        float expected = 0;
        if (is(call, "all_gather")) {
            expected = input_of((u32)(i / call.elements), number, i % call.elements);
        } else if (is(call, "broadcast")) {
            expected = input_of(root, number, i);
        } else if (is(call, "scatter")) {
            expected = input_of(root, number, rank * call.elements + i);
        } else if (is(call, "gather")) {
            expected = input_of((u32)(i / call.elements), number, i % call.elements);
        } else if (is(call, "all_to_all")) {
            expected = input_of((u32)(i / call.elements), number, rank * call.elements + i % call.elements);
        } else {
            const u64 at = scatters ? rank * call.elements + i : i;
            for (u32 peer = 0; peer < n; ++peer) expected += input_of(peer, number, at);
        }
        if (to[i] != expected) return false;
    }
    return true;
}

// All ranks make the calls that `of` gives, one after the other, without waiting for one another between them.
template <class Of>
static bool make_all(World& world, u32 calls, Of of) {
    std::vector<char> right(world.n, 1);
    std::vector<std::thread> ranks;
    for (u32 rank = 0; rank < world.n; ++rank)
        ranks.emplace_back([&, rank] {
            for (u32 number = 0; right[rank] && number < calls; ++number)
                right[rank] = make(world, of(number), rank, number);
        });
    for (std::thread& rank : ranks) rank.join();
    bool all = true;
    for (const char one : right) all = all && one;
    return all;
}

// Calls of all kinds, of changing grids and lengths.
static Call mixed(u32 number) {
    static const char* const kernels[] = {"one_shot_f32", "two_shot_f32", "low_latency_f32", "ring_f32",
                                          "barrier",      "all_gather",   "broadcast",       "reduce_scatter_f32",
                                          "reduce_f32",   "scatter",      "gather",          "all_to_all"};
    const u64 lengths[] = {1, 100, 37, 64, 5};
    const u32 mix = number * 5 + number / 7;
    return {kernels[mix % 12], lengths[number % 5], 1 + number % 2, number % 3 == 0, number % 2 == 1};
}

CASE(calls_in_a_row) {
    for (u32 n = 1; n <= (COSTLY ? 3 : 4); ++n) {
        World world(n);
        EXPECT(make_all(world, COSTLY ? 40 : 240, mixed));
    }
}

CASE(calls_of_one_kind) {
    for (const char* kernel : {"one_shot_f32", "two_shot_f32", "reduce_scatter_f32", "ring_f32", "low_latency_f32",
                               "all_gather", "broadcast", "barrier", "reduce_f32", "scatter", "gather", "all_to_all"}) {
        World world(3);
        EXPECT(make_all(world, COSTLY ? 8 : 60, [&](u32 number) -> Call {
            // One-shot stages all that is short.
            const u64 elements = std::strcmp(kernel, "one_shot_f32") == 0 && number % 8 < 4 ? 1061 : 61;
            return {kernel, elements, 2, number % 2 == 0, number % 4 >= 2};
        }));
    }
}

// What one staged call leaves to the next but one, with each kind of call between them.
CASE(calls_between_calls) {
    for (const char* kernel : {"low_latency_f32", "barrier", "ring_f32", "reduce_scatter_f32", "gather"}) {
        World world(2);
        EXPECT(make_all(world, COSTLY ? 12 : 40, [&](u32 number) -> Call {
            return {number % 2 == 0 ? "one_shot_f32" : kernel, 60, 2, true, false};
        }));
    }
}

CASE(a_thousand_calls) {
    World world(2);
    EXPECT(make_all(world, COSTLY ? 50 : 1000, mixed));
}

CASE(counts_wrap) {
    // The lower half of packets' cleaning, the sign, and the whole count.
    for (u32 begin : {(1u << 30) - 5, (1u << 31) - 5, 0u - 5}) {
        World world(3, begin);
        EXPECT(make_all(world, 24, mixed));
        World small(2, begin);
        EXPECT(make_all(small, 24, [](u32) -> Call { return {"low_latency_f32", 40, 2, true, false}; }));
        World rings(2, begin);
        EXPECT(make_all(rings, 12, [](u32) -> Call { return {"ring_f32", 100, 1, true, false}; }));
    }
}

// Calls that raise none of these counters, as many as half of what can be counted, and then some that do.
CASE(counters_fall_behind) {
    for (const char* kernel : {"two_shot_f32", "ring_f32", "gather"}) {
        const Stall stall(FOLDING, 1);
        World world(2, (1u << 31) - 8);
        for (auto& arena : world.arenas) {
            Pad& pad = *(Pad*)arena.data();
            for (auto& block : pad.done)
                for (u64& word : block) word = 0;
            for (u64& word : pad.passed) word = 0;
            for (u64& word : pad.taken) word = 0;
        }
        EXPECT(make_all(world, 16, [](u32) -> Call { return {"one_shot_f32", 200, 2, true, false}; }));
        EXPECT(make_all(world, 4, [&](u32) -> Call { return {kernel, 900, 2, false, true}; }));
    }
}

// What a fast rank does while a slow one still waits for the call before.
CASE(a_rank_runs_ahead) {
    for (u32 rank = 0; rank < 2; ++rank) {
        const Stall stall(ENTERING, rank);
        World world(3);
        EXPECT(make_all(world, 30, [](u32) -> Call { return {"barrier", 1, 2, true, false}; }));
        World staged(2);
        EXPECT(make_all(staged, 30, [](u32) -> Call { return {"one_shot_f32", 200, 2, true, false}; }));
    }
}

CASE(a_rank_folds_late) {
    for (const char* kernel : {"one_shot_f32", "ring_f32", "two_shot_f32"}) {
        const Stall stall(FOLDING, 1);
        World world(2);
        EXPECT(make_all(world, 20, [&](u32 number) -> Call { return {kernel, 2000, 2, number % 2 == 0, true}; }));
    }
    // In a ring of more ranks than slots, those before it come round to it again.
    const Stall stall(FOLDING, 1);
    World world(SLOTS + 3);
    EXPECT(make_all(world, 10, [](u32) -> Call { return {"ring_f32", 1000, 1, true, false}; }));
}

// What is read where it lies is not overwritten before; nor what is read and written in place.
CASE(a_rank_moves_late) {
    for (const char* kernel : {"scatter", "gather", "all_to_all", "reduce_f32"}) {
        for (u32 rank = 0; rank < 2; ++rank) {
            const Stall stall(FOLDING, rank);
            World world(2);
            EXPECT(make_all(world, 16, [&](u32 number) -> Call { return {kernel, 900, 2, number % 8 == 7, true}; }));
        }
    }
}

CASE(a_rank_cleans_late) {
    const Stall stall(RECEIVING, 0);
    for (int again = 0; again < 3; ++again) {
        World world(2, (1u << 30) - 2);
        EXPECT(make_all(world, 4, [](u32) -> Call { return {"low_latency_f32", 100, 1, true, false}; }));
    }
}

CASE(grids_change) {
    const Stall stall(FOLDING, 1);
    World world(2);
    EXPECT(make_all(world, 40, [](u32 number) -> Call {
        // Two blocks, two times four, and two again: a block that had no part in between must not fall behind.
        return {"one_shot_f32", 1500, number % 3 == 0 ? 1u : number % 3 == 1 ? 3u : 2u, true, false};
    }));
}

// Every wait of every kernel: one rank comes too late for it, and the others must have looked twice. On a busy machine the
// others may come later still: then it is tried again.
CASE(every_wait_spins) {
    const struct {
        const char* kernel;
        u32 stalled, spins, ranks, calls_before; // where a rank stalls, and in which phase the others wait for it
    } waits[] = {
        {"barrier", ENTERING, ENTERING, 2, 0},
        {"one_shot_f32", ENTERING, ENTERING, 2, 0},
        {"one_shot_f32", FOLDING, FINISHING, 2, 0},
        {"two_shot_f32", ENTERING, ENTERING, 2, 0},
        {"two_shot_f32", FOLDING, FINISHING, 2, 0},
        {"reduce_scatter_f32", ENTERING, ENTERING, 2, 0},
        {"reduce_scatter_f32", FOLDING, FINISHING, 2, 0},
        {"all_gather", ENTERING, ENTERING, 2, 0},
        {"all_gather", FOLDING, FINISHING, 2, 0},
        {"broadcast", ENTERING, ENTERING, 2, 0},
        {"broadcast", FOLDING, FINISHING, 2, 0},
        {"reduce_f32", ENTERING, ENTERING, 2, 0},
        {"reduce_f32", FOLDING, FINISHING, 2, 0},
        {"scatter", ENTERING, ENTERING, 2, 0},
        {"scatter", FOLDING, FINISHING, 2, 0},
        {"gather", ENTERING, ENTERING, 2, 0},
        {"gather", FOLDING, FINISHING, 2, 0},
        {"all_to_all", ENTERING, ENTERING, 2, 0},
        {"all_to_all", FOLDING, FINISHING, 2, 0},
        {"ring_f32", ENTERING, ENTERING, 2, 0},
        {"ring_f32", FOLDING, RECEIVING, 2, 0},
        {"ring_f32", FOLDING, SENDING, SLOTS + 3, 0},
        {"low_latency_f32", SENDING, SENDING, 2, 0},
        // Where packets are cleaned, every rank enters first, and says when it is done.
        {"low_latency_f32", RECEIVING, FINISHING, 2, (1u << 30) - 1},
    };
    for (const auto& wait : waits) {
        const Stall stall(wait.stalled, 1);
        spun[wait.spins] = 0;
        for (int attempt = 0; attempt < 100 && spun[wait.spins] == 0; ++attempt) {
            World world(wait.ranks, wait.calls_before);
            // Of short messages one-shot does not wait in the end.
            const u64 elements = std::strcmp(wait.kernel, "one_shot_f32") == 0 ? 1100 : 200;
            EXPECT(make_all(world, 4, [&](u32) -> Call { return {wait.kernel, elements, 1, false, false}; }));
        }
        if (spun[wait.spins] == 0) std::printf("%s: nobody waited in phase %u\n", wait.kernel, wait.spins);
        EXPECT(spun[wait.spins] > 0);
    }
}

CASE(canonical_nan) {
    World world(2);
    std::vector<std::thread> ranks;
    for (u32 rank = 0; rank < 2; ++rank)
        ranks.emplace_back([&, rank] {
            for (u64 i = 0; i < 100; ++i) world.input(rank)[i] = float_of_bits(rank == 0 ? 0xffc12345u : 0x3f800000u);
            const Collective args = world.arguments(rank, 100, false, false);
            run({"one_shot_f32", &args, 2, threads_of(), 0});
        });
    for (std::thread& rank : ranks) rank.join();
    for (u64 i = 0; i < 100; ++i) EXPECT(bits_of_float(world.output(1)[i]) == 0x7fc00000u);
}

CASE(rank_order) {
    // Whole numbers whose sum depends on the order, and zeros that lose their sign if they are added to another.
    for (const char* kernel : {"one_shot_f32", "two_shot_f32"}) {
        World world(3);
        const float values[3] = {1.0f, 16777216.0f, 1.0f};
        std::vector<std::thread> ranks;
        for (u32 rank = 0; rank < 3; ++rank)
            ranks.emplace_back([&, rank] {
                for (u64 i = 0; i < 100; ++i) world.input(rank)[i] = i % 2 == 0 ? values[rank] : -0.0f;
                const Collective args = world.arguments(rank, 100, false, false);
                run({kernel, &args, 2, threads_of(), 0});
            });
        for (std::thread& rank : ranks) rank.join();
        for (u32 rank = 0; rank < 3; ++rank)
            for (u64 i = 0; i < 100; ++i)
                EXPECT(bits_of_float(world.output(rank)[i]) == (i % 2 == 0 ? bits_of_float(16777216.0f) : 0x80000000u));
    }
}

static const char* const every_kernel[] = {"one_shot_f32",    "two_shot_f32", "reduce_scatter_f32", "ring_f32",
                                           "low_latency_f32", "all_gather",   "broadcast",          "barrier",
                                           "reduce_f32",      "scatter",      "gather",             "all_to_all"};

// Ranks 0 and 1 make a call in which `change` changes rank 1's arguments; rank 2 is absent if it is to be.
template <class Change, class Meanwhile>
static std::vector<Report> failing(const char* kernel, u64 patience, bool absent, Change change, Meanwhile meanwhile) {
    World world(3);
    world.patience = patience;
    std::vector<std::thread> ranks;
    for (u32 rank = 0; rank < (absent ? 2 : 3); ++rank)
        ranks.emplace_back([&, rank] {
            Collective args = world.arguments(rank, 40, false, false);
            u32 blocks = 2;
            if (rank == 1) change(args, blocks);
            const Shape shape = {kernel, &args, blocks, threads_of(), 0};
            EXPECT(run(shape).ended == host::Ended::WELL);
            // A later call ends at once.
            if (world.reports[rank].claims != 0) EXPECT(run(shape).ended == host::Ended::WELL);
        });
    meanwhile(world);
    for (std::thread& rank : ranks) rank.join();
    for (u32 rank = 0; rank < 3; ++rank) {
        const Pad& pad = *(const Pad*)world.arenas[rank].data();
        // The call that is told of is the one that failed, not the later one; who was waited for in vain stays told.
        const Report& report = world.reports[rank];
        for (u32 peer = 0; peer < 3; ++peer)
            if ((report.missing >> peer & 1) == 0) EXPECT(pad.awaited[peer] == 0);
        if (report.claims != 0) EXPECT(pad.called.calls == 0);
    }
    return world.reports;
}

// Whether rank 2 is named as missing, and the rank itself is not. The third may have been late too, on a busy machine.
static bool names(const Report& report, u32 rank) {
    return (report.missing & 4) != 0 && (report.missing & 1u << rank) == 0;
}

CASE(a_rank_that_never_comes_is_named) {
    for (const char* kernel : every_kernel) {
        const auto reports = failing(kernel, SHORT, true, [](Collective&, u32&) {}, [](World&) {});
        for (u32 rank = 0; rank < 2; ++rank)
            EXPECT(reports[rank].ended == LATE && names(reports[rank], rank) && reports[rank].phase == ENTERING);
    }
}

// Another block of a call may have failed before block 0 begins, or an earlier call.
CASE(what_failed_is_said_whoever_failed_first) {
    for (u32 calls : {0u, 7u})
        for (bool earlier : {false, true}) {
            World world(1, calls);
            world.states[0].failed = failure_of(calls - earlier, ENTERING);
            Collective args = world.arguments(0, 40, false, false);
            EXPECT(run({every_kernel[0], &args, 2, threads_of(), 0}).ended == host::Ended::WELL);
            const Called& called = ((const Pad*)world.arenas[0].data())->called;
            EXPECT(called.hash == (earlier ? 0 : args.hash));
        }
}

CASE(abort_ends_a_call) {
    for (const char* kernel : every_kernel) {
        const auto reports = failing(kernel, LONG, true, [](Collective&, u32&) {}, [](World& world) {
            const timespec some = {0, 5000000};
            nanosleep(&some, nullptr);
            store_relaxed_system(&world.abort, 1);
        });
        for (u32 rank = 0; rank < 2; ++rank) EXPECT(reports[rank].ended == ABORTED && names(reports[rank], rank));
    }
}

CASE(other_calls_are_named) {
    for (const char* kernel : every_kernel) {
        // Either half of the hash; and a grid that is another one too, as of a longer message.
        for (u64 bit : {1ull, 1ull << 40}) {
            const auto reports = failing(
                kernel, LONG, false,
                [&](Collective& args, u32& blocks) {
                    args.hash ^= bit;
                    blocks = bit == 1 ? 3 : 1;
                },
                [](World&) {});
            EXPECT(reports[0].differing == 2 && reports[2].differing == 2);
            // It may not look at the other once it has seen one.
            EXPECT((reports[1].differing & 5) != 0 && (reports[1].differing & 2) == 0);
            for (const Report& report : reports) EXPECT(report.ended == DIFFERS);
        }
    }
}

#include "messages.h"
#include "programs.h"
#include "relayed.h"
#include "undelivered.h"
