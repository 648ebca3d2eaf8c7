// SPDX-License-Identifier: MPL-2.0
//
// Ring all-reduce: each rank receives from the rank before it alone, and sends to the rank after it alone. Chunks
// travel round the ring and are folded as they go, then once more, folded. For links of a ring that are faster than all
// others.
//
// `elements` is the length. Fold order `Ring`: chunk c folds c+1, c+2, .., n-1, 0, .., c, so the result's bits depend
// on where chunks begin, and nobody chooses this kernel unasked. What travels on the first round is a partial result,
// in f32 for f16 and bf16 and in 64 bits for averages of integers; integers otherwise are cut off at once, which is the
// same modulo their size.
//
// Bytes a rank moves per element, n ranks: its size read and written, and (n-1)/n times a partial and (n-1)/n times its
// size written to a slot and read from one. Flags a step: one forward, one back. Steps: 2(n-1) a segment; a segment is what
// a slot takes of a block's part of a chunk.
//
// Launch: 1 to BLOCKS blocks, resident together on all ranks, of 256 threads (512: two_shot.cu): each is a ring of its
// own, and as many as fill a link. Staging must hold SLOTS slots a block. The larger they are, the fewer flags; they are no
// larger than MOST_OF_A_SLOT, so that what is sent is still in the receiver's cache when it is read.
//
//     step of a segment     0        1 .. n-2      n-1             n .. 2n-3         2n-2
//     rank r                send     fold, send    fold, finish,   keep, send on     keep
//                                                  keep, send
//     its chunk             r - 1 - step, modulo n
//
// Proof. Message m of a block is what its m-th send leaves in slot m modulo SLOTS of the rank after. `passed` of that
// rank is raised to m + 1 after the block has written it (sync_block(), release store), and awaited before it is read
// (acquire, sync_block()). `taken` of the rank before is raised to m + 1 after the block has read message m
// (sync_block(), release store: a store that comes after those loads), and message m + SLOTS is not written before that
// was seen. Both counters have one writer. Slots lie in the staging half of this call, so what an earlier call left
// there was read (pad.h); the counters carry `turn`, so what it left in them is smaller. Nobody waits in a circle: a
// rank waits for message m of the rank before, or for the rank after to take message m - SLOTS, both of which come
// before its own m-th send; the first is waited for by nobody. In place: input of a chunk is read up to step n - 1 and
// its output written from then on, by the same block.
#include "lines.h"
#include "meet.h"

constexpr u32 SLOTS = 2;
constexpr u64 MOST_OF_A_SLOT = 128 << 10; // bytes

// One step of one segment: what is received, if anything, and where it goes, where not null. A is what folds carry and
// P what is sent of it.
template <class T, class P, class A>
struct Step {
    static constexpr u32 LANES = Line<T>::LANES;
    typedef Partials<P, LANES> Sent;
    // Lines that a thread loads before it folds the first of them, as many as are 128 bytes with what is received of
    // them and 32 elements: so many loads overlap, and the instructions that fold are there once. The same where nothing
    // is folded.
    static constexpr u32 MANY = 128 / (sizeof(Line<T>) + sizeof(Sent)), FEW = MANY < 32 / LANES ? MANY : 32 / LANES;
    static constexpr u32 LINES = SIDE_BY_SIDE || FEW == 0 ? 1 : FEW;
    static constexpr u32 KEPT = SIDE_BY_SIDE ? 1 : 4;

    DEVICE static void fold(const Collective& args, const char* received, const T* own, T* to, char* send, u64 length,
                            bool last) {
        void* const nowhere[] = {nullptr};
        const Folding folding = {&args.from, nowhere, 1, 1, args.operation, args.world, args.factor};
        const u64 step = (u64)threads() * LANES, whole = to_line(own) == 0 ? length / LANES * LANES : 0;
        for (u64 first = (u64)thread() * LANES; first < length; first += LINES * step) {
            Raw<Line<T>> lines[LINES] = {};
            Raw<Sent> sent[LINES] = {};
#pragma unroll
            for (u32 i = 0; i < LINES && LINES > 1; ++i) {
                if (first + i * step < whole) take(lines[i], *(const Raw<Line<T>>*)(own + first + i * step));
                if (received != nullptr && first + i * step < length)
                    take(sent[i], *(const Raw<Sent>*)(received + (first + i * step) * sizeof(P)));
            }
#pragma unroll 1
            for (u32 which = 0; which < LINES; ++which) {
                const u64 i = first + which * step;
                if (i >= length) break;
                const u32 count = length - i < LANES ? (u32)(length - i) : LANES;
                if (i >= whole || LINES == 1) lines[0] = raw(load_line<Line<T>>(own + i, count));
                const Line<T> line = formed(lines[0]);
                A values[LANES];
#pragma unroll
                for (u32 lane = 0; lane < LANES; ++lane) values[lane] = widen<A>(line.lane[lane]);
                taken_in(folding, values);
                if (received != nullptr) {
                    if (LINES == 1) take(sent[0], *(const Raw<Sent>*)(received + i * sizeof(P)));
                    const Sent partials = formed(sent[0]);
                    A before[LANES];
#pragma unroll
                    for (u32 lane = 0; lane < LANES; ++lane) before[lane] = (A)partials.lane[lane];
                    combine(args.operation, before, values);
#pragma unroll
                    for (u32 lane = 0; lane < LANES; ++lane) values[lane] = before[lane];
                }
                if (last) {
                    finished(folding, values);
                    Line<T> folded;
#pragma unroll
                    for (u32 lane = 0; lane < LANES; ++lane) narrow(folded.lane[lane], values[lane]);
                    store_line(to + i, folded, count);
                    take(*(Raw<Line<T>>*)(send + i * sizeof(T)), raw(folded));
                } else {
                    Sent partials;
#pragma unroll
                    for (u32 lane = 0; lane < LANES; ++lane) partials.lane[lane] = (P)values[lane];
                    take(*(Raw<Sent>*)(send + i * sizeof(P)), raw(partials));
                }
#pragma unroll
                for (u32 next = 1; next < LINES; ++next) {
                    take(lines[next - 1], lines[next]);
                    take(sent[next - 1], sent[next]);
                }
            }
        }
    }

    DEVICE static void keep(const char* received, T* to, char* send, u64 length) {
        const u64 step = (u64)threads() * LANES;
        for (u64 first = (u64)thread() * LANES; first < length; first += KEPT * step) {
            Packet lines[KEPT] = {};
#pragma unroll
            for (u32 i = 0; i < KEPT; ++i)
                if (first + i * step < length)
                    take(lines[i], *(const Packet*)(received + (first + i * step) * sizeof(T)));
#pragma unroll 1
            for (u32 which = 0; which < KEPT; ++which) {
                const u64 i = first + which * step;
                if (i >= length) break;
                Line<T> line;
                memcpy(&line, &lines[0], sizeof line);
                store_line(to + i, line, length - i < LANES ? (u32)(length - i) : LANES);
                if (send != nullptr) take(*(Packet*)(send + i * sizeof(T)), lines[0]);
#pragma unroll
                for (u32 next = 1; next < KEPT; ++next) take(lines[next - 1], lines[next]);
            }
        }
    }
};

// Waits for what a step needs, by the block's first thread. Whether it came; the same for all threads.
DEVICE bool await_step(const Collective& args, const Turn& turn, Met& met, u32 before, [[maybe_unused]] u32 after,
                       u32 received, [[maybe_unused]] u32 sent, [[maybe_unused]] bool sends) {
    if (thread() == 0) {
        Pad* const pad = pad_of(args, args.rank);
        u32 ended = REACHED;
        if (received > 0) ended = await_counter(args, turn, RECEIVING, before, &pad->passed[block()], received);
#if !defined(PLANTED_NOT_TAKEN)
        if (ended == REACHED && sends && sent >= SLOTS)
            ended = await_counter(args, turn, SENDING, after, &pad->taken[block()], sent - SLOTS + 1);
#endif
        met.step = ended;
    }
    sync_block();
    return met.step == REACHED;
}

// Tells the ranks beside this one how many messages have been passed on and taken, where that is not 0. By two threads, so
// that one store does not wait for the other's fence.
DEVICE void say(const Collective& args, const Turn& turn, u32 passed, u32 taken) {
    const u32 n = args.world, before = (args.rank + n - 1) % n, after = (args.rank + 1) % n;
    if (passed != 0 && thread() == 0) publish(&pad_of(args, after)->passed[block()], counter_of(turn.turn, passed));
    if (taken != 0 && thread() == threads() / 2)
        publish(&pad_of(args, before)->taken[block()], counter_of(turn.turn, taken));
}

template <class T, class P, class A>
DEVICE void go_round(const Collective& args, const Turn& turn, Met& met) {
    typedef Step<T, P, A> Step;
    constexpr u32 LANES = Line<T>::LANES;
    const u32 n = args.world, before = (args.rank + n - 1) % n, after = (args.rank + 1) % n;
    // Chunks are dealt as the fold order has them, by single elements; so there are two lengths of them.
    const Range first = part_of_block(part_of(args.elements, 1, n, 0), LANES);
    const Range last = part_of_block(part_of(args.elements, 1, n, n - 1), LANES);
    const u64 longer = first.end - first.begin, shorter = last.end - last.begin, longest = longer > shorter ? longer : shorter;
    const u64 share = args.half / blocks() / SLOTS / 16 * 16, slot = share < MOST_OF_A_SLOT ? share : MOST_OF_A_SLOT;
    const u64 segment = slot / sizeof(P) / LANES * LANES;
    const u32 segments = (u32)((longest + segment - 1) / segment);
    const u64 slots = (u64)block() * SLOTS * slot;
    const char* const receiving = staging_of(args, turn, args.rank) + slots;
    char* const sending = staging_of(args, turn, after) + slots;
    u32 sent = 0, received = 0;
    bool well = true;
    for (u32 turns = 0; well && turns < segments; ++turns) {
        for (u32 step = 0; well && step <= 2 * n - 2; ++step) {
            const bool receives = step > 0, sends = step < 2 * n - 2;
            const u32 which = (2 * n + args.rank - 1 - step % n) % n;
            const Range chunk = part_of_block(part_of(args.elements, 1, n, which), LANES);
            const u64 begin = chunk.begin + turns * segment, rest = chunk.end > begin ? chunk.end - begin : 0;
            const u64 length = rest < segment ? rest : segment;
            well = await_step(args, turn, met, before, after, receives ? received + 1 : 0, sent, sends);
            if (well) {
                AT(FOLDING, args.rank);
                const char* const got = receives ? receiving + received % SLOTS * slot : nullptr;
                char* const send = sends ? sending + sent % SLOTS * slot : nullptr;
                T* const to = (T*)args.to + begin;
                if (step < n) Step::fold(args, got, (const T*)args.from + begin, to, send, length, step == n - 1);
                else Step::keep(got, to, send, length);
            }
            sync_before_publishing();
            if (well) say(args, turn, sends ? sent + 1 : 0, receives ? received + 1 : 0);
            else say(args, turn, GAVE_UP, GAVE_UP);
            received += receives;
            sent += sends;
        }
    }
}

template <class T>
DEVICE void ring(const Collective& args, Met& met) {
    typedef typename Carried<T>::Value Value;
    typedef typename Carried<T>::Average Average;
    const Turn turn = begin(args, met);
    if (enter(args, turn, met)) {
        if (args.world == 1) {
            void* const to[] = {args.to};
            const Folding folding = {&args.from, to, 1, 1, args.operation, 1, args.factor};
            fold_range<T>(folding, part_of_block({0, args.elements}, Line<T>::LANES));
        } else if (args.operation == AVG && !Same<Value, Average>::VALUE) {
            if constexpr (!Same<Value, Average>::VALUE) go_round<T, Average, Average>(args, turn, met);
        } else {
            go_round<T, typename Partial<T>::Value, Value>(args, turn, met);
        }
    } else {
        say(args, turn, GAVE_UP, GAVE_UP);
    }
    leave(args, turn, met, 0);
}

#define RING(name, T)                                                                                                  \
    KERNEL(ring_##name, Collective) {                                                                                  \
        SHARED Met met;                                                                                                \
        ring<T>(args, met);                                                                                            \
    }
TYPES(RING)
