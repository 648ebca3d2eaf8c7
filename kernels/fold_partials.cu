// SPDX-License-Identifier: MPL-2.0
//
// The fold on one device where some of the sources, or of the destinations, hold *partials*: values as folds carry
// them, in f32 for f16 and bf16 and in 64 bits for averages of integers; of all else the elements themselves, cut off.
// It is what a program does that folds in several steps. fold.cu has the fold of elements alone.
//
// to = from[0] op from[1] op .., in the order given. What is stored as a partial is neither rounded nor divided;
// elements are, once. An element is multiplied (PREMUL) when it is taken in, a partial is not: its elements were. A
// destination may be one of the sources, of the same kind.
//
// Bytes moved per element: its size, or that of a partial, for each source and destination. No flags.
// Launch: as fold.cu.
#include "lines.h"

struct FoldPartials {
    const void* from[SOURCES];
    void* to[SOURCES];
    u64 elements;
    u64 factor;       // of PREMUL, by its bits
    u32 sources;      // 1 to SOURCES
    u32 destinations; // 1 to SOURCES
    u32 operation;
    u32 ranks;        // what AVG divides by
    u32 partial_from; // bit i: source i holds partials
    u32 partial_to;   // bit i: destination i holds partials
};

// P is what partials are kept as, A what they are folded as.
template <class T, class P, class A>
DEVICE void fold_lines_of(const FoldPartials& args) {
    constexpr u32 LANES = Line<T>::LANES;
    typedef Partials<P, LANES> Kept;
    const Folding folding = {args.from,      args.to,    args.sources, args.destinations,
                             args.operation, args.ranks, args.factor};
    const Range range = part_of_block({0, args.elements}, LANES);
    for (u64 i = range.begin + (u64)thread() * LANES; i < range.end; i += (u64)threads() * LANES) {
        const u32 count = range.end - i < LANES ? (u32)(range.end - i) : LANES;
        A values[LANES] = {}, next[LANES];
#pragma unroll 1
        for (u32 source = 0; source < args.sources; ++source) {
            if (args.partial_from >> source & 1) {
                const Kept kept = load_line<Kept>((const P*)args.from[source] + i, count);
#pragma unroll
                for (u32 lane = 0; lane < LANES; ++lane) next[lane] = (A)kept.lane[lane];
            } else {
                const Line<T> line = load_line<Line<T>>((const T*)args.from[source] + i, count);
#pragma unroll
                for (u32 lane = 0; lane < LANES; ++lane) next[lane] = widen<A>(line.lane[lane]);
                taken_in(folding, next);
            }
            if (source == 0) {
#pragma unroll
                for (u32 lane = 0; lane < LANES; ++lane) values[lane] = next[lane];
            } else {
                combine(args.operation, values, next);
            }
        }
#pragma unroll 1
        for (u32 destination = 0; destination < args.destinations; ++destination) {
            if (!(args.partial_to >> destination & 1)) continue;
            Kept kept;
#pragma unroll
            for (u32 lane = 0; lane < LANES; ++lane) kept.lane[lane] = (P)values[lane];
            store_line((P*)args.to[destination] + i, kept, count);
        }
        finished(folding, values);
        Line<T> line;
#pragma unroll
        for (u32 lane = 0; lane < LANES; ++lane) narrow(line.lane[lane], values[lane]);
#pragma unroll 1
        for (u32 destination = 0; destination < args.destinations; ++destination)
            if (!(args.partial_to >> destination & 1)) store_line((T*)args.to[destination] + i, line, count);
    }
}

template <class T>
DEVICE void fold_partials(const FoldPartials& args) {
    typedef typename Carried<T>::Value Value;
    typedef typename Carried<T>::Average Average;
    if constexpr (!Same<Value, Average>::VALUE) {
        if (args.operation == AVG) return fold_lines_of<T, Average, Average>(args);
    }
    fold_lines_of<T, typename Partial<T>::Value, Value>(args);
}

#define FOLD_PARTIALS(name, T)                                                                                         \
    KERNEL(fold_partials_##name, FoldPartials) { fold_partials<T>(args); }
TYPES(FOLD_PARTIALS)
