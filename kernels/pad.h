// SPDX-License-Identifier: MPL-2.0
//
// What ranks share: the one layout of the memory in which kernels meet, and the arguments that all collectives take.
//
// Every rank owns an arena, device memory that its peers map:
//
//     Pad | packets (low_latency.cu) | staging, two halves of `half` bytes | slots of messages (messages.cu)
//
// and, for itself alone, a State, a Report and a journal. All of it starts as zeros. Memory that peers map has a *place*, the
// number of its region in the upper 16 bits and an offset in the others: regions are numbered alike on all ranks, and a
// rank finds in `regions[region * world + rank]` where it sees that rank's. Region 0 are the arenas. Place 0 says
// *staged*: the kernel itself copies the buffer into, or out of, the staging half of this call.
//
// Who writes what, with r and q ranks and b a block; everything else is read only:
//
//     word of q's Pad       written by         to say
//     entries[s][b][r]      block b of r       r has entered: epoch and hash of the call, where its buffers are
//     done[b][r]            block b of r       r has done its part of the call
//     passed[b]             block b of q - 1   so many messages lie in q's slots (ring.cu)
//     taken[b]              block b of q + 1   q + 1 has taken so many messages
//     flags[r][f]           r                  how far r has come in its program (flags.cu)
//     sent[b][r]            block b of r       what r sends to q, where that is, and so many pieces (messages.cu)
//     received[b][r]        block b of r       so many pieces r has received of q
//     said[d][r]            block 0 of q       the message that q sends to r or receives from it, for hosts alone
//     called                block 0 of q       which call q is in; nobody on a device reads it
//     awaited[r]            q                  so many threads of q wait for r, and have for a while, or did in vain
//     State                 this rank alone    how many calls there have been, and messages
//     journal               block 0 of q       when launches were where, for q's host
//
// `called` stays what it was when a call has failed. Hosts read it to say in words which calls differ: all ranks that
// come to that call fail in it, since each finds a rank that makes another call than its own; so what each says then is
// there for good, whatever is enqueued behind. `awaited` says whether a rank that has died is missed, and, from rank to
// rank, who is waited for and waits for nobody: that one is at fault at a deadline. It stays, too, where a wait failed.
//
// Counts of calls. A block counts the calls it took part in (`turn`): the epoch of all of its words. All blocks of a
// call are those of all ranks, so `turn` is the same on all ranks for one block, though grids change from call to call.
// And each rank counts its calls (`calls`), by whose parity the staging half is chosen; it is kept once for each block
// and written at a call's end, each block writing every BLOCKS-th-of-the-grid entry from its own on, so that it reads
// in the next call what this one left, without an atomic operation: in a call, entry b is read and written by block b
// only. Both live in device memory and advance on the device, so a captured graph replays.
//
// Why two entries a block suffice, by parity of `turn`: r writes its entry for turn t + 2 when it has passed turn t +
// 1, thus after block b of q has entered t + 1, thus after that has read all entries of turn t. An entry holds turn t -
// 2 or t when it is awaited, never another, so it is compared for being equal, and wrapping is harmless.
//
// Why two halves suffice, by parity of `calls`: in call c a rank writes into halves of its own or of peers that were
// last used in call c - 2. Before that it has completed call c - 1, in which one of its blocks has seen that every peer
// has entered c - 1; a peer's stream runs one call after the other, so the peer had completed c - 2, in all of its
// blocks. That holds though each call has its own grid and its own dealing, and is why the parity is that of the rank's
// calls and not of a block's. Each collective therefore has every rank wait for an entry of every other, whatever else
// it needs.
//
// `flags` are counters of 64 bits that count on from call to call, from `base` in the State, and never wrap. Other
// words are counters, too: turn in the upper half, a step within the call in the lower one, so that they only grow from
// call to call; whoever waits for {turn, step} takes all that is not before it, by the sign of the difference. Not every
// call raises each of them: so every 2^30th of a block raises all that it raises ever, to the end of the call before
// (catch_up()), and none is ever so far behind that it seems to be ahead.
//
// Messages have counts of their own, of each block and ordered pair of ranks: nothing of the above counts them, and no
// other call touches their words and slots. (messages.cu has the proof.)
#pragma once

#include "wait.h"

constexpr u32 RANKS = 16;  // the most ranks
constexpr u32 BLOCKS = 64; // the most blocks of a collective
constexpr u32 FLAGS = 8;   // flags that a rank has in a program

struct Entry {
    u64 word[2]; // turn in the upper half, a half of the hash in the lower one
    u64 from;    // the place of what the rank reads
    u64 to;      // the place of what it writes
};

constexpr u32 WORDS = 6;      // of a descriptor
constexpr u32 LAUNCHES = 1024; // of which a journal has room

// The call that a rank is in.
struct Called {
    u64 calls; // how many there were before
    u64 hash;  // of `word`
    u64 word[WORDS];
};

// What a block sends: `contents` and `from` are written before `count` is raised for the first piece.
struct Sent {
    u64 count;    // the message in the upper half, as the block counts those of the pair; pieces in the lower one
    u64 contents; // type and length, as both must name them
    u64 from;     // the place of what is sent; STAGED: it comes in pieces, through slots
    u64 unused;
};

// A message that a rank is in.
struct Said {
    u64 number;   // of those of the pair that there were before
    u64 contents; // 0: it is in none
};

struct Pad {
    Entry entries[2][BLOCKS][RANKS];
    u64 done[BLOCKS][RANKS];
    u64 passed[BLOCKS];
    u64 taken[BLOCKS];
    u64 flags[RANKS][FLAGS];
    Called called;
    u32 awaited[RANKS];
    Sent sent[BLOCKS][RANKS];
    u64 received[BLOCKS][RANKS];
    Said said[2][RANKS]; // sent, and received
};

// What block 0 of one launch tells the host, by the device's clock in nanoseconds. Bits 48 to 63 of each word are the
// launch's tag: words with one tag are of one launch, so that nothing need be ordered for the host.
struct Stamps {
    u64 entered; // when the rank entered, modulo 2^48
    u64 before;  // from the launch's begin until then
    u64 waited;  // from then until the last rank had entered
    u64 after;   // from then to the end
    u64 who;     // bits 32 to 47: the rank that entered last; 0 to 31: how many calls there were before
};

// What a rank counts, of each block.
struct Turn {
    u32 turn;    // calls that the block took part in; the epoch of its words
    u32 calls;   // calls of the rank
    u32 packets; // calls of the rank that sent packets
    u32 failed;  // as begin() finds it: State's, whether a call has failed
};

struct State {
    Turn turns[BLOCKS];
    u32 failed; // not 0 once a call has failed, by which it is known (meet.h): later ones leave at once
    u32 unused;
    u64 base; // what flags have at the end of the last call that was a program; the same on all ranks
    u32 messages[2][BLOCKS][RANKS]; // that a block has sent to that rank, and received from it
};

// Why the first call of a rank that failed did, for the host to read. Bits of ranks: bit r is rank r.
struct Report {
    u32 claims;    // how often something went wrong; the first is what is written here
    u32 ended;     // Ended
    u32 phase;     // Phase
    u32 block;     // which block it was
    u32 calls;     // how many calls there were before this one
    u32 missing;   // ranks that were waited for when it ended
    u32 differing; // ranks that made another call
    u32 deserted;  // ranks that had given up
};

enum Phase : u32 {
    ENTERING = 1,
    FINISHING = 2, // all have entered; a rank is not done
    RECEIVING = 3, // ring: nothing from the rank before; flags: one was not raised
    SENDING = 4,   // ring: the rank after does not take what it has; low latency: a packet is missing
    GIVING = 5,    // messages: the receiver does not take it; `calls` are those of the pair before it, of that block,
    TAKING = 6,    // .. or the sender sends nothing
};

// The arguments of every collective.
struct Collective {
    u64 hash;           // of the descriptor: the same on all ranks, or the call ends
    const u64* regions; // addresses
    State* state;
    Report* report;   // in memory that the host reads
    const u32* abort; // not 0 ends the call
    u64 patience;     // nanoseconds from a wait's begin to its end at the latest
    const void* from; // what this rank gives
    void* to;         // what it gets
    u64 from_place;   // where peers find `from`; 0: staged
    u64 to_place;     // .. and `to`
    u64 elements;     // as each kernel says
    u64 stride;       // of kernels that move parts: bytes from one rank's part to the next one's
    u64 factor;       // of PREMUL, by its bits
    u64 packets;      // the offset of the packets in the arenas, a multiple of 16
    u64 lines;        // packets of one rank and parity
    u64 staging;      // the offset of the staging halves in the arenas, a multiple of 16
    u64 half;         // bytes of a half, a multiple of 16
    u32 operation;
    u32 root;
    u32 rank;
    u32 world;       // 1 to RANKS
    u64 call[WORDS]; // the descriptor, of which `hash` is
    Stamps* journal; // LAUNCHES of them, in memory that the host has copied; null: nobody asks
    u64 number;      // of the launch, as the host counts; its stamps are those at `number` modulo LAUNCHES
};

constexpr u64 STAGED = 0;
constexpr u64 OFFSET = (1ull << 48) - 1;

// The lower half of a counter by which a rank says that it has given the call up.
constexpr u32 GAVE_UP = 0xffffffff;
constexpr u32 CATCHING_UP = 1u << 30; // in calls of a block

DEVICE u64 counter_of(u32 turn, u32 step) { return (u64)turn << 32 | step; }

DEVICE char* arena_of(const Collective& args, u32 rank) { return (char*)args.regions[rank]; }
DEVICE Pad* pad_of(const Collective& args, u32 rank) { return (Pad*)arena_of(args, rank); }

// The offset of the staging half of this call in an arena, and the half of a rank's.
DEVICE u64 staging_in_arena(const Collective& args, const Turn& turn) {
#if defined(PLANTED_BLOCK_PARITY)
    return args.staging + (turn.turn & 1) * args.half;
#else
    return args.staging + (turn.calls & 1) * args.half;
#endif
}
DEVICE char* staging_of(const Collective& args, const Turn& turn, u32 rank) {
    return arena_of(args, rank) + staging_in_arena(args, turn);
}

// Where the region of a place begins; null: this rank has given it up. What is staged is in the arena, which is the first.
DEVICE char* region_of(const Collective& args, u64 place, u32 rank) {
    return (char*)args.regions[(place >> 48) * args.world + rank];
}

// Where a place is, of whose region this is the begin.
DEVICE char* in_region(const Collective& args, const Turn& turn, char* region, u64 place) {
    return region + (place == STAGED ? staging_in_arena(args, turn) : place & OFFSET);
}
