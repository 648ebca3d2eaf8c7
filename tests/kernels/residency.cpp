// SPDX-License-Identifier: MPL-2.0
//
// Which blocks run together: as many as the device has room for, of one launch or of several, and no more.
#include "../../kernels/wait.h"
#include "cases.h"

#include <cstring>

// Blocks meet (probe.cu); this says the same as its arguments.
struct Meeting {
    u32* arrivals;
    u32* ended;
    const u32* abort;
    u64 patience;
    u32 expected;
};

constexpr u64 LONG = 60ull * 1000000000; // nobody waits so long where blocks run together
constexpr u64 SHORT = 30000000;

struct Room {
    u32 arrivals = 0, ended[3] = {}, abort = 0;
    Meeting meeting(u32 expected, u64 patience) { return {&arrivals, ended, &abort, patience, expected}; }
};

CASE(as_many_blocks_as_are_resident_meet) {
    for (u32 threads : {1u, 33u, 64u, 128u}) {
        Room room;
        const u32 blocks = threads == 128 ? RESIDENT_128 : RESIDENT_64;
        const Meeting args = room.meeting(blocks, LONG);
        EXPECT(run({"probe_meet", &args, blocks, threads, 0}).ended == host::Ended::WELL);
        EXPECT(room.ended[REACHED] == blocks && room.ended[LATE] == 0);
    }
}

CASE(one_block_more_comes_late) {
    Room room;
    const Meeting args = room.meeting(RESIDENT_128 + 1, SHORT);
    run({"probe_meet", &args, RESIDENT_128 + 1, 128, 0});
    // The last has room only when another has given up.
    EXPECT(room.ended[LATE] >= 1 && room.ended[LATE] + room.ended[REACHED] == RESIDENT_128 + 1);
}

CASE(dynamic_shared_memory_takes_room) {
    // Two blocks of a third of the memory fit on each multiprocessor.
    const u32 shared = 70000;
    Room room;
    const Meeting two = room.meeting(6, LONG);
    run({"probe_meet", &two, 6, 32, shared});
    EXPECT(room.ended[REACHED] == 6);
    Room small;
    const Meeting more = small.meeting(7, SHORT);
    run({"probe_meet", &more, 7, 32, shared});
    EXPECT(small.ended[LATE] >= 1);
}

CASE(launches_share_the_room) {
    Room room;
    const Meeting args = room.meeting(RESIDENT_64, LONG);
    run_together({{"probe_meet", &args, 5, 64, 0}, {"probe_meet", &args, 2, 64, 0}, {"probe_meet", &args, 1, 64, 0}});
    EXPECT(room.ended[REACHED] == RESIDENT_64);
    Room small;
    const Meeting more = small.meeting(RESIDENT_64 + 1, SHORT);
    run_together({{"probe_meet", &more, 5, 64, 0}, {"probe_meet", &more, 4, 64, 0}});
    EXPECT(small.ended[LATE] >= 1);
}

CASE(many_launches_at_once) {
    // More blocks than there is room for, from more threads than there are cores, and none waits for another launch.
    for (int turn = 0; turn < (COSTLY ? 5 : 20); ++turn) {
        std::vector<Room> rooms(12);
        std::vector<Meeting> meetings;
        for (Room& room : rooms) meetings.push_back(room.meeting(1, LONG));
        std::vector<Shape> shapes;
        for (const Meeting& meeting : meetings) shapes.push_back({"probe_meet", &meeting, 7, 2, 0});
        for (const host::Outcome& outcome : run_together(shapes)) EXPECT(outcome.ended == host::Ended::WELL);
        for (const Room& room : rooms) EXPECT(room.arrivals == 7 && room.ended[REACHED] == 7);
    }
}
