// SPDX-License-Identifier: MPL-2.0
//
// Programs: calls whose data moves between kernels, ordered by flags. A rank's thread is its stream: it enters, writes
// into its peers' memory itself, and launches what raises flags and waits. (collectives.cpp has the ranks' world.)
#pragma once

constexpr u32 ROUNDS = 3;
constexpr u64 PART = 16;

static Flags marked(const Collective& call, u32 raised, u32 awaited) {
    Flags args{};
    args.call = call;
    args.raised = raised;
    args.awaited = awaited;
    return args;
}

// Raises this rank's flag `flag` for all others and waits for theirs, at so much before the call's end.
static bool exchange(const Collective& call, u32 flag, u64 before_end) {
    Flags args = marked(call, 0, 0);
    for (u32 peer = 0; peer < call.world; ++peer)
        if (peer != call.rank) args.marks[args.raised++] = {peer, flag, before_end};
    args.awaited = args.raised;
    for (u32 i = 0; i < args.raised; ++i) args.marks[args.raised + i] = args.marks[i];
    return run({"flags", &args, 1, 32, 0}).ended == host::Ended::WELL;
}

static bool enter_program(World& world, Collective& call, u32 number, u64 advance) {
    call.hash += number;
    call.elements = advance;
    return run({"barrier", &call, 1, threads_of(), 0}).ended == host::Ended::WELL && world.reports[call.rank].claims == 0;
}

// In each round every rank writes its part into all ranks' memory, tells them, and reads all parts; another flag says
// that it has, before the parts of the next round come.
static bool gather_in_rounds(World& world, u32 rank, u32 number) {
    Collective call = world.arguments(rank, 0, true, false);
    if (!enter_program(world, call, number, ROUNDS)) return false;
    for (u32 round = 0; round < ROUNDS; ++round) {
        const u64 before_end = ROUNDS - 1 - round;
        for (u32 peer = 0; peer < world.n; ++peer)
            for (u64 i = 0; i < PART; ++i) world.output(peer)[rank * PART + i] = input_of(rank, number * ROUNDS + round, i);
        if (!exchange(call, 0, before_end)) return false;
        for (u32 peer = 0; peer < world.n; ++peer)
            for (u64 i = 0; i < PART; ++i)
                if (world.output(rank)[peer * PART + i] != input_of(peer, number * ROUNDS + round, i)) return false;
        if (!exchange(call, 1, before_end)) return false;
    }
    return world.reports[rank].claims == 0;
}

CASE(programs_in_a_row) {
    for (u32 n = 1; n <= 3; ++n) {
        // One rank raises its flags late, so that others would have to take what an earlier call left for them.
        const Stall stall(SENDING, 1);
        World world(n, 0u - 3);
        std::vector<char> right(n, 1);
        std::vector<std::thread> ranks;
        for (u32 rank = 0; rank < n; ++rank)
            ranks.emplace_back([&, rank] {
                for (u32 number = 0; right[rank] && number < (COSTLY ? 3 : 12); ++number)
                    right[rank] = gather_in_rounds(world, rank, number);
            });
        for (std::thread& rank : ranks) rank.join();
        for (u32 rank = 0; rank < n; ++rank) {
            EXPECT(right[rank]);
            EXPECT(world.states[rank].base == ROUNDS * (COSTLY ? 3u : 12u));
        }
    }
}

// Ranks that have entered. Whoever gave up or was called off before all have would be missed by the rest as they enter.
struct Entered {
    std::atomic<u32> ranks{0};

    void all_of(u32 n) {
        while (ranks.load() < n) std::this_thread::yield();
    }
};

CASE(who_raises_no_flag_is_named) {
    World world(3);
    Entered entered;
    std::vector<std::thread> ranks;
    for (u32 rank = 0; rank < 3; ++rank)
        ranks.emplace_back([&, rank] {
            Collective call = world.arguments(rank, 0, true, false);
            EXPECT(enter_program(world, call, 0, 1));
            entered.ranks += 1;
            entered.all_of(3);
            // Rank 0 waits for rank 2, which raises nothing, and rank 1 for rank 0, which gives up, and says so.
            if (rank == 2) return;
            call.patience = rank == 0 ? SHORT : LONG;
            Flags waits = marked(call, 0, 1), raises = marked(call, 1, 0);
            waits.marks[0] = {rank == 0 ? 2u : 0u, 0, 0};
            raises.marks[0] = {1, 0, 0};
            EXPECT(run({"flags", &waits, 1, 32, 0}).ended == host::Ended::WELL);
            if (rank == 0) EXPECT(run({"flags", &raises, 1, 32, 0}).ended == host::Ended::WELL);
        });
    for (std::thread& rank : ranks) rank.join();
    const Report &first = world.reports[0], &second = world.reports[1];
    EXPECT(first.ended == LATE && first.missing == 4 && first.phase == RECEIVING && first.calls == 0);
    EXPECT(second.ended == DESERTED && second.deserted == 1 && second.calls == 0);
}

CASE(abort_ends_a_wait_for_a_flag) {
    World world(2);
    Entered entered;
    std::vector<std::thread> ranks;
    for (u32 rank = 0; rank < 2; ++rank)
        ranks.emplace_back([&, rank] {
            Collective call = world.arguments(rank, 0, true, false);
            EXPECT(enter_program(world, call, 0, 1));
            entered.ranks += 1;
            Flags waits = marked(call, 0, 1);
            waits.marks[0] = {1 - rank, 0, 0};
            EXPECT(run({"flags", &waits, 1, 32, 0}).ended == host::Ended::WELL);
        });
    entered.all_of(2);
    const timespec some = {0, 5000000};
    nanosleep(&some, nullptr);
    store_relaxed_system(&world.abort, 1);
    for (std::thread& rank : ranks) rank.join();
    for (const Report& report : world.reports) EXPECT(report.ended == ABORTED && report.calls == 0);
}
