// SPDX-License-Identifier: MPL-2.0
//
// A message that copies of the driver move, through slots of the sender's arena: between two copies, tells the peer of the
// piece that was moved, and waits until the next one can be. It is to messages what flags.cu is to calls of all ranks.
//
// Words, counts and slots are those of messages.cu, of block 0 alone, whose slots are as long here as those of all blocks
// together. So the other end of such a message may be in a batch, which is moved by that kernel, if it says the same of
// slots and blocks.
//
// Bytes moved: the flags. A piece costs a launch on each rank, and the receiver one more, which comes to the message.
//
// Launch: one block, a warp, of which one thread looks and tells.
//
// Proof. That of messages.cu, with copies in the place of blocks: what a rank's stream did before this kernel is complete
// when it begins, by the stream's order, and so comes before its release store, by which the peer is told of the piece; and
// what comes behind this kernel on its stream, the copy of the next piece, comes after the acquire load that has seen
// that it can be moved. A launch knows what those before it have moved (`moved`), and which message it is by the count,
// which only the last one advances, on the device; so a graph replays.
//
// Copies cannot be called off: behind a launch whose wait has failed, and that has said so, they are done all the same.
#include "exchange.h"

struct Relay {
    Messages batch; // of one message, which block 0 moves
    u32 moved;      // pieces of it that were moved before this launch; of what is sent, at least one
    u32 unused;
};

// Takes the message up where the copy before this launch has left it, by one thread: says that it was made.
DEVICE void take_up(const Messages& batch, Exchange& x, u32 moved) {
    x.begun[0] = 1;
    x.number[0] = *count_of(batch, 0) + 1;
    x.step[0] = moved - 1;
    x.ready[0] = MOVES;
    tell(batch, x, 0);
}

KERNEL(relay, Relay) {
    SHARED Exchange x;
    const Messages& batch = args.batch;
    begin_batch(batch, x);
    AT(ENTERING, batch.call.rank);
    if (thread() == 0 && x.failed == 0) {
        if (args.moved != 0) take_up(batch, x, args.moved);
        if (x.done[0] == 0) look_around(batch, x);
        if (x.ready[0] == ENDS) tell(batch, x, 0);
    }
    sync_block();
    if (!is_well(batch, x)) give_up(batch, x);
    stamp_batch(batch, x);
}
