// SPDX-License-Identifier: MPL-2.0
//
// How ranks meet in a kernel: they enter a call, say that they are done, and leave.
//
// Block b of each rank meets block b of the others, and nobody else: what a block reads of peers was written by the
// same block of theirs, or before the call.
//
// enter() is a barrier that carries the call: what a block wrote before it, peers' blocks see after it. Its proof: the
// block's writes come before sync_block(), which comes before the release store of thread q into rank q's pad; thread r
// of rank q's block acquires that store before its sync_block(), which comes before all reads of the block. The same
// holds of finish(), by the counters `done`. Reads are treated alike: what a block has read before finish(), peers may
// overwrite after it.
//
// What an entry names must still be there: a region that this rank has given up has no address here, and whoever names
// it (a graph that was captured before) ends the call.
//
// Posts come before waits, so nobody waits for a rank that waits for it. A rank whose call fails goes on to leave(),
// does no more work, and tells its peers, who would otherwise wait for it until their own deadlines.
#pragma once

#include "pad.h"

// Tests stall a rank at a place.
#if !defined(AT)
#define AT(place, rank)
#endif

// What the block knows of the call's ranks; in shared memory.
struct Met {
    u32 ended[RANKS]; // how the wait for that rank ended
    const void* from[RANKS];
    void* to[RANKS];
    u32 staged[RANKS]; // whether it copied what it gives into its staging half
    u32 step;          // how the wait for one step ended (ring.cu)
    u64 begun;         // when the block began, and when it entered
    u64 entered;
    u64 seen[RANKS]; // when that rank's entry was seen; 0: at the first look
};

// What State tells of a call that has failed, to all blocks alike. (Messages do not count calls of the rank.)
DEVICE u32 failure_of(u32 calls, u32 phase) { return phase >= GIVING ? 1 : calls << 1 | 1; }

// What the first thread that sees it writes down of a failure.
DEVICE void fail(const Collective& args, const Turn& turn, u32 ended, u32 phase, u32 rank) {
    Report* const report = args.report;
    or_system(ended == DIFFERS ? &report->differing : ended == DESERTED ? &report->deserted : &report->missing,
              1u << rank);
    if (add_system(&report->claims, 1) == 0) {
        report->phase = phase;
        report->block = block();
        report->calls = turn.calls;
        store_release_system(&report->ended, ended);
    }
    or_system(&args.state->failed, failure_of(turn.calls, phase));
}

// Waits for what a rank does, and reports where it did not come. After a call that failed there is no waiting.
template <class Seen>
DEVICE u32 await(const Collective& args, const Turn& turn, u32 phase, u32 rank, Seen seen) {
    if (turn.failed != 0) return ABORTED;
    u32 ended = REACHED;
    u64 deadline = 0;
    for (u32 looks = 1; !seen(); ++looks) {
        SPUN(phase);
        if (looks % LOOKS == 0) {
            const u64 now = clock_ns();
            if (deadline == 0) {
                deadline = now + args.patience;
                add_system(&pad_of(args, args.rank)->awaited[rank], 1);
            }
            if (load_relaxed_system(args.abort) != 0 || load_relaxed_system(&args.state->failed) != 0) ended = ABORTED;
            else if (now > deadline) ended = LATE;
            if (ended != REACHED) break;
        }
        pause();
    }
    if (ended != REACHED) fail(args, turn, ended, phase, rank);
    else if (deadline != 0) add_system(&pad_of(args, args.rank)->awaited[rank], ~0u);
    return ended;
}

// Whether a counter has reached what it is awaited for.
DEVICE bool is_reached(u64 counter, u64 awaited) {
#if defined(PLANTED_SIGNED_COMPARE)
    return (i64)counter >= (i64)awaited;
#else
    return (i64)(counter - awaited) >= 0;
#endif
}

// Waits for a rank's counter.
DEVICE u32 await_counter(const Collective& args, const Turn& turn, u32 phase, u32 rank, const u64* counter, u32 step) {
    u64 seen = 0;
    const u64 awaited = counter_of(turn.turn, step);
    const u32 ended = await(args, turn, phase, rank, [&] {
        seen = load_acquire_system(counter);
        return is_reached(seen, awaited);
    });
    if (ended != REACHED || (u32)seen != GAVE_UP) return ended;
    fail(args, turn, DESERTED, phase, rank);
    return DESERTED;
}

// Publishes what the block did before the sync_block() that comes before this.
DEVICE void publish(u64* word, u64 value) {
#if defined(PLANTED_RELAXED)
    store_relaxed_system(word, value);
#else
    store_release_system(word, value);
#endif
}

DEVICE void sync_before_publishing() {
#if !defined(PLANTED_NO_BARRIER)
    sync_block();
#endif
}

// Says for the host which call this is, unless an earlier one has failed: that is the one to be told of. (Another block
// of this one may have failed before block 0 begins.)
DEVICE void say_call(const Collective& args, const Turn& turn, Pad* own) {
    if (block() != 0 || thread() != 0) return;
    if (turn.failed != 0 && turn.failed != failure_of(turn.calls, ENTERING)) return;
    Called* const called = &own->called;
    store_relaxed_system(&called->calls, turn.calls);
    store_relaxed_system(&called->hash, args.hash);
    for (u32 word = 0; word < WORDS; ++word) store_relaxed_system(&called->word[word], args.call[word]);
}

// Counters are compared by the sign of their difference, and not every call raises each of them. That none falls behind
// by half of the range, once in a while a block says of all of them that its calls before this one are done with.
DEVICE void catch_up(const Collective& args, const Turn& turn) {
#if !defined(PLANTED_LAGGING)
    if (turn.turn % CATCHING_UP != 0 || turn.failed != 0) return;
    const u64 before = counter_of(turn.turn - 1, GAVE_UP - 1);
    for (u32 peer = thread(); peer < args.world; peer += threads())
        publish(&pad_of(args, peer)->done[block()][args.rank], before);
    if (thread() != 0) return;
    publish(&pad_of(args, (args.rank + 1) % args.world)->passed[block()], before);
    publish(&pad_of(args, (args.rank + args.world - 1) % args.world)->taken[block()], before);
#endif
}

// The block's count of calls, this one included, of a launch that the host is told of.
DEVICE Turn begin(const Collective& args, Met& met) {
    // Memory is waited for once, for all that comes of it.
    Pad* const own = pad_of(args, args.rank);
    Turn turn = args.state->turns[block()];
    turn.failed = load_relaxed_system(&args.state->failed);
    if (thread() == 0) met.begun = clock_ns();
    turn.turn += 1;
    catch_up(args, turn);
    say_call(args, turn, own);
    return turn;
}

DEVICE u32 entry_slot([[maybe_unused]] const Turn& turn) {
#if defined(PLANTED_SINGLE_SLOT)
    return 0;
#else
    return turn.turn & 1;
#endif
}

// Tells every rank that this one has entered, and publishes what the block wrote before.
DEVICE void post_entries(const Collective& args, const Turn& turn, Met& met, bool from_staged, bool to_staged) {
    if (thread() == 0) met.entered = clock_ns();
    for (u32 peer = thread(); peer < args.world; peer += threads()) {
        Entry* const entry = &pad_of(args, peer)->entries[entry_slot(turn)][block()][args.rank];
        const u64 low = counter_of(turn.turn, (u32)args.hash);
        entry->from = from_staged ? STAGED : args.from_place;
        entry->to = to_staged ? STAGED : args.to_place;
        store_relaxed_system(&entry->word[1], counter_of(turn.turn, (u32)(args.hash >> 32)));
        publish(&entry->word[0], low);
    }
}

// Waits for the entries of all ranks, compares their calls, and, where `seeks`, finds their buffers. Whether all ranks are
// in this call; the answer is the same for all threads of the block.
DEVICE bool await_entries(const Collective& args, const Turn& turn, Met& met, bool seeks) {
    for (u32 peer = thread(); peer < args.world; peer += threads()) {
        const Entry* const entry = &pad_of(args, args.rank)->entries[entry_slot(turn)][block()][peer];
        u64 low = 0, high = 0;
        u32 looks = 0;
        u32 ended = await(args, turn, ENTERING, peer, [&] {
            ++looks;
            // Both are on their way at once: what comes behind an acquire waits for it. Each says itself whose it is.
            high = load_relaxed_system(&entry->word[1]);
            low = load_acquire_system(&entry->word[0]);
            return low >> 32 == turn.turn && high >> 32 == turn.turn;
        });
        if (ended == REACHED && ((u32)low != (u32)args.hash || (u32)high != (u32)(args.hash >> 32))) {
            ended = DIFFERS;
            fail(args, turn, ended, ENTERING, peer);
        }
        met.seen[peer] = looks < 2 ? 0 : clock_ns();
        if (ended == REACHED && seeks) {
            // Both at a time, and each once: the next load is of what they say.
            const u64 from = entry->from, to = entry->to;
            char *const from_region = region_of(args, from, peer), *const to_region = region_of(args, to, peer);
            if (from_region == nullptr || to_region == nullptr) {
                ended = GONE;
                fail(args, turn, ended, ENTERING, peer);
            } else {
                met.staged[peer] = from == STAGED;
                met.from[peer] = in_region(args, turn, from_region, from);
                met.to[peer] = in_region(args, turn, to_region, to);
            }
        }
        met.ended[peer] = ended;
    }
    sync_block();
    u32 ended = REACHED;
    for (u32 peer = 0; peer < args.world; ++peer) ended |= met.ended[peer];
    return ended == REACHED;
}

// Enters the call. Afterwards the block sees what the same block of every rank wrote before; and where it seeks, it knows
// where their buffers are.
DEVICE bool enter(const Collective& args, const Turn& turn, Met& met, bool from_staged, bool to_staged,
                  bool seeks = true) {
    sync_before_publishing();
    AT(ENTERING, args.rank);
    post_entries(args, turn, met, from_staged, to_staged);
    return await_entries(args, turn, met, seeks);
}

// The same of a call in which ranks know where to read and to write: none of its buffers is looked for.
DEVICE bool enter(const Collective& args, const Turn& turn, Met& met) {
    return enter(args, turn, met, true, true, false);
}

// The inputs of all ranks in the order of the fold, which is that of the ranks.
DEVICE const void* const* in_order([[maybe_unused]] const Collective& args, Met& met) {
#if defined(PLANTED_OWN_FIRST)
    sync_block();
    if (thread() == 0) {
        const void* const own = met.from[args.rank];
        for (u32 peer = args.rank; peer > 0; --peer) met.from[peer] = met.from[peer - 1];
        met.from[0] = own;
    }
    sync_block();
#endif
    return met.from;
}

// Whether any rank's input is read where it lies, so that none may leave before all are done.
DEVICE bool any_is_direct(const Collective& args, const Met& met) {
    u32 direct = 0;
    for (u32 peer = 0; peer < args.world; ++peer) direct |= met.staged[peer] ^ 1;
    return direct != 0;
}

// Says that this block has done its part, or has given up, and waits until the same block of every rank has.
DEVICE bool finish(const Collective& args, const Turn& turn, Met& met, bool well, u32 step) {
    sync_before_publishing();
    AT(FINISHING, args.rank);
    for (u32 peer = thread(); peer < args.world; peer += threads())
        publish(&pad_of(args, peer)->done[block()][args.rank], counter_of(turn.turn, well ? step : GAVE_UP));
    if (!well) return false;
    for (u32 peer = thread(); peer < args.world; peer += threads())
        met.ended[peer] =
            await_counter(args, turn, FINISHING, peer, &pad_of(args, args.rank)->done[block()][peer], step);
    sync_block();
    u32 ended = REACHED;
    for (u32 peer = 0; peer < args.world; ++peer) ended |= met.ended[peer];
    return ended == REACHED;
}

// Stamps the launch for the host.
DEVICE void stamp(const Collective& args, const Turn& turn, const Met& met) {
    if (block() != 0 || thread() != 0 || args.journal == nullptr) return;
    u32 last = args.rank;
    u64 all = met.entered;
    for (u32 peer = 0; peer < args.world; ++peer) {
        if (met.seen[peer] <= all) continue;
        all = met.seen[peer];
        last = peer;
    }
    Stamps* const stamps = args.journal + args.number % LAUNCHES;
    const u64 tag = ((args.number / LAUNCHES & 0xff) << 8 | (turn.calls & 0xff)) << 48, most = (1ull << 48) - 1;
    store_relaxed_system(&stamps->entered, tag | (met.entered & most));
    store_relaxed_system(&stamps->before, tag | ((met.entered - met.begun) & most));
    store_relaxed_system(&stamps->waited, tag | ((all - met.entered) & most));
    store_relaxed_system(&stamps->after, tag | ((clock_ns() - all) & most));
    store_relaxed_system(&stamps->who, tag | (u64)last << 32 | turn.calls);
}

// Counts the call, for this block and for those that had no part in it. The last thing a block does.
DEVICE void leave(const Collective& args, const Turn& turn, const Met& met, u32 packets) {
    sync_block();
    stamp(args, turn, met);
    for (u32 i = block() + thread() * blocks(); i < BLOCKS; i += threads() * blocks()) {
        Turn* const kept = &args.state->turns[i];
        if (i == block()) kept->turn = turn.turn;
        kept->calls = turn.calls + 1;
        kept->packets = turn.packets + packets;
    }
}
