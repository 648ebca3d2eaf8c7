// SPDX-License-Identifier: MPL-2.0
//
// The loss of classification: softmax and negative log-likelihood in one. Forward, for each row of logits: its softmax,
// and the loss -log(softmax[label]); the mean of the losses; backward, the gradient of the logits. The formulas and
// orders are those of `Tensor::cross_entropy` on the CPU; exponential and logarithm are those of exponential.h.
//
// Forward, a row: g is its greatest logit (NaN is passed over); d = logit - g; e = exponential(d); s the sum of e in
// the order of the classes, in float; softmax = e / s; loss = logarithm(s) - d[label]. Mean: the sum of the losses in
// the order of the rows, in double, divided by `denominator`, rounded once. Backward: (softmax - 1 at the label) x f, f
// the scale of the loss divided by the denominator. The label of no class has a loss of NaN, and nowhere a 1 to
// subtract.
//
// Bytes moved: forward per logit its size three times (twice from cache, as long as rows fit there), and 12 of softmax;
// backward 4 and its size. `softmax` may be the logits, if those are floats, and `to` may be softmax.
// Launch: any shape; a thread has whole rows, so that their sums have one order. That is for the tens of classes of a
// classifier; 64 threads a block, since rows are few. The mean is one block's, whose threads read what one of them
// adds: by itself it would wait for memory row by row.
#include "exponential.h"
#include "scaling.h"

struct CrossEntropy {
    const void* logits; // rows x classes
    const u32* labels;  // rows
    float* softmax;     // rows x classes
    float* losses;      // rows
    u64 rows;
    u64 classes;
};

struct MeanLoss {
    const float* losses; // rows
    float* to;           // one
    u64 rows;
    float denominator;
    u32 unused;
};

struct CrossEntropyBackward {
    const float* softmax;   // rows x classes
    const u32* labels;      // rows
    const Scaling* scaling; // or null
    void* to;               // rows x classes
    u64 rows;
    u64 classes;
    float denominator;
    u32 unused;
};

template <class T>
DEVICE void cross_entropy(const CrossEntropy& args) {
    each_one(args.rows, [&](u64 row) {
        const T* const logits = (const T*)args.logits + row * args.classes;
        float* const softmax = args.softmax + row * args.classes;
        float greatest = float_of_bits(0xff800000u);
        for (u64 i = 0; i < args.classes; ++i) {
            const float logit = widen<float>(logits[i]);
            greatest = logit > greatest ? logit : greatest;
        }
        const u64 label = args.labels[row];
        float sum = 0.0f, own = float_of_bits(0x7fc00000u);
        for (u64 i = 0; i < args.classes; ++i) {
            const float difference = widen<float>(logits[i]) - greatest;
            if (i == label) own = difference;
            softmax[i] = exponential(difference);
            sum += softmax[i];
        }
        for (u64 i = 0; i < args.classes; ++i) narrow(softmax[i], softmax[i] / sum);
        narrow(args.losses[row], logarithm(sum) - own);
    });
}

template <class T>
DEVICE void cross_entropy_backward(const CrossEntropyBackward& args) {
    const float factor = scale_of(args.scaling) / args.denominator;
    each_one(args.rows, [&](u64 row) {
        const float* const softmax = args.softmax + row * args.classes;
        T* const to = (T*)args.to + row * args.classes;
        const u64 label = args.labels[row];
        for (u64 i = 0; i < args.classes; ++i) narrow(to[i], (softmax[i] - (i == label ? 1.0f : 0.0f)) * factor);
    });
}

#define CROSS_ENTROPY(name, T)                                                                                         \
    KERNEL(cross_entropy_##name, CrossEntropy) { cross_entropy<T>(args); }                                             \
    KERNEL(cross_entropy_backward_##name, CrossEntropyBackward) { cross_entropy_backward<T>(args); }
FLOATS(CROSS_ENTROPY)

// Losses that a block has read side by side, for the one thread that adds them.
struct Losses {
    float row[256];
};

KERNEL(mean_loss, MeanLoss) {
    SHARED Losses some;
    if (block() != 0) return;
    constexpr u32 MOST = sizeof(some.row) / sizeof(float);
    double sum = 0.0;
    for (u64 first = 0; first < args.rows; first += MOST) {
        const u32 count = args.rows - first < MOST ? (u32)(args.rows - first) : MOST;
        for (u32 i = thread(); i < count; i += threads()) some.row[i] = args.losses[first + i];
        sync_block();
        if (thread() == 0) {
#pragma unroll 8
            for (u32 i = 0; i < count; ++i) sum += (double)some.row[i];
        }
        sync_block();
    }
    if (thread() == 0) narrow(*args.to, (float)(sum / (double)args.denominator));
}
