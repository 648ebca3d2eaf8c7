// SPDX-License-Identifier: MPL-2.0
//
// The loss of classification: softmax and negative log-likelihood in one, and the gradient of the logits. The formulas
// and orders are those of `Tensor::cross_entropy` on the CPU; exponential and logarithm are those of exponential.h.
//
// A row: g is its greatest logit (NaN is passed over); d = logit - g; e = exponential(d); s the sum of e in the order of
// the classes, in float; softmax = e / s; loss = logarithm(s) - d[label]; gradient = (softmax - 1 at the label) x f, f
// the scale of the loss divided by the denominator. The label of no class has a loss of NaN, and nowhere a 1 to
// subtract.
//
// Bytes moved: per logit its size four times (twice from cache, as long as rows fit there). Exponentials are computed
// twice rather than kept.
// Launch: any shape; a thread has whole rows, so that their sums have one order, and reads some classes of one at a time.
// That is for the tens of classes of a classifier; 64 threads a block, since rows are few. The losses are added where they
// are read, by the host: here one thread would add them, while the step waits.
#include "exponential.h"
#include "scaling.h"

struct CrossEntropy {
    const void* logits;     // rows x classes
    const u32* labels;      // rows
    float* losses;          // rows
    const Scaling* scaling; // or null
    void* to;               // their gradient, rows x classes; it may be the logits
    u64 rows;
    u64 classes;
    float denominator;
    u32 unused;
};

// Calls `body` with each class of a row and its logit, in their order.
template <class T, class Body>
DEVICE void each_class(const T* logits, u64 classes, Body body) {
    constexpr u32 FEW = 8;
    for (u64 first = 0; first < classes; first += FEW) {
        const u32 count = classes - first < FEW ? (u32)(classes - first) : FEW;
        float few[FEW];
#pragma unroll
        for (u32 i = 0; i < FEW; ++i) few[i] = i < count ? widen<float>(logits[first + i]) : 0.0f;
#pragma unroll
        for (u32 i = 0; i < FEW; ++i) {
            if (i < count) body(first + i, few[i]);
        }
    }
}

template <class T>
DEVICE void cross_entropy(const CrossEntropy& args) {
    const float factor = scale_of(args.scaling) / args.denominator;
    each_one(args.rows, [&](u64 row) {
        const T* const logits = (const T*)args.logits + row * args.classes;
        T* const to = (T*)args.to + row * args.classes;
        const u64 label = args.labels[row];
        float greatest = float_of_bits(0xff800000u);
        each_class(logits, args.classes, [&](u64, float logit) { greatest = logit > greatest ? logit : greatest; });
        float sum = 0.0f, own = float_of_bits(0x7fc00000u);
        each_class(logits, args.classes, [&](u64 i, float logit) {
            const float difference = logit - greatest;
            if (i == label) own = difference;
            sum += exponential(difference);
        });
        narrow(args.losses[row], logarithm(sum) - own);
        each_class(logits, args.classes, [&](u64 i, float logit) {
            const float softmax = exponential(logit - greatest) / sum;
            narrow(to[i], (softmax - (i == label ? 1.0f : 0.0f)) * factor);
        });
    });
}

#define CROSS_ENTROPY(name, T)                                                                                         \
    KERNEL(cross_entropy_##name, CrossEntropy) { cross_entropy<T>(args); }
FLOATS(CROSS_ENTROPY)
