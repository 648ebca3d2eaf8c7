// SPDX-License-Identifier: MPL-2.0
//
// A batch of samples that lie in device memory: the rows, and the labels, that an order names, one after the other. Bytes
// are moved as they are, whatever their type.
//
// Bytes moved: those of the rows, each read once and written once, and 12 a row for its number and its label.
// Launch: any shape; a block has whole rows, whose bytes its threads read side by side. 64 threads a block, since a row is
// short, and each has a few of its lines.
#include "part.h"

struct Pick {
    const void* inputs; // of all samples, in rows of `bytes` bytes
    const u32* labels;  // of all samples
    const u32* order;   // the numbers of those that are picked
    void* to;           // their rows
    u32* to_labels;
    u64 rows; // how many
    u64 bytes;
};

KERNEL(pick, Pick) {
    for (u64 row = block(); row < args.rows; row += blocks()) {
        const u64 sample = args.order[row];
        void* const to[] = {(char*)args.to + row * args.bytes};
        copy_range((const char*)args.inputs + sample * args.bytes, to, 1, {0, args.bytes});
        if (thread() == 0) args.to_labels[row] = args.labels[sample];
    }
}
