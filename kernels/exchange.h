// SPDX-License-Identifier: MPL-2.0
//
// What a block knows of the messages of a batch, how it looks for what can be done about them, and how it tells what it has
// done. (messages.cu says who writes which word, and why that suffices; there, and in relay.cu, messages are moved.)
//
// One thread looks at all messages in turn, until it finds something: so a message that waits holds up no other. A wait
// ends as those of other kernels do (meet.h): when its peer has come so far, at its deadline, by the abort word, or when
// another block of this rank has failed.
#pragma once

#include "meet.h"
#include "part.h"

constexpr u32 MESSAGES = 64; // the most of a batch
constexpr u32 PIECES = 4;    // of a message, and a block, in slots at the most
constexpr u32 NONE = 0xffffffff;
constexpr u32 OTHER = 0xfffffffe; // as GAVE_UP: the receiver's message is another one

struct Message {
    u64 address;  // of what this rank sends, or of where it receives
    u64 place;    // of what it sends: where the receiver finds it, or STAGED
    u64 bytes;
    u64 contents; // never 0
    u32 peer;     // not this rank
    u32 blocks;   // that move it: 1 to those of the launch
    u32 before;   // the message of the launch that comes before it, of the same peer and direction; or NONE
    u32 unused;
};

struct Messages {
    Collective call; // of its members, `regions` to `patience`, `rank`, `world`, `journal` and `number` count
    u64 slots;       // the offset of the slots in the arenas, a multiple of 16
    u64 slot;        // bytes of a slot, a multiple of 16
    u64 room;        // bytes from the slots of one receiver to those of the next
    u32 sends;       // so many are sent,
    u32 messages;    // .. of so many; those behind them are received
    Message message[MESSAGES];
};

enum Ready : u32 {
    WAITS = 0,
    MOVES = 1, // the next piece can be moved
    ENDS = 2,  // the receiver has taken all
};

// What a block knows of its messages; in shared memory. Each is written by one thread, between two sync_block().
struct Exchange {
    Met met;
    u32 failed;             // whether an earlier call has failed
    u32 ready[MESSAGES];    // Ready
    u32 ended[MESSAGES];    // how the wait for its peer ended, so far
    u32 done[MESSAGES];     // this block has nothing more to do with it
    u32 begun[MESSAGES];    // this rank has come to it
    u32 number[MESSAGES];   // t, once it is begun
    u32 step[MESSAGES];     // pieces that are moved
    u32 looks[MESSAGES];    // since it waits
    u64 deadline[MESSAGES]; // of its wait, once that is long
    u64 seen[MESSAGES];     // when its peer had come; 0: at the first look, or not yet
    u32 come[MESSAGES];     // whether its peer has come
    const char* from[MESSAGES]; // of what is received where it lies; null: staged
};

DEVICE bool is_sent(const Messages& args, u32 i) { return i < args.sends; }

DEVICE u32* count_of(const Messages& args, u32 i) {
    return &args.call.state->messages[is_sent(args, i) ? 0 : 1][block()][args.message[i].peer];
}

// Whether this block may be in the message, as far as this rank's others are concerned.
DEVICE bool is_next(const Messages& args, const Exchange& x, u32 i) {
    const u32 before = args.message[i].before;
    return x.done[i] == 0 && (before == NONE || x.done[before] != 0);
}

// The word by which this rank's block tells the message's peer.
DEVICE u64* own_word(const Messages& args, u32 i) {
    const Collective& call = args.call;
    Pad* const pad = pad_of(call, args.message[i].peer);
    return is_sent(args, i) ? &pad->sent[block()][call.rank].count : &pad->received[block()][call.rank];
}

DEVICE Range range_of(const Message& message) {
    return part_of(message.bytes, sizeof(Packet), message.blocks, block());
}

// Pieces of this block's range; of one that is empty, too, there is one.
DEVICE u32 pieces_of(const Messages& args, u32 i, bool staged) {
    const Range range = range_of(args.message[i]);
    const u64 bytes = range.end - range.begin;
    return staged && bytes > args.slot ? (u32)((bytes + args.slot - 1) / args.slot) : 1;
}

DEVICE bool is_staged(const Messages& args, const Exchange& x, u32 i) {
    return is_sent(args, i) ? args.message[i].place == STAGED : x.from[i] == nullptr;
}

// The slot of a piece.
DEVICE char* slot_of(const Messages& args, u32 i, u32 piece) {
    const Collective& call = args.call;
    const u32 peer = args.message[i].peer;
    const u32 sender = is_sent(args, i) ? call.rank : peer, receiver = is_sent(args, i) ? peer : call.rank;
    const u64 which = block() * PIECES + piece % PIECES;
    return arena_of(call, sender) + args.slots + receiver * args.room + which * args.slot;
}

// Says for the host which message this rank is in, unless an earlier one of its kind has failed.
DEVICE void say_message(const Messages& args, u32 i) {
    if (block() != 0) return;
    Said* const said = &pad_of(args.call, args.call.rank)->said[is_sent(args, i) ? 0 : 1][args.message[i].peer];
    if (load_relaxed_system(&said->contents) != 0) return;
    store_relaxed_system(&said->number, *count_of(args, i));
    store_relaxed_system(&said->contents, args.message[i].contents);
}

// Begins a launch, in which nothing is known of its messages.
DEVICE void begin_batch(const Messages& args, Exchange& x) {
    for (u32 i = thread(); i < args.messages; i += threads()) {
        x.ready[i] = x.ended[i] = x.begun[i] = x.number[i] = x.step[i] = x.looks[i] = x.come[i] = 0;
        x.deadline[i] = x.seen[i] = 0;
        x.from[i] = nullptr;
        x.done[i] = block() < args.message[i].blocks ? 0 : 1;
        // Whether or not another block of this rank has failed by now: that may be of this message.
        if (args.message[i].before == NONE) say_message(args, i);
    }
    if (thread() == 0) {
        x.failed = load_relaxed_system(&args.call.state->failed);
        x.met.begun = x.met.entered = clock_ns();
    }
    sync_block();
}

// Begins a message: says that this rank has come to it.
DEVICE void begin_message(const Messages& args, Exchange& x, u32 i) {
    x.begun[i] = 1;
    x.number[i] = *count_of(args, i) + 1;
    if (args.message[i].before != NONE) say_message(args, i);
    if (!is_sent(args, i)) publish(own_word(args, i), counter_of(x.number[i], 1));
}

DEVICE u32 failed_message(const Messages& args, const Exchange& x, u32 i, u32 ended) {
    const Turn turn = {0, x.number[i] - 1, 0, 0};
    fail(args.call, turn, ended, is_sent(args, i) ? GIVING : TAKING, args.message[i].peer);
    return ended;
}

// Looks once whether a counter of the peer has come to a step of the message. If not: how the wait ends, if it does.
DEVICE bool has_come_to(const Messages& args, Exchange& x, u32 i, const u64* word, u32 step) {
    const Collective& call = args.call;
    u32* const awaited = &pad_of(call, call.rank)->awaited[args.message[i].peer];
    const u64 seen = load_acquire_system(word);
    const u32 looks = x.looks[i]++;
    if (x.come[i] == 0 && is_reached(seen, counter_of(x.number[i], 1))) {
        x.come[i] = 1;
        x.seen[i] = looks == 0 ? 0 : clock_ns();
    }
    if (is_reached(seen, counter_of(x.number[i], step))) {
        if (x.deadline[i] != 0) add_system(awaited, ~0u);
        x.looks[i] = 0;
        x.deadline[i] = 0;
        const u32 code = (u32)(seen >> 32) == x.number[i] ? (u32)seen : 0;
        if (code >= OTHER) x.ended[i] = failed_message(args, x, i, code == OTHER ? DIFFERS : DESERTED);
        return code < OTHER;
    }
    SPUN(is_sent(args, i) ? GIVING : TAKING);
    if (looks % LOOKS == LOOKS - 1) {
        const u64 now = clock_ns();
        u32 ended = REACHED;
        if (x.deadline[i] == 0) {
            x.deadline[i] = now + call.patience;
            add_system(awaited, 1);
        }
        if (load_relaxed_system(call.abort) != 0 || load_relaxed_system(&call.state->failed) != 0) ended = ABORTED;
        else if (now > x.deadline[i]) ended = LATE;
        if (ended != REACHED) x.ended[i] = failed_message(args, x, i, ended);
    }
    return false;
}

// Compares the messages of both ranks, and finds what is received.
DEVICE void find_message(const Messages& args, Exchange& x, u32 i) {
    const Collective& call = args.call;
    const Message& message = args.message[i];
    const Sent* const sent = &pad_of(call, call.rank)->sent[block()][message.peer];
    const u64 from = load_relaxed_system(&sent->from);
    if (load_relaxed_system(&sent->contents) != message.contents) x.ended[i] = failed_message(args, x, i, DIFFERS);
    else if (region_of(call, from, message.peer) == nullptr) x.ended[i] = failed_message(args, x, i, GONE);
    else x.from[i] = from == STAGED ? nullptr : region_of(call, from, message.peer) + (from & OFFSET);
}

// Looks what can be done about a message.
DEVICE u32 look_at(const Messages& args, Exchange& x, u32 i) {
    const Collective& call = args.call;
    const u32 peer = args.message[i].peer, step = x.step[i];
    Pad* const pad = pad_of(call, call.rank);
    if (!is_next(args, x, i)) return WAITS;
    if (x.begun[i] == 0) begin_message(args, x, i);
    if (is_sent(args, i)) {
        const u64* const received = &pad->received[block()][peer];
        const u32 pieces = pieces_of(args, i, is_staged(args, x, i));
#if defined(PLANTED_NOT_FINISHED)
        if (step == pieces) return ENDS;
#else
        if (step == pieces) return has_come_to(args, x, i, received, 1 + pieces) ? ENDS : WAITS;
#endif
#if defined(PLANTED_NOT_TAKEN)
        return MOVES;
#else
        return step < PIECES || has_come_to(args, x, i, received, 2 + step - PIECES) ? MOVES : WAITS;
#endif
    }
    if (!has_come_to(args, x, i, &pad->sent[block()][peer].count, step + 1)) return WAITS;
    if (step == 0) find_message(args, x, i);
    return x.ended[i] == REACHED ? MOVES : WAITS;
}

// Looks at all messages in turn, by one thread, until something can be done or a wait has ended otherwise.
DEVICE void look_around(const Messages& args, Exchange& x) {
    for (bool found = x.failed != 0; !found;) {
        for (u32 i = 0; i < args.messages; ++i) {
            x.ready[i] = look_at(args, x, i);
            found = found || x.ready[i] != WAITS || x.ended[i] != REACHED;
        }
        if (!found) pause();
    }
}

// Says what was done, and notes it, by one thread.
DEVICE void tell(const Messages& args, Exchange& x, u32 i) {
    const Collective& call = args.call;
    const Message& message = args.message[i];
    bool ends = x.ready[i] == ENDS;
    if (!ends) {
        const u32 moved = ++x.step[i];
        if (is_sent(args, i)) {
            Sent* const sent = &pad_of(call, message.peer)->sent[block()][call.rank];
            if (moved == 1) {
                store_relaxed_system(&sent->contents, message.contents);
                store_relaxed_system(&sent->from, message.place);
            }
            publish(&sent->count, counter_of(x.number[i], moved));
        } else {
            publish(own_word(args, i), counter_of(x.number[i], 1 + moved));
            ends = moved == pieces_of(args, i, is_staged(args, x, i));
        }
    }
    if (!ends) return;
    *count_of(args, i) = x.number[i];
    x.done[i] = 1;
    if (block() != 0) return;
    store_relaxed_system(&pad_of(call, call.rank)->said[is_sent(args, i) ? 0 : 1][message.peer].contents, 0);
}

// Whether all is well, which all threads of the block answer alike.
DEVICE bool is_well(const Messages& args, const Exchange& x) {
    u32 ended = x.failed;
    for (u32 i = 0; i < args.messages; ++i) ended |= x.ended[i];
    return ended == 0;
}

DEVICE bool are_done(const Messages& args, const Exchange& x) {
    u32 left = 0;
    for (u32 i = 0; i < args.messages; ++i) left |= x.done[i] ^ 1;
    return left == 0;
}

// Tells the peers of messages that are not done that this rank gave them up. What they were told of an earlier one, whose
// failure this is, stays: they may not have seen it.
DEVICE void give_up(const Messages& args, Exchange& x) {
    for (u32 i = thread(); i < args.messages; i += threads()) {
        if (!is_next(args, x, i) || (u32)load_relaxed_system(own_word(args, i)) >= OTHER) continue;
        const u32 why = x.ended[i] == DIFFERS && !is_sent(args, i) ? OTHER : GAVE_UP;
        publish(own_word(args, i), counter_of(*count_of(args, i) + 1, why));
    }
}

// Stamps the launch for the host: who came last, of the peers of its messages. To a message behind another of its pair
// they come when that has been moved, which is no waiting.
DEVICE void stamp_batch(const Messages& args, Exchange& x) {
    if (block() != 0 || thread() != 0) return;
    for (u32 peer = 0; peer < args.call.world; ++peer) x.met.seen[peer] = 0;
    for (u32 i = 0; i < args.messages; ++i) {
        u64& seen = x.met.seen[args.message[i].peer];
        if (args.message[i].before == NONE && x.seen[i] > seen) seen = x.seen[i];
    }
    stamp(args.call, args.call.state->turns[0], x.met);
}
