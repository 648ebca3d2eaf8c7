// SPDX-License-Identifier: MPL-2.0
//
// Two-shot all-reduce; reduce, which stores to the root alone; and their first half, reduce-scatter: each rank folds one
// slice of all inputs, in rank order, and stores it to the outputs of all ranks, or of the root, in the same pass. For
// messages whose time is bandwidth.
//
// `elements` is the length of all-reduce and reduce, and of one rank's slice of reduce-scatter. Bytes a rank moves per
// element of the whole length, n ranks: its size times 1 read and 1 written, (n - 1)/n of each over links; reduce and
// reduce-scatter write 1/n. So the root's links carry the message twice, once in and once out, however many ranks there
// are; a root that folded alone would read it n - 1 times.
// Staged input: 1 more read and written; staged output of all-reduce, and of reduce at the root: as much again. Flags:
// one to each rank to enter, one when done.
//
// Launch: 1 to BLOCKS blocks, resident together on all ranks, of 256 threads, about one for every 8 lines a thread of a
// slice: all links are used at once, and a few dozen blocks fill them. A thread has 128 bytes of floats on the way at once
// (part.h). Where ranks share a card, and each of its multiprocessors has one block alone, a full launch has 512 threads a
// block.
//
// Proof. Slice r is dealt to blocks as it is on every rank. Element i of slice r of any buffer is read by rank r alone,
// and written by rank r alone, by the thread that has just read it. So nothing that is folded was overwritten, also
// where outputs are inputs, and where both are the one staging half. Inputs are seen after enter(): an earlier kernel
// wrote them, or the same block of their rank into the staging half. Outputs are complete after finish(): the same
// block of each rank wrote its slice's part before it said so; and all reading of inputs is done by then.
// Reduce-scatter needs finish() for that alone, thus not where all inputs are staged. In place, its output is its own
// slice of its input, which is read by this rank alone.
#include "meet.h"
#include "part.h"

// This block's part of a rank's slice of all-reduce and reduce.
template <class T>
DEVICE Range slice_of(const Collective& args, u32 rank) {
    return part_of_block(part_of(args.elements, Line<T>::LANES, args.world, rank), Line<T>::LANES);
}

// This block's part of a rank's slice of reduce-scatter.
template <class T>
DEVICE Range share_of(const Collective& args, u32 rank) {
    return part_of_block({rank * args.elements, (rank + 1) * args.elements}, Line<T>::LANES);
}

template <class T>
DEVICE Range bytes_of(Range range) {
    return {range.begin * sizeof(T), range.end * sizeof(T)};
}

template <class T>
DEVICE void two_shot(const Collective& args, Met& met, bool to_root) {
    const Turn turn = begin(args, met);
    const bool from_staged = args.from_place == STAGED, to_staged = args.to_place == STAGED;
    const bool gets = !to_root || args.rank == args.root;
    char* const staging = staging_of(args, turn, args.rank);
    if (from_staged) {
        void* const to[] = {staging};
        for (u32 rank = 0; rank < args.world; ++rank)
            copy_range(args.from, to, 1, bytes_of<T>(slice_of<T>(args, rank)));
    }
    bool well = enter(args, turn, met, from_staged, to_staged);
    if (well) {
        AT(FOLDING, args.rank);
        void* const* const to = to_root ? met.to + args.root : met.to;
        const u32 outputs = to_root ? 1 : args.world;
        const Folding folding = {in_order(args, met), to, args.world, outputs, args.operation, args.world, args.factor};
        fold_range<T>(folding, slice_of<T>(args, args.rank));
    }
    well = finish(args, turn, met, well, 1);
    if (well && gets && to_staged) {
        void* const to[] = {args.to};
        for (u32 rank = 0; rank < args.world; ++rank)
            copy_range(staging, to, 1, bytes_of<T>(slice_of<T>(args, rank)));
    }
    leave(args, turn, met, 0);
}

template <class T>
DEVICE void reduce_scatter(const Collective& args, Met& met) {
    const Turn turn = begin(args, met);
    const bool staged = args.from_place == STAGED;
    if (staged) {
        void* const to[] = {staging_of(args, turn, args.rank)};
        for (u32 rank = 0; rank < args.world; ++rank)
            copy_range(args.from, to, 1, bytes_of<T>(share_of<T>(args, rank)));
    }
    const bool well = enter(args, turn, met, staged, true);
    if (well) {
        AT(FOLDING, args.rank);
        // The output by the indices of the input, of which it is one slice.
        void* const to[] = {(T*)args.to - args.rank * args.elements};
        const Folding folding = {in_order(args, met), to, args.world, 1, args.operation, args.world, args.factor};
        fold_range<T>(folding, share_of<T>(args, args.rank));
    }
    if (!well || any_is_direct(args, met)) finish(args, turn, met, well, 1);
    leave(args, turn, met, 0);
}

#define TWO_SHOT(name, T)                                                                                              \
    KERNEL(two_shot_##name, Collective) {                                                                              \
        SHARED Met met;                                                                                                \
        two_shot<T>(args, met, false);                                                                                 \
    }                                                                                                                  \
    KERNEL(reduce_##name, Collective) {                                                                                \
        SHARED Met met;                                                                                                \
        two_shot<T>(args, met, true);                                                                                  \
    }                                                                                                                  \
    KERNEL(reduce_scatter_##name, Collective) {                                                                        \
        SHARED Met met;                                                                                                \
        reduce_scatter<T>(args, met);                                                                                  \
    }
TYPES(TWO_SHOT)
