// SPDX-License-Identifier: MPL-2.0
//
// Each probe is executed, with every way in which it can end. (`probe_meet` is residency.cpp's; it waits by the same
// loop as `probe_wait`.)
static unsigned spun;
#define SPUN(phase) __atomic_fetch_add(&spun, 1, __ATOMIC_RELAXED)

#include "../../kernels/probe.cu"
#include "cases.h"

CASE(nothing) {
    const Nothing args{0};
    for (u32 blocks : {0u, 1u, 20u}) EXPECT(run({"probe_nothing", &args, blocks, 64, 0}).ended == host::Ended::WELL);
}

CASE(advance) {
    u32 epoch = 0xfffffffe, kept[3] = {};
    const Advance args{&epoch, kept, 3};
    for (u32 turn = 0; turn < 3; ++turn) run({"probe_advance", &args, 1, 32, 0});
    // 0xffffffff, 0 and 1, where the epoch before it says: 0xfffffffe, 0xffffffff, 0.
    EXPECT(epoch == 1 && kept[2] == 0xffffffff && kept[0] == 1);
}

CASE(ping) {
    for (u32 scope : {0u, 1u}) {
        u32 counters[2] = {}, abort = 0;
        u64 out[4] = {9, 0, 9, 0};
        const Ping args{
            {{&counters[0], &counters[1]}, {&counters[1], &counters[0]}}, out, &abort, 60000000000, 0, 20, scope};
        EXPECT(run({"probe_ping", &args, 2, 32, 0}).ended == host::Ended::WELL);
        EXPECT(out[0] == REACHED && out[2] == REACHED && counters[0] == 20 && counters[1] == 20);
        // The other side does not answer.
        spun = 0;
        Ping alone = args;
        alone.patience = 1000000;
        counters[0] = counters[1] = 0;
        run({"probe_ping", &alone, 1, 32, 0});
        EXPECT(out[0] == LATE && counters[0] == 1 && spun > 0);
    }
}

CASE(poll) {
    for (u32 gate : {0u, 1u, 3u}) {
        const u32 counter = 2, abort = 100;
        u64 out[3] = {};
        const Poll args{&counter, &abort, out, 9, gate};
        run({"probe_poll", &args, 2, 32, 0});
        EXPECT(out[2] == 18 + (gate == 0 ? 0 : 9 / gate * 100));
    }
}

CASE(wait) {
    for (Ended expected : {REACHED, ABORTED, LATE}) {
        const u32 counter = expected == REACHED ? 7 : 6, abort = expected == ABORTED;
        u32 begun = 0;
        u64 out[2] = {9, 0};
        const Wait args{&counter, &abort, &begun, out, expected == LATE ? 1000000u : 60000000000u, 7};
        spun = 0;
        EXPECT(run({"probe_wait", &args, 2, 64, 0}).ended == host::Ended::WELL);
        EXPECT(begun == 1 && out[0] == expected && (spun > 0) == (expected != REACHED));
    }
}

CASE(ticks) {
    u64 out[4] = {};
    const Ticks args{out, 1000};
    run({"probe_ticks", &args, 1, 32, 0});
    EXPECT(out[0] >= 1 && out[1] >= 1 && out[2] >= out[0] * out[1] && out[3] >= 1);
}
