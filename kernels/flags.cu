// SPDX-License-Identifier: MPL-2.0
//
// Flags of programs: raises some of this rank's flags where peers see them, then waits for some of theirs. It is the
// signal and the wait of calls whose data other operations of the stream move: copies of the driver, and fold.cu.
//
// Bytes moved: 8 for each flag that is raised, to the rank that waits for it, which polls its own memory. One round.
//
// Launch: one block, a warp; a thread for each flag. It comes after the entry (barrier.cu) of its call.
//
// A flag has one writer and one reader each, and only grows. Values of a call lie between the end of the call before
// and its own end, `base`, which the entry has set on the device: so a captured graph counts on when it is launched
// again, and what an earlier call left is smaller than what is awaited.
//
// Proof. What a rank's stream did before this kernel is complete when it begins, by the stream's order, a copy into a
// peer's memory included; the release store comes after it. What a peer's stream does after its own kernel comes after
// the acquire load that has seen the flag. So the writes before a raise are seen after the wait for it, and the reads
// before a raise are over before that. Raises come before waits, for all threads by sync_block(), so nobody waits for a
// rank that waits for it, unless their programs do. A flag is not overwritten before it was seen, but by a larger
// value, which says as much: it is compared for being at least what is awaited.
//
// A call's last launch tells the host when that was. (The stamps of its entry say when it was entered.)
//
// A rank whose call has failed raises its flags to the end of all counting (`UP`), which others take for what it is.
#include "meet.h"

constexpr u32 MARKS = 32;
constexpr u64 UP = ~0ull;

struct Mark {
    u32 rank; // of one that is raised: who is to see it; of one that is awaited: whose it is
    u32 flag;
    u64 before_end; // how much is lacking to the end of the call
};

struct Flags {
    Collective call; // of its members, `regions` to `patience`, `rank` and `world` count
    u32 raised;      // so many are raised,
    u32 awaited;     // and so many behind them awaited: MARKS at the most together
    u32 closes;      // not 0: it is the call's end, and stamps that (`number`)
    u32 unused;
    Mark marks[MARKS];
};

KERNEL(flags, Flags) {
    SHARED Met met;
    const Collective& call = args.call;
    Turn turn = call.state->turns[0];
    turn.calls -= 1; // the entry has counted the call
    turn.failed = load_relaxed_system(&call.state->failed);
    const u64 end = call.state->base;
    AT(SENDING, call.rank);
    for (u32 i = thread(); i < args.raised; i += threads()) {
        const Mark& mark = args.marks[i];
        publish(&pad_of(call, mark.rank)->flags[call.rank][mark.flag], turn.failed != 0 ? UP : end - mark.before_end);
    }
    sync_block();
    for (u32 i = args.raised + thread(); i < args.raised + args.awaited; i += threads()) {
        const Mark& mark = args.marks[i];
        const u64* const flag = &pad_of(call, call.rank)->flags[mark.rank][mark.flag];
        u64 seen = 0;
        const u32 ended = await(call, turn, RECEIVING, mark.rank, [&] {
            seen = load_acquire_system(flag);
            return seen >= end - mark.before_end;
        });
        if (ended == REACHED && seen == UP) fail(call, turn, DESERTED, RECEIVING, mark.rank);
    }
    sync_block();
    if (args.closes == 0 || thread() != 0) return;
    // That is how a launch is stamped that nobody is waited for in.
    for (u32 peer = 0; peer < call.world; ++peer) met.seen[peer] = 0;
    met.begun = met.entered = clock_ns();
    stamp(call, turn, met);
}
