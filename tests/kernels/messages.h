// SPDX-License-Identifier: MPL-2.0
//
// Messages: batches of sends and receives, each rank's one launch after the other. Every byte says which message it is
// of, and where it lies there. (collectives.cpp has the ranks' world.)
#pragma once

#include <functional>

// One message of a batch.
struct Planned {
    bool sends;
    u32 peer;
    u64 bytes;
    bool staged = false; // of one that is sent
};

typedef std::vector<Planned> Together;

// What a rank does, batch for batch; empty when it is done.
typedef std::function<Together(u32 rank, u32 number)> Plan;

static u8 byte_of(u32 from, u32 to, u32 number, u64 i) { return (u8)(from * 59 + to * 83 + number * 31 + i * 7 + (i >> 8)); }

// A rank, and how many messages it has sent to others and received.
struct Messenger {
    World& world;
    u32 rank;
    bool relays = false; // messages by themselves are moved by this thread, which launches `relay` (relayed.h)
    u32 counts[2][RANKS] = {};
    u32 number = 0;

    Messages arguments(const Together& batch) {
        Messages args{};
        args.call = world.arguments(rank, 0, true, false);
        args.slots = args.call.staging + 2 * HALF;
        args.slot = SLOT;
        args.room = BLOCKS * PIECES * SLOT;
        // Sources and destinations lie behind one another, aligned anyhow.
        u64 at[2] = {number % 5, number % 3};
        for (const bool sends : {true, false})
            for (const Planned& one : batch) {
                if (one.sends != sends) continue;
                Message& message = args.message[args.messages];
                char* const memory = (char*)(sends ? world.input(rank) : world.output(rank));
                message.address = (u64)memory + at[sends];
                message.place = sends && !one.staged && !relays ? (1ull << 48) + at[sends] : STAGED;
                message.bytes = message.contents = one.bytes;
                message.contents |= 1ull << 56;
                message.peer = one.peer;
                message.blocks = one.bytes > 500 && !relays ? 2 : 1;
                message.before = NONE;
                for (u32 other = sends ? 0 : args.sends; other < args.messages; ++other)
                    if (args.message[other].peer == one.peer) message.before = other;
                at[sends] += one.bytes + 1;
                args.sends += sends;
                args.messages += 1;
            }
        return args;
    }

    // The byte at `i` of the next message of one kind but `more`.
    u8 byte(const Messages& args, u32 which, u32 more, u64 i) const {
        const bool sends = which < args.sends;
        const u32 peer = args.message[which].peer, count = counts[!sends][peer] + more;
        return sends ? byte_of(rank, peer, count, i) : byte_of(peer, rank, count, i);
    }

    static u32 earlier(const Messages& args, u32 which) {
        u32 count = 0;
        for (u32 i = args.message[which].before; i != NONE; i = args.message[i].before) ++count;
        return count;
    }

    bool launch(const Messages& args, u32 blocks) {
        return run({"messages", &args, blocks, threads_of(), 0}).ended == host::Ended::WELL;
    }

    // Moves a message.
    bool relay(const Messages& args) {
        const Message& message = args.message[0];
        Relay step = {args, 0, 0};
        const auto launch = [&] { return run({"relay", &step, 1, 32, 0}).ended == host::Ended::WELL; };
        const u32 sender = args.sends ? rank : message.peer, receiver = args.sends ? message.peer : rank;
        char* const slots = (char*)world.arenas[sender].data() + args.slots + receiver * args.room;
        bool well = args.sends || launch();
        for (u64 begin = 0; begin == 0 || begin < message.bytes; begin += args.slot) {
            char *const own = (char*)message.address + begin, *const slot = slots + step.moved % PIECES * args.slot;
            const u64 rest = message.bytes - begin, bytes = rest < args.slot ? rest : args.slot;
            // As on a device, nothing calls a copy off.
            std::memcpy(args.sends ? slot : own, args.sends ? own : slot, bytes);
            step.moved += 1;
            well = launch() && well;
        }
        return well;
    }

    // Makes a batch; whether all that was received is right.
    bool make(const Together& batch) {
        const Messages args = arguments(batch);
        std::memset(world.output(rank), 0xee, HEAP);
        u32 blocks = 1;
        for (u32 which = 0; which < args.messages; ++which) {
            const Message& message = args.message[which];
            if (message.blocks > blocks) blocks = message.blocks;
            for (u64 i = 0; which < args.sends && i < message.bytes; ++i)
                ((u8*)message.address)[i] = byte(args, which, earlier(args, which), i);
        }
        if (!(relays && args.messages == 1 ? relay(args) : launch(args, blocks))) return false;
        if (world.reports[rank].claims != 0) return false;
        for (u32 which = args.sends; which < args.messages; ++which) {
            const Message& message = args.message[which];
            const u8* const got = (const u8*)message.address;
            for (u64 i = 0; i < message.bytes; ++i)
                if (got[i] != byte(args, which, earlier(args, which), i)) return false;
            if (got[message.bytes] != 0xee) return false;
        }
        for (u32 which = 0; which < args.messages; ++which)
            counts[which >= args.sends][args.message[which].peer] += 1;
        // What it sent is its own again.
        std::memset(world.input(rank), 0x11, HEAP);
        number += 1;
        return true;
    }
};

static bool send_all(World& world, const Plan& plan, bool relays = false) {
    std::vector<char> right(world.n, 1);
    std::vector<std::thread> ranks;
    for (u32 rank = 0; rank < world.n; ++rank)
        ranks.emplace_back([&, rank] {
            Messenger messenger{world, rank, relays};
            for (u32 number = 0; right[rank]; ++number) {
                const Together batch = plan(rank, number);
                if (batch.empty()) break;
                right[rank] = messenger.make(batch);
            }
        });
    for (std::thread& rank : ranks) rank.join();
    bool all = true;
    for (const char one : right) all = all && one;
    return all;
}

static const u64 LENGTHS[] = {0, 1, 15, 16, 17, 100, 255, 777, 1000};

static u64 length_of(u32 from, u32 to, u32 number) { return LENGTHS[(from * 3 + to * 5 + number * 2 + number / 9) % 9]; }

// Every rank to the next, and from the one before.
static Plan ring_of(u32 n, u32 times, std::function<u64(u32)> bytes, std::function<bool(u32)> staged) {
    return [=](u32 rank, u32 number) -> Together {
        if (number == times || n == 1) return {};
        const u32 next = (rank + 1) % n, before = (rank + n - 1) % n;
        return {{true, next, bytes(number), staged(number)}, {false, before, bytes(number)}};
    };
}

CASE(messages_in_rings) {
    for (u32 n = 2; n <= (COSTLY ? 3 : 4); ++n) {
        World world(n);
        EXPECT(send_all(world, ring_of(n, COSTLY ? 9 : 60, [](u32 number) { return LENGTHS[number % 9]; },
                                       [](u32 number) { return number % 2 == 0; })));
    }
}

// To everybody and from everybody, two messages each, in one batch; whatever order they have there.
CASE(messages_among_all) {
    for (u32 n = 2; n <= (COSTLY ? 3 : 4); ++n) {
        World world(n);
        EXPECT(send_all(world, [n](u32 rank, u32 number) -> Together {
            Together batch;
            if (number == (COSTLY ? 3 : 20)) return batch;
            for (u32 i = 0; i < 2 * n; ++i) {
                const u32 peer = (i + number) % n;
                if (peer == rank) continue;
                const u32 which = number * 2 + i / n;
                batch.push_back({true, peer, length_of(rank, peer, which), (which + rank) % 2 == 0});
                batch.push_back({false, peer, length_of(peer, rank, which)});
            }
            return batch;
        }));
    }
}

// One message a launch, and different numbers of them for different pairs.
CASE(messages_one_by_one) {
    World world(3);
    EXPECT(send_all(world, [](u32 rank, u32 number) -> Together {
        // 0 sends two to 1 and one to 2; 1 sends one to 2, and 2 one to 0.
        static const Planned steps[3][4] = {{{true, 1, 0}, {true, 1, 0}, {true, 2, 0}, {false, 2, 0}},
                                            {{false, 0, 0}, {false, 0, 0}, {true, 2, 0}, {}},
                                            {{false, 0, 0}, {false, 1, 0}, {true, 0, 0}, {}}};
        const u32 steps_of[3] = {4, 3, 3}, round = number / steps_of[rank];
        if (round == (COSTLY ? 4u : 30u)) return {};
        Planned one = steps[rank][number % steps_of[rank]];
        one.bytes = LENGTHS[round % 9];
        one.staged = round % 2 == 0;
        return {one};
    }));
}

// What one message of a batch waits for may come after another of the same batch: none holds up another.
CASE(messages_are_independent) {
    World world(3);
    EXPECT(send_all(world, [](u32 rank, u32 number) -> Together {
        const u32 round = number / 2;
        if (round == (COSTLY ? 3u : 20u)) return {};
        const bool staged = round % 2 == 0, first = number % 2 == 0;
        if (rank == 0) return first ? Together{{false, 2, 1000}, {true, 1, 1000, staged}} : Together{{true, 1, 1}};
        if (rank == 1) return first ? Together{{false, 0, 1000}} : Together{{true, 2, 900, staged}, {false, 0, 1}};
        return first ? Together{{false, 1, 900}} : Together{{true, 0, 1000, staged}};
    }));
}

// Between calls of all ranks, whose words and memory are others.
CASE(messages_between_calls) {
    World world(3);
    std::vector<char> right(3, 1);
    std::vector<std::thread> ranks;
    for (u32 rank = 0; rank < 3; ++rank)
        ranks.emplace_back([&, rank] {
            Messenger messenger{world, rank};
            for (u32 number = 0; right[rank] && number < (COSTLY ? 8 : 48); ++number) {
                right[rank] = make(world, mixed(number), rank, number);
                // One rank has none, each time another.
                if (!right[rank] || number % 3 == rank) continue;
                const u32 peer = 3 - rank - number % 3;
                const u64 bytes = LENGTHS[number % 9];
                right[rank] = messenger.make({{true, peer, bytes, number % 2 == 0}, {false, peer, bytes}});
            }
        });
    for (std::thread& rank : ranks) rank.join();
    for (const char one : right) EXPECT(one);
}

CASE(counts_of_messages_wrap) {
    for (u32 begin : {(1u << 31) - 5, 0u - 5}) {
        World world(2, begin);
        EXPECT(send_all(world, ring_of(2, 12, [](u32 number) { return LENGTHS[8 - number % 2]; },
                                       [](u32 number) { return number % 4 < 2; })));
        EXPECT(world.states[0].messages[0][0][1] == begin + 12 && world.states[0].messages[1][1][1] == begin + 12);
        EXPECT(world.states[0].turns[0].turn == begin && world.states[0].messages[0][2][1] == begin);
    }
}

// A slot is not written, and what is read where it lies not given back, before the receiver has read it.
CASE(a_message_is_taken_late) {
    for (const bool staged : {true, false}) {
        const Stall stall(FOLDING, 1);
        World world(2);
        EXPECT(send_all(world, [staged](u32 rank, u32 number) -> Together {
            if (number == 12) return {};
            return {{rank == 0, 1 - rank, 1000, staged}};
        }));
    }
}

CASE(every_wait_for_a_message_spins) {
    for (const u32 phase : {GIVING, TAKING}) {
        // The receiver comes late, or the sender.
        const Stall stall(ENTERING, phase == GIVING ? 1 : 0);
        spun[phase] = 0;
        for (int attempt = 0; attempt < 100 && spun[phase] == 0; ++attempt) {
            World world(2);
            EXPECT(send_all(world, [](u32 rank, u32 number) -> Together {
                if (number == 4) return {};
                return {{rank == 0, 1 - rank, 1000, number % 2 == 0}};
            }));
        }
        EXPECT(spun[phase] > 0);
    }
}
