// SPDX-License-Identifier: MPL-2.0
//
// One-shot all-reduce: each rank reads all inputs and folds them in rank order. For messages whose time is latency.
//
// `elements` is the length. Bytes a rank moves per element of n ranks: its size times n read and 1 written; staged, 1
// more read and written. Flags: one to each rank to enter, and one more to leave if any input is read where it lies. So
// inputs of up to ALWAYS_STAGED bytes are staged wherever they lie: they are copied sooner than ranks wait once more.
//
// Launch: 1 to BLOCKS blocks, resident together on all ranks, of 256 threads: about one block for every 4 lines a
// thread, so that few flags are sent for little data, at most a quarter of the multiprocessors, since each rank reads
// through links that few blocks fill.
//
// Proof. A block folds one part of the range, of all inputs; the part depends on length and grid alone, so it is the
// same block's on all ranks. Inputs: an earlier kernel of the rank's stream, or this block's copy into the staging
// half, wrote the part before the rank entered; so it is seen after enter(). An input that is read where it lies stays
// as it is until all are done: nobody leaves before finish(). It must not be this rank's output either, since peers
// read it until they are done, and this rank stores before that: a rank that works in place stages its input, whatever
// it was told. The staging half may be overwritten two calls later (pad.h), and no earlier: no exit is needed for it.
#include "lines.h"
#include "meet.h"

constexpr u64 ALWAYS_STAGED = 4 << 10; // bytes

template <class T>
DEVICE void one_shot(const Collective& args, Met& met) {
    constexpr u32 LANES = Line<T>::LANES;
    const Range mine = part_of_block({0, args.elements}, LANES);
    // Where a thread has one line at the most, it is on its way along with the state of the rank.
    const bool at_once = mine.end - mine.begin <= (u64)threads() * LANES;
    const u64 own = mine.begin + (u64)thread() * LANES;
    const u32 count = own >= mine.end ? 0 : mine.end - own < LANES ? (u32)(mine.end - own) : LANES;
    Line<T> line = {};
    if (at_once) line = load_line<Line<T>>((const T*)args.from + own, count);
    const Turn turn = begin(args, met);
    const u64 bytes = args.elements * sizeof(T);
#if defined(PLANTED_IN_PLACE)
    const bool in_place = false;
#else
    const bool in_place = (u64)args.from < (u64)args.to + bytes && (u64)args.to < (u64)args.from + bytes;
#endif
    // All ranks stage what is short, so none need be asked where it is.
    const bool is_short = bytes <= ALWAYS_STAGED;
    for (u32 peer = thread(); is_short && peer < args.world; peer += threads()) {
        met.from[peer] = staging_of(args, turn, peer);
        met.staged[peer] = 1;
    }
    const bool staged = args.from_place == STAGED || in_place || is_short;
    if (staged) {
        void* const staging = staging_of(args, turn, args.rank);
        if (at_once) store_line((T*)staging + own, line, count);
        else copy_range(args.from, &staging, 1, {mine.begin * sizeof(T), mine.end * sizeof(T)});
    }
    const bool well = enter(args, turn, met, staged, true, !is_short);
    if (well) {
        AT(FOLDING, args.rank);
        void* const to[] = {args.to};
        const Folding folding = {in_order(args, met), to, args.world, 1, args.operation, args.world, args.factor};
        fold_range<T>(folding, mine);
    }
    if (!well || any_is_direct(args, met)) finish(args, turn, met, well, 1);
    leave(args, turn, met, 0);
}

#define ONE_SHOT(name, T)                                                                                              \
    KERNEL(one_shot_##name, Collective) {                                                                              \
        SHARED Met met;                                                                                                \
        one_shot<T>(args, met);                                                                                        \
    }
TYPES(ONE_SHOT)
