// SPDX-License-Identifier: MPL-2.0
//
// A block's part of the work: how elements are dealt, and how a block folds or copies a range of them.
//
// Ranges are dealt in order, as even as can be, the longer parts first, in units of 16 bytes, so that what is aligned
// stays so. Of its part a block moves lines of 16 bytes, consecutive threads consecutive lines; elements before the first
// whole line and after the last go one by one. Lines are those of the first destination: where another buffer is not
// aligned as that one is, all of the part goes one by one, which is slow and right.
//
// What memory takes to answer is a microsecond, in which it could move some megabytes: so a thread loads several lines
// before it uses the first of them. Many threads would do as well, but blocks that wait for peers are few.
//
// On the host a thread's elements lie side by side instead, and are folded by vectors however they are aligned.
//
// Every thread stores what it has itself folded from what lies at the same index: so a destination may be one of the
// sources.
#pragma once

#include "operations.h"

// The most sources, and the most destinations, of a launch of fold.cu and fold_partials.cu.
constexpr u32 SOURCES = 16;

struct Range {
    u64 begin, end;
};

// Part `index` of `elements`, dealt to `parts` in units of `unit` elements.
DEVICE Range part_of(u64 elements, u32 unit, u32 parts, u32 index) {
    const u64 units = (elements + unit - 1) / unit;
    const u64 each = units / parts, longer = units % parts;
    const u64 before = index * each + (index < longer ? index : longer);
    const u64 begin = before * unit, end = (before + each + (index < longer ? 1 : 0)) * unit;
    return {begin < elements ? begin : elements, end < elements ? end : elements};
}

// This block's part of a range.
DEVICE Range part_of_block(Range range, u32 unit) {
    const Range mine = part_of(range.end - range.begin, unit, blocks(), block());
    return {range.begin + mine.begin, range.begin + mine.end};
}

// This thread's part of a range, where a thread's elements lie side by side. The last threads come first: of a small
// range they have all, so that a missing sync_block() behind it is noticed.
DEVICE Range part_of_thread(Range range, u32 unit) {
    const Range mine = part_of(range.end - range.begin, unit, threads(), threads() - 1 - thread());
    return {range.begin + mine.begin, range.begin + mine.end};
}

// Where the elements of a fold are, by the addresses of element 0, and what becomes of them.
struct Folding {
    const void* const* from; // in the order of the fold
    void* const* to;
    u32 sources;
    u32 destinations;
    u32 operation;
    u32 ranks;  // what AVG divides by
    u64 factor; // of PREMUL, by its bits
};

// Bytes from an address up to the next line.
DEVICE u32 to_line(const void* address) { return (u32)(-(u64)address & 15); }

// Whether all buffers lie as the first destination does.
DEVICE bool lie_alike(const Folding& folding) {
    u32 differing = 0;
#pragma unroll 1
    for (u32 i = 0; i < folding.sources; ++i) differing |= to_line(folding.from[i]) ^ to_line(folding.to[0]);
#pragma unroll 1
    for (u32 i = 1; i < folding.destinations; ++i) differing |= to_line(folding.to[i]) ^ to_line(folding.to[0]);
    return differing == 0;
}

// Elements as a fold begins with them or takes them in.
template <class A, u32 LANES>
DEVICE void taken_in(const Folding& folding, A (&values)[LANES]) {
    if (folding.operation != PREMUL) return;
    A factor;
    factor_of_bits(factor, folding.factor);
#pragma unroll
    for (u32 lane = 0; lane < LANES; ++lane) values[lane] = product(values[lane], factor);
}

// The fold's values as they are stored, before they are rounded.
template <class A, u32 LANES>
DEVICE void finished(const Folding& folding, A (&values)[LANES]) {
    if (folding.operation != AVG) return;
    const A divisor = (A)folding.ranks;
#pragma unroll
    for (u32 lane = 0; lane < LANES; ++lane) values[lane] = values[lane] / divisor;
}

#if defined(PLANTED_ZERO_START)
constexpr bool FROM_ZERO = true;
#else
constexpr bool FROM_ZERO = false;
#endif

// Sources whose lines a thread has on the way at once: so many loads overlap, and the instructions that fold are there
// once.
constexpr u32 AHEAD = 2;

// Folds up to `LINES` lines of T that lie from `element` on: number `first` and others after it, `step` lines apart, as
// far as there are so many `lines`.
template <class T, class A, u32 LINES>
DEVICE void fold_lines(const Folding& folding, u64 element, u64 first, u64 step, u64 lines) {
    constexpr u32 LANES = Line<T>::LANES;
    typedef Raw<Line<T>> Loaded;
    A values[LINES][LANES] = {};
#pragma unroll 1
    for (u32 source = 0; source < folding.sources; source += AHEAD) {
        Loaded loaded[AHEAD][LINES] = {};
#pragma unroll
        for (u32 ahead = 0; ahead < AHEAD; ++ahead) {
            if (source + ahead >= folding.sources) continue;
            const Loaded* const from = (const Loaded*)((const T*)folding.from[source + ahead] + element) + first;
#pragma unroll
            for (u32 i = 0; i < LINES; ++i)
                if (first + i * step < lines) take(loaded[ahead][i], from[i * step]);
        }
#pragma unroll 1
        for (u32 which = source; which < source + AHEAD && which < folding.sources; ++which) {
#pragma unroll
            for (u32 i = 0; i < LINES; ++i) {
                const Line<T> line = formed(loaded[0][i]);
                A next[LANES];
#pragma unroll
                for (u32 lane = 0; lane < LANES; ++lane) next[lane] = widen<A>(line.lane[lane]);
                taken_in(folding, next);
                if (which == 0) {
#pragma unroll
                    for (u32 lane = 0; lane < LANES; ++lane)
                        values[i][lane] = FROM_ZERO ? sum(A(0), next[lane]) : next[lane];
                } else {
                    combine(folding.operation, values[i], next);
                }
            }
#pragma unroll
            for (u32 i = 0; i < LINES; ++i) take(loaded[0][i], loaded[AHEAD - 1][i]);
        }
    }
    Loaded folded[LINES];
#pragma unroll
    for (u32 i = 0; i < LINES; ++i) {
        finished(folding, values[i]);
        Line<T> line;
#pragma unroll
        for (u32 lane = 0; lane < LANES; ++lane) narrow(line.lane[lane], values[i][lane]);
        take(folded[i], raw(line));
    }
#pragma unroll 1
    for (u32 destination = 0; destination < folding.destinations; ++destination) {
        Loaded* const to = (Loaded*)((T*)folding.to[destination] + element) + first;
#pragma unroll
        for (u32 i = 0; i < LINES; ++i)
            if (first + i * step < lines) take(to[i * step], folded[i]);
    }
}

// Folds `COUNT` elements from number i on, wherever they lie.
template <class T, class A, u32 COUNT>
DEVICE void fold_elements(const Folding& folding, u64 i) {
    A values[COUNT] = {}, next[COUNT];
#pragma unroll 1
    for (u32 source = 0; source < folding.sources; ++source) {
        const T* const from = (const T*)folding.from[source] + i;
        widen_all(next, from);
        taken_in(folding, next);
        if (source == 0) {
#pragma unroll
            for (u32 lane = 0; lane < COUNT; ++lane) values[lane] = FROM_ZERO ? sum(A(0), next[lane]) : next[lane];
        } else {
            combine(folding.operation, values, next);
        }
    }
    finished(folding, values);
#pragma unroll 1
    for (u32 destination = 0; destination < folding.destinations; ++destination)
        narrow_all((T*)folding.to[destination] + i, values);
}

template <class Left, class Right>
struct Same {
    static constexpr bool VALUE = false;
};
template <class T>
struct Same<T, T> {
    static constexpr bool VALUE = true;
};

// Lines that a thread folds at once, so that loads overlap: four, if there is room for their values. There is less for
// those of 64 bits and integers of 16, whose arithmetic takes more registers beside them.
template <class T, class A>
struct Batch {
    static constexpr u32 REGISTERS = Line<T>::LANES * sizeof(A) / 4;
    static constexpr bool WIDE = sizeof(A) == 8 || (sizeof(T) == 2 && !Same<A, float>::VALUE);
    static constexpr u32 ROOM = WIDE ? 16 : 32;
    static constexpr u32 FITTING = REGISTERS < ROOM ? ROOM / REGISTERS : 1, LINES = FITTING < 4 ? FITTING : 4;
};

// What a thread folds whose elements lie side by side, as many at once as a few vectors hold.
template <class T, class A>
struct FoldSideBySide {
    static constexpr u32 COUNT = 128 / sizeof(A);
    const Folding& folding;
    Range range;

    DEVICE void operator()() const {
        u64 i = range.begin;
        for (; range.end - i >= COUNT; i += COUNT) fold_elements<T, A, COUNT>(folding, i);
        for (; i < range.end; ++i) fold_elements<T, A, 1>(folding, i);
    }
};

template <class T, class A>
DEVICE void fold_range_in(const Folding& folding, Range range) {
    if constexpr (SIDE_BY_SIDE) {
        with_vectors(FoldSideBySide<T, A>{folding, part_of_thread(range, FoldSideBySide<T, A>::COUNT)});
        return;
    }
    u64 i = range.begin;
    if (lie_alike(folding)) {
        const u64 head = range.begin + to_line((const T*)folding.to[0] + range.begin) / sizeof(T);
        for (i += thread(); i < head && i < range.end; i += threads()) fold_elements<T, A, 1>(folding, i);
        i = range.end;
        if (head < range.end) {
            constexpr u32 LINES = Batch<T, A>::LINES;
            const u64 lines = (range.end - head) / Line<T>::LANES;
            for (u64 line = thread(); line < lines; line += LINES * threads())
                fold_lines<T, A, LINES>(folding, head, line, threads(), lines);
            i = head + lines * Line<T>::LANES;
        }
    }
    for (i += thread(); i < range.end; i += threads()) fold_elements<T, A, 1>(folding, i);
}

// Folds a range of elements, by all threads of this block.
template <class T>
DEVICE void fold_range(const Folding& folding, Range range) {
    typedef typename Carried<T>::Value Value;
    typedef typename Carried<T>::Average Average;
    if constexpr (!Same<Value, Average>::VALUE) {
        if (folding.operation == AVG) return fold_range_in<T, Average>(folding, range);
    }
    fold_range_in<T, Value>(folding, range);
}

// A thread loads `AT_ONCE` words before it stores the first of them, so that loads overlap.
template <class Word, u32 AT_ONCE>
DEVICE void copy_words(const char* from, void* const* to, u32 destinations, u64 begin, u64 end) {
    if constexpr (SIDE_BY_SIDE) {
        const Range mine = part_of_thread({begin, end}, 64);
        for (u32 destination = 0; destination < destinations; ++destination)
            if (to[destination] != from)
                memcpy((char*)to[destination] + mine.begin, from + mine.begin, mine.end - mine.begin);
        return;
    }
    const u64 step = threads() * sizeof(Word);
    for (u64 first = begin + thread() * sizeof(Word); first < end; first += AT_ONCE * step) {
        Word words[AT_ONCE] = {};
#pragma unroll
        for (u32 i = 0; i < AT_ONCE; ++i)
            if (first + i * step < end) take(words[i], *(const Word*)(from + first + i * step));
#pragma unroll 1
        for (u32 destination = 0; destination < destinations; ++destination) {
            if (to[destination] == from) continue;
            char* const there = (char*)to[destination];
#pragma unroll
            for (u32 i = 0; i < AT_ONCE; ++i)
                if (first + i * step < end) take(*(Word*)(there + first + i * step), words[i]);
        }
    }
}

// Copies a range of bytes to several destinations, by all threads of this block; each byte is moved as it is. A
// destination that is the source is left as it is.
DEVICE void copy_range(const void* from, void* const* to, u32 destinations, Range range) {
    if (destinations == 0) return;
    u32 differing = 0;
    for (u32 i = 0; i < destinations; ++i) differing |= to_line(from) ^ to_line(to[i]);
    const char* const source = (const char*)from;
    // The widest word by which all of them are aligned alike.
    const u32 word = differing == 0 ? sizeof(Packet) : differing % 4 == 0 ? 4 : 1;
    const u64 head = range.begin + to_line(source + range.begin) % word;
    const u64 begin = head < range.end ? head : range.end;
    const u64 end = begin + (range.end - begin) / word * word;
    copy_words<u8, 1>(source, to, destinations, range.begin, begin);
    if (word == sizeof(Packet)) copy_words<Raw<Packet>, 8>(source, to, destinations, begin, end);
    else if (word == 4) copy_words<u32, 8>(source, to, destinations, begin, end);
    else copy_words<u8, 1>(source, to, destinations, begin, end);
    copy_words<u8, 1>(source, to, destinations, end, range.end);
}
