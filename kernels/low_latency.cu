// SPDX-License-Identifier: MPL-2.0
//
// Low-latency all-reduce: each rank sends its whole input to all others, each 4 bytes of it with a flag of 4 bytes
// beside them in one word, so that what arrives says itself that it is there. One trip over a link, and no fence after
// it. For the smallest messages: it sends twice their bytes, to everybody.
//
// `elements` is the length. A packet of 16 bytes carries 8. Bytes a rank moves per byte, n ranks: 1 read, 2(n - 1)
// written, 2(n - 1) read, 1 written. Flags: one a word, and one to each rank that carries
// the call, posted before the packets, so that it has nothing to wait for.
//
// Launch: 1 to BLOCKS blocks, resident together on all ranks, of 256 threads, about one packet of each rank a thread. The
// message's packets must not be more than `lines`.
//
// What takes time is waiting for memory, so there is little of it: a thread loads what it sends first along with the
// state of the rank, and looks at the packets of several ranks at once.
//
// Proof. A word of a packet is loaded and stored whole, so data with the call's flag was sent in the call. Packets of a
// rank and parity of `calls` lie at their own place, which nothing else uses: what lies there was read two calls before
// (pad.h). The flag is the rank's count of calls that sent packets: words that were not sent in this call have an older
// one. A flag would come again after 2^32 such calls; before that, every 2^30 of them, a rank sets all of its packets
// to the flag before this one. Nothing of an earlier call is in flight then, since all that was sent in it was
// received, and nothing of this one, since nobody sends before finish() has said that all ranks are done; block b sets
// what it receives. Every rank's entry is awaited before its data is used: so ranks know that they are in one call, and
// that each has completed the one before.
// In place: a thread has read what it sends before it stores the result, of the same elements.
#include "meet.h"
#include "part.h"

constexpr u32 CLEANING = 1u << 30;

// 8 bytes of a message.
template <class T>
struct alignas(8) Piece {
    static constexpr u32 LANES = 8 / sizeof(T);
    T lane[LANES];
};

template <class T>
DEVICE Piece<T> load_piece(const T* from, u64 elements, u64 i) {
    Piece<T> piece = {};
#pragma unroll
    for (u32 lane = 0; lane < Piece<T>::LANES; ++lane)
        if (i * Piece<T>::LANES + lane < elements) piece.lane[lane] = from[i * Piece<T>::LANES + lane];
    return piece;
}

// The packets that rank `writer` sends to rank `reader` in this call.
DEVICE Packet* packets_of(const Collective& args, u32 reader, u32 writer, u32 parity) {
    const u64 first = ((u64)parity * args.world + writer) * args.lines;
    return (Packet*)(arena_of(args, reader) + args.packets) + first;
}

DEVICE void clean(const Collective& args, u32 flag) {
    for (u32 both = 0; both < 2 * args.world; ++both) {
        Packet* const packets = packets_of(args, args.rank, both / 2, both % 2);
        for (u64 i = (u64)block() * threads() + thread(); i < args.lines; i += (u64)blocks() * threads())
            store_relaxed_system(packets + i, Packet{{(u64)flag << 32, (u64)flag << 32}});
    }
}

DEVICE bool has_come(const Packet& packet, u32 flag) {
    return (u32)(packet.word[0] >> 32) == flag && (u32)(packet.word[1] >> 32) == flag;
}

// Ranks at whose packets a thread looks at once.
constexpr u32 LOOKED_AT = 4;

template <class T, class A>
DEVICE void fold_pieces(const Collective& args, const Turn& turn, u32 flag, bool well) {
    constexpr u32 LANES = Piece<T>::LANES;
    void* const nowhere[] = {nullptr};
    const Folding folding = {&args.from, nowhere, 1, 1, args.operation, args.world, args.factor};
    const u64 pieces = (args.elements + LANES - 1) / LANES;
    for (u64 i = (u64)block() * threads() + thread(); well && i < pieces; i += (u64)blocks() * threads()) {
        A values[LANES] = {}, next[LANES];
        Packet seen[LOOKED_AT] = {};
#pragma unroll 1
        for (u32 peer = 0; peer < args.world; ++peer) {
            const Packet* const packets = packets_of(args, args.rank, peer, turn.calls & 1);
            if (peer % LOOKED_AT == 0) {
#pragma unroll
                for (u32 ahead = 0; ahead < LOOKED_AT; ++ahead)
                    if (peer + ahead < args.world && peer + ahead != args.rank)
                        take(seen[ahead], load_relaxed_system(packets + ahead * args.lines + i));
            }
            Piece<T> piece;
            if (peer == args.rank) {
                piece = load_piece((const T*)args.from, args.elements, i);
            } else {
                if (!has_come(seen[0], flag)) {
                    const u32 ended = await(args, turn, SENDING, peer, [&] {
                        take(seen[0], load_relaxed_system(packets + i));
                        return has_come(seen[0], flag);
                    });
                    well = well && ended == REACHED;
                }
                const u64 bits = (seen[0].word[0] & 0xffffffffu) | seen[0].word[1] << 32;
                memcpy(&piece, &bits, sizeof piece);
            }
#pragma unroll
            for (u32 ahead = 1; ahead < LOOKED_AT; ++ahead) take(seen[ahead - 1], seen[ahead]);
#pragma unroll
            for (u32 lane = 0; lane < LANES; ++lane) next[lane] = widen<A>(piece.lane[lane]);
            taken_in(folding, next);
            if (peer == 0) {
#pragma unroll
                for (u32 lane = 0; lane < LANES; ++lane) values[lane] = next[lane];
            } else {
                combine(args.operation, values, next);
            }
        }
        finished(folding, values);
#pragma unroll
        for (u32 lane = 0; lane < LANES; ++lane)
            if (well && i * LANES + lane < args.elements) narrow(((T*)args.to)[i * LANES + lane], values[lane]);
    }
}

template <class T>
DEVICE void low_latency(const Collective& args, Met& met) {
    typedef typename Carried<T>::Value Value;
    typedef typename Carried<T>::Average Average;
    const u64 pieces = (args.elements + Piece<T>::LANES - 1) / Piece<T>::LANES;
    u64 i = (u64)block() * threads() + thread();
    Piece<T> piece = load_piece((const T*)args.from, args.elements, i);
    Turn turn = begin(args, met);
    const u32 flag = turn.packets + 1;
    bool well = true;
    const bool cleans = flag % CLEANING == 0;
    if (cleans) {
        well = enter(args, turn, met);
        AT(RECEIVING, args.rank);
        if (well) clean(args, flag - 1);
#if !defined(PLANTED_RESET)
        well = finish(args, turn, met, well, 1);
#endif
    } else {
        post_entries(args, turn, met, true, true);
    }
    if (well) {
        AT(SENDING, args.rank);
        while (i < pieces) {
            u64 bits;
            memcpy(&bits, &piece, sizeof bits);
            const u64 marked = (u64)flag << 32;
            const Packet packet = {{marked | (bits & 0xffffffffu), marked | bits >> 32}};
            // Beginning with the next rank, so that not all send to the same one at once.
            for (u32 hop = 1; hop < args.world; ++hop) {
                const u32 peer = (args.rank + hop) % args.world;
                store_relaxed_system(packets_of(args, peer, args.rank, turn.calls & 1) + i, packet);
            }
            i += (u64)blocks() * threads();
            piece = load_piece((const T*)args.from, args.elements, i);
        }
        if (!cleans) well = await_entries(args, turn, met, false);
    }
    if constexpr (Same<Value, Average>::VALUE) {
        fold_pieces<T, Value>(args, turn, flag, well);
    } else {
        if (args.operation == AVG) fold_pieces<T, Average>(args, turn, flag, well);
        else fold_pieces<T, Value>(args, turn, flag, well);
    }
    leave(args, turn, met, 1);
}

#define LOW_LATENCY(name, T)                                                                                           \
    KERNEL(low_latency_##name, Collective) {                                                                           \
        SHARED Met met;                                                                                                \
        low_latency<T>(args, met);                                                                                     \
    }
TYPES(LOW_LATENCY)
