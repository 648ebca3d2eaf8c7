// SPDX-License-Identifier: MPL-2.0
//
// Messages by copies: a rank's thread is its stream, which copies, and launches what tells and waits. (messages.h has what
// sends them, and undelivered.h those that fail.)
#pragma once

// Every rank sends to the next and receives from the one before, in each round: by themselves, or, one rank, in a batch,
// whose other ends are none. Where there is no batch, somebody receives first.
static std::vector<Together> relayed_round(u32 n, u32 rank, u32 round) {
    const u32 next = (rank + 1) % n, before = (rank + n - 1) % n, turn = round % (n + 1);
    const Planned sent = {true, next, length_of(rank, next, round)};
    const Planned received = {false, before, length_of(before, rank, round)};
    if (turn == rank) return {{sent, received}};
    if (turn == n && rank == 0) return {{received}, {sent}};
    return {{sent}, {received}};
}

CASE(relayed_messages_and_batches) {
    for (u32 n = 2; n <= 3; ++n) {
        World world(n);
        EXPECT(send_all(
            world,
            [n](u32 rank, u32 number) -> Together {
                for (u32 round = 0; round < (COSTLY ? 6 : 45); ++round)
                    for (const Together& one : relayed_round(n, rank, round))
                        if (number-- == 0) return one;
                return {};
            },
            true));
    }
}

CASE(counts_of_relayed_messages_wrap) {
    for (u32 begin : {(1u << 31) - 5, 0u - 5}) {
        World world(2, begin);
        EXPECT(send_all(
            world,
            [](u32 rank, u32 number) -> Together {
                if (number == 12) return {};
                return {{(number + rank) % 2 == 0, 1 - rank, LENGTHS[8 - number % 4]}};
            },
            true));
        EXPECT(world.states[0].messages[0][0][1] == begin + 6 && world.states[0].messages[1][0][1] == begin + 6);
    }
}

// A slot is not written before the receiver's copy has read it, by the next message neither.
CASE(a_relayed_message_is_taken_late) {
    const Stall stall(ENTERING, 1);
    World world(2);
    EXPECT(send_all(
        world,
        [](u32 rank, u32 number) -> Together {
            if (number == 8) return {};
            return {{rank == 0, 1 - rank, number % 2 == 0 ? 1000u : 200u}};
        },
        true));
}

CASE(every_wait_of_a_relayed_message_spins) {
    for (const u32 phase : {GIVING, TAKING}) {
        // The receiver comes late, or the sender.
        const Stall stall(ENTERING, phase == GIVING ? 1 : 0);
        spun[phase] = 0;
        for (int attempt = 0; attempt < 100 && spun[phase] == 0; ++attempt) {
            World world(2);
            const Plan plan = [](u32 rank, u32 number) -> Together {
                if (number == 4) return {};
                return {{rank == 0, 1 - rank, 1000}};
            };
            EXPECT(send_all(world, plan, true));
        }
        EXPECT(spun[phase] > 0);
    }
}

// Whoever is not met is named, and its message given up in the launches behind too; so are both where they differ.
CASE(relayed_messages_that_fail) {
    for (const bool absent : {true, false}) {
        World world(2);
        world.patience = absent ? SHORT : LONG;
        std::vector<std::thread> ranks;
        for (u32 rank = 0; rank < (absent ? 1 : 2); ++rank)
            ranks.emplace_back([&, rank] {
                Messenger messenger{world, rank, true};
                Messages args = messenger.arguments({{rank == 0, 1 - rank, 1000}});
                args.message[0].contents += rank;
                EXPECT(messenger.relay(args));
            });
        for (std::thread& rank : ranks) rank.join();
        const Report &first = world.reports[0], &second = world.reports[1];
        EXPECT(first.phase == GIVING && first.calls == 0);
        if (absent) EXPECT(first.ended == LATE && first.missing == 2);
        if (absent) continue;
        EXPECT(first.ended == DIFFERS && first.differing == 2);
        EXPECT(second.ended == DIFFERS && second.differing == 1 && second.phase == TAKING);
    }
}
