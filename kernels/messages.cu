// SPDX-License-Identifier: MPL-2.0
//
// Messages: what ranks send to one another and receive, all of one batch in one launch. Bytes are moved as they are,
// whatever their type. The receiver moves them: out of the sender's memory where it sees that, out of slots of the
// sender's arena otherwise, into which the sender copies them in pieces.
//
// A message is its two ranks' alone: other ranks take no part, and may be anywhere. The k-th that a sends to b is the
// k-th that b receives from a. Messages of a batch go on independently of one another, in whatever order their peers
// come to them, but those of the same pair and direction, which go one after the other.
//
// Bytes moved per byte of a message: 1 read over the link and 1 written; staged: 1 read and written more, by the
// sender. Flags of a block: one forward and two back, and for each piece after the first one more forward and back.
//
// Launch: 1 to BLOCKS blocks, resident together on both ranks, of 256 threads (512: two_shot.cu): as many as the
// longest message of the batch has. A message's follow from its length, on both ranks alike: about one for every 8 lines
// a thread of it. Block b of the sender and block b of the receiver move one range of it, and meet nobody else; block 0
// has a part in every message.
//
// The words of one message, of one block, between sender s and receiver r. t counts the messages of this pair and block,
// on both ranks, in device memory, from 1 on; a counter is {t, step} (pad.h).
//
//     sent[b][s] of r's Pad        {t, k}      k of its pieces are there; one that is not staged is one piece
//     received[b][r] of s's Pad    {t, 1 + k}  r has come to it, and taken k of its pieces
//
// Proof. *Right data.* The writes of the sender's block into slot k modulo PIECES, and those of earlier kernels to what
// is read where it lies, come before sync_block() and the release store of {t, k + 1}; a thread of the receiver's block
// acquires that before sync_block(), which comes before the block reads. `contents` and `from` are stored by the thread
// that then releases {t, 1}, and read by the thread that has acquired it. *Nothing is overwritten too early.* The
// receiver's reads of piece k come before sync_block() and the release store of {t, 2 + k}. The sender writes piece k of
// a slot when it has acquired {t, 2 + k - PIECES}; and its message ends, so that its buffer may be written, `contents`
// and `from` stored anew and all slots used again, when it has acquired {t, 1 + all pieces}. Slots are a block's and a
// pair's own. *Counters* have one writer each and only grow: t by one a message, and within it pieces. What is awaited is
// not before any that a peer can have come to, by less than half the range, so wrapping is harmless: the receiver is at
// most one message ahead of what the sender has seen ({t + 1, 1} says that t has been taken), the sender never. *No
// circle.* A block looks at all of its messages in turn and stops at none: whatever one waits for, the others go on. A
// message waits for the peer's launch that has its counterpart, for earlier ones of the same pair, and for nothing else.
//
// The receiver compares what both say. Where they differ it says so in `received` (OTHER), since the sender waits for that
// word anyway; block 0 meets block 0 even where lengths differ and so do grids, and other blocks see that their rank has
// failed. A rank whose call fails says GAVE_UP in the word of each message that it is in.
#include "exchange.h"

// Moves the next piece of a message, by all threads of the block.
DEVICE void move_piece(const Messages& args, const Exchange& x, u32 i) {
    const Message& message = args.message[i];
    const Range range = range_of(message);
    char* const own = (char*)message.address;
    if (!is_staged(args, x, i)) {
        void* const to[] = {own};
        if (!is_sent(args, i)) copy_range(x.from[i], to, 1, range);
        return;
    }
    const u64 begin = range.begin + x.step[i] * args.slot, rest = range.end - begin;
    char* const slot = slot_of(args, i, x.step[i]);
    void* const to[] = {is_sent(args, i) ? slot : own + begin};
    copy_range(is_sent(args, i) ? own + begin : slot, to, 1, {0, rest < args.slot ? rest : args.slot});
}

KERNEL(messages, Messages) {
    SHARED Exchange x;
    begin_batch(args, x);
    AT(ENTERING, args.call.rank);
    bool well = true;
    while (well && !are_done(args, x)) {
        if (thread() == 0) look_around(args, x);
        sync_block();
        well = is_well(args, x);
        if (well) {
            AT(FOLDING, args.call.rank);
            for (u32 i = 0; i < args.messages; ++i)
                if (x.ready[i] == MOVES) move_piece(args, x, i);
            sync_before_publishing();
            for (u32 i = thread(); i < args.messages; i += threads())
                if (x.ready[i] != WAITS) tell(args, x, i);
            sync_block();
        }
    }
    if (!well) give_up(args, x);
    stamp_batch(args, x);
}
