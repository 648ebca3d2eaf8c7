// SPDX-License-Identifier: MPL-2.0
//
// What is moved and not folded: all-gather, which is two-shot all-reduce's second half, and broadcast. Bytes are moved
// as they are, whatever their type; the widest words are used by which all buffers are aligned alike.
//
// All-gather: `elements` are the bytes of one rank's slice, which it stores to the outputs of all ranks. Bytes a rank
// moves per byte of its slice: 1 read, n written.
// Broadcast: `elements` are the bytes of the message; each rank reads one slice of it from the root, and stores it to
// all outputs but the one that is the root's input. Bytes a rank moves per byte of the message: 1/n read and 1 written.
// So the root's links carry the message twice, those of other ranks once, however many there are; a root that sent all
// of it to each would send it n - 1 times. Staged output: 1 read and written more per byte, as staged input of the
// root.
// Flags: one to each rank to enter, one when done.
//
// Launch: as two-shot all-reduce.
//
// Proof. As of two_shot.cu, with one source: slice r of every output is written by rank r alone; of every input it is
// read by rank r alone. All-gather in place has its input at its own slice of its output, and is not stored to; nor is
// the output of a root that is its input.
#include "meet.h"
#include "part.h"

DEVICE Range share_of(const Collective& args, u32 rank) {
    return part_of_block({rank * args.elements, (rank + 1) * args.elements}, sizeof(Packet));
}

DEVICE Range slice_of(const Collective& args, u32 rank) {
    return part_of_block(part_of(args.elements, sizeof(Packet), args.world, rank), sizeof(Packet));
}

KERNEL(all_gather, Collective) {
    SHARED Met met;
    const Turn turn = begin(args, met);
    const bool staged = args.to_place == STAGED;
    bool well = enter(args, turn, met, true, staged);
    if (well) {
        AT(FOLDING, args.rank);
        // The input by the indices of the output, of which it is one slice.
        copy_range((const char*)args.from - args.rank * args.elements, met.to, args.world, share_of(args, args.rank));
    }
    well = finish(args, turn, met, well, 1);
    if (well && staged) {
        void* const to[] = {args.to};
        for (u32 rank = 0; rank < args.world; ++rank)
            copy_range(staging_of(args, turn, args.rank), to, 1, share_of(args, rank));
    }
    leave(args, turn, met, 0);
}

KERNEL(broadcast, Collective) {
    SHARED Met met;
    const Turn turn = begin(args, met);
    const bool from_staged = args.from_place == STAGED, to_staged = args.to_place == STAGED;
    char* const staging = staging_of(args, turn, args.rank);
    if (from_staged && args.rank == args.root) {
        void* const to[] = {staging};
        for (u32 rank = 0; rank < args.world; ++rank) copy_range(args.from, to, 1, slice_of(args, rank));
    }
    bool well = enter(args, turn, met, from_staged, to_staged);
    if (well) {
        AT(FOLDING, args.rank);
        copy_range(met.from[args.root], met.to, args.world, slice_of(args, args.rank));
    }
    well = finish(args, turn, met, well, 1);
    if (well && to_staged) {
        void* const to[] = {args.to};
        for (u32 rank = 0; rank < args.world; ++rank) copy_range(staging, to, 1, slice_of(args, rank));
    }
    leave(args, turn, met, 0);
}
