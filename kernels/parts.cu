// SPDX-License-Identifier: MPL-2.0
//
// What is moved in parts, one for each rank: scatter, gather, all-to-all. Each rank reads what it gets from the inputs of
// those that give it. Bytes are moved as they are, whatever their type; the widest words are used by which input and
// output are aligned alike.
//
// `elements` are the bytes of a part that this launch moves, `stride` those from one part to the next where parts of all
// ranks lie side by side: of what is longer than a launch moves, each launch moves a piece of every part.
// Bytes a rank moves per byte of a part, n ranks: scatter 1 read and written; gather as much, n at the root; all-to-all
// n. All but a rank's own part comes over links, each byte once. Staged input: what the rank gives is read and written
// once more. Flags: one to each rank to enter, and one more to leave if any input is read where it lies.
//
// Launch: 1 to BLOCKS blocks, resident together on all ranks, of 256 threads (512: two_shot.cu), about one for every 8
// lines a thread of a part: who reads from many ranks has as much for each block again from each of them.
//
// Proof. A block moves one range of each part, which depends on `elements` and the grid alone: so what it reads of a
// staging half, the same block of that rank has written before it entered, and what it reads where it lies, an earlier
// kernel; both are seen after enter(). An input that is read where it lies stays as it is until all are done: nobody
// leaves before finish(). Outputs are written by their own rank alone, and read by nobody. In place they are read where
// they are inputs, too: of scatter's and gather's root its own part, which nobody else reads and the rank does not store
// to, unless what it had staged; of all-to-all all of it, so a rank that works in place stages its input, whatever it was
// told. A staging half may be overwritten two calls later (pad.h).
#include "meet.h"
#include "part.h"

// What a rank gives and gets.
struct Parts {
    u32 given; // so many parts,
    u32 taken; // and one of each of so many ranks,
    u32 first; // beginning with that one:
    u32 which; // the part of that number.
    u64 apart; // bytes between what it gets from one rank and from the next
};

DEVICE void copy_part(const Collective& args, const char* from, char* to) {
    void* const destination[] = {to};
    copy_range(from, destination, 1, part_of_block({0, args.elements}, sizeof(Packet)));
}

DEVICE void move_parts(const Collective& args, Met& met, const Parts& parts, bool in_place) {
    const Turn turn = begin(args, met);
    // Parts in a staging half begin at lines.
    const u64 packed = (args.elements + sizeof(Packet) - 1) / sizeof(Packet) * sizeof(Packet);
    const bool staged = args.from_place == STAGED || parts.given == 0 || in_place;
    if (staged) {
        char* const staging = staging_of(args, turn, args.rank);
        for (u32 part = 0; part < parts.given; ++part)
            copy_part(args, (const char*)args.from + part * args.stride, staging + part * packed);
    }
    const bool well = enter(args, turn, met, staged, true);
    if (well) {
        AT(FOLDING, args.rank);
        for (u32 i = 0; i < parts.taken; ++i) {
            const u32 peer = (parts.first + i) % args.world;
            const u64 distance = met.staged[peer] != 0 ? packed : args.stride;
            copy_part(args, (const char*)met.from[peer] + parts.which * distance, (char*)args.to + peer * parts.apart);
        }
    }
#if defined(PLANTED_NOT_FINISHED)
    if (!well)
#else
    if (!well || any_is_direct(args, met))
#endif
        finish(args, turn, met, well, 1);
    leave(args, turn, met, 0);
}

KERNEL(scatter, Collective) {
    SHARED Met met;
    move_parts(args, met, {args.rank == args.root ? args.world : 0, 1, args.root, args.rank, 0}, false);
}

KERNEL(gather, Collective) {
    SHARED Met met;
    move_parts(args, met, {1, args.rank == args.root ? args.world : 0, args.rank, 0, args.stride}, false);
}

KERNEL(all_to_all, Collective) {
    SHARED Met met;
#if defined(PLANTED_IN_PLACE)
    const bool in_place = false;
#else
    const bool in_place = args.from == args.to;
#endif
    // Each begins with itself: were all to begin with rank 0, they would queue there.
    move_parts(args, met, {args.world, args.world, args.rank, args.rank, args.stride}, in_place);
}
