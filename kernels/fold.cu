// SPDX-License-Identifier: MPL-2.0
//
// The fold on one device: to = from[0] op from[1] op .., in the order given, one rounding at the end, stored to each of
// several destinations. A destination may be one of the sources (dst = op(dst, src)), at the same alignment.
//
// Bytes moved per element: its size times (sources + destinations). No flags.
// Launch: any shape; each block has one contiguous part. 256 threads, and as many blocks as are resident, but not more
// than there are 4 lines a thread: fewer would idle, and a block more than are resident would only begin later.
#include "part.h"

struct Fold {
    const void* from[SOURCES];
    void* to[SOURCES];
    u64 elements;
    u64 factor; // of PREMUL, by its bits
    u32 sources;      // 1 to SOURCES
    u32 destinations; // 1 to SOURCES
    u32 operation;
    u32 ranks; // what AVG divides by
};

template <class T>
DEVICE void fold(const Fold& args) {
    const Folding folding = {args.from,         args.to,        args.sources, args.destinations,
                             args.operation, args.ranks, args.factor};
    fold_range<T>(folding, part_of_block({0, args.elements}, Line<T>::LANES));
}

#define FOLD(name, T)                                                                                                  \
    KERNEL(fold_##name, Fold) { fold<T>(args); }
TYPES(FOLD)
