// SPDX-License-Identifier: MPL-2.0
//
// Messages that fail: whose peer never comes, says another thing or gives up, or that are called off. (messages.h has what
// sends them.)
#pragma once

// Rank 0 sends to rank 1, whose arguments are changed, or which does not come.
template <class Change, class Meanwhile>
static std::vector<Report> failing_messages(u64 bytes, u64 patience, bool absent, Change change, Meanwhile meanwhile) {
    World world(3);
    world.patience = patience;
    std::vector<std::thread> ranks;
    for (u32 rank = 0; rank < (absent ? 1 : 2); ++rank)
        ranks.emplace_back([&, rank] {
            Messenger messenger{world, rank};
            Messages args = messenger.arguments({{rank == 0, 1 - rank, bytes, true}});
            u32 blocks = args.message[0].blocks;
            if (rank == 1) change(args.message[0], blocks);
            const Shape shape = {"messages", &args, blocks, threads_of(), 0};
            EXPECT(run(shape).ended == host::Ended::WELL);
            // A later call, of either kind, ends at once.
            if (world.reports[rank].claims == 0) return;
            EXPECT(run(shape).ended == host::Ended::WELL);
            const Collective call = world.arguments(rank, 40, false, false);
            EXPECT(run({"one_shot_f32", &call, 1, threads_of(), 0}).ended == host::Ended::WELL);
        });
    meanwhile(world);
    for (std::thread& rank : ranks) rank.join();
    // What failed is told of.
    const Pad& pad = *(const Pad*)world.arenas[0].data();
    if (world.reports[0].claims != 0) EXPECT(pad.said[0][1].contents == (1ull << 56 | bytes) && pad.said[0][1].number == 0);
    EXPECT(world.reports[2].claims == 0);
    return world.reports;
}

CASE(who_takes_no_message_is_named) {
    const auto reports = failing_messages(1000, SHORT, true, [](Message&, u32&) {}, [](World&) {});
    EXPECT(reports[0].ended == LATE && reports[0].missing == 2 && reports[0].phase == GIVING && reports[0].calls == 0);
}

CASE(abort_ends_a_message) {
    const auto reports = failing_messages(1000, LONG, true, [](Message&, u32&) {}, [](World& world) {
        const timespec some = {0, 5000000};
        nanosleep(&some, nullptr);
        store_relaxed_system(&world.abort, 1);
    });
    EXPECT(reports[0].ended == ABORTED && reports[0].missing == 2);
}

CASE(messages_that_differ_are_named) {
    // In type; and in length, so that the receiver has fewer blocks.
    for (const bool shorter : {false, true}) {
        const auto reports = failing_messages(
            shorter ? 1000 : 400, LONG, false,
            [&](Message& message, u32& blocks) {
                message.contents = shorter ? 1ull << 56 | 40 : 2ull << 56 | 400;
                if (!shorter) return;
                message.bytes = 40;
                message.blocks = blocks = 1;
            },
            [](World&) {});
        EXPECT(reports[0].ended == DIFFERS && reports[0].differing == 2 && reports[0].phase == GIVING);
        EXPECT(reports[1].ended == DIFFERS && reports[1].differing == 1 && reports[1].phase == TAKING);
    }
}

CASE(a_rank_that_gives_up_says_so_to_its_messages) {
    // Rank 0 waits for rank 2 in vain; rank 1, which waits longer, for rank 0, in a later message.
    World world(3);
    std::vector<std::thread> ranks;
    for (u32 rank = 0; rank < 2; ++rank)
        ranks.emplace_back([&, rank] {
            Messenger messenger{world, rank};
            Messages args = messenger.arguments({{false, rank == 0 ? 2u : 0u, 100}});
            Messages later = messenger.arguments({{true, 1, 100}});
            args.call.patience = rank == 0 ? SHORT : LONG;
            EXPECT(run({"messages", &args, 1, threads_of(), 0}).ended == host::Ended::WELL);
            if (rank == 0) EXPECT(run({"messages", &later, 1, threads_of(), 0}).ended == host::Ended::WELL);
        });
    for (std::thread& rank : ranks) rank.join();
    const Report &first = world.reports[0], &second = world.reports[1];
    EXPECT(first.ended == LATE && first.missing == 4 && first.phase == TAKING);
    EXPECT(second.ended == DESERTED && second.deserted == 1);
}
