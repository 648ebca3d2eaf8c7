// SPDX-License-Identifier: MPL-2.0
//
// Stochastic gradient descent with momentum, on weights in float: velocity = momentum x velocity + gradient; weight =
// weight - rate x velocity. Products, sums and differences are rounded one by one, as `optim::Sgd` does: with gradients
// in float and no loss scale, the bits are those of the CPU.
//
// Gradients are divided by the scale of the loss first; where the step is skipped, nothing changes (scaling.h). The new
// weights are stored in f16 or bf16 too, if a copy is wanted, in the same pass.
//
// Bytes moved per weight: 16, the size of its gradient, and 2 for a copy.
// Launch: any shape, as the fold; a thread has 8 weights at a time.
#include "update.h"

struct Sgd {
    float* weights;
    float* velocities; // zero before the first step
    const void* gradients;
    void* copy;             // or null
    const Scaling* scaling; // or null
    u64 elements;
    float rate;
    float momentum;
    u32 copy_type;
    u32 unused;
};

template <class T>
DEVICE void sgd(const Sgd& args) {
    if (is_skipped(args.scaling)) return;
    const u32 off_line =
        to_line(args.weights) | to_line(args.velocities) | to_line(args.gradients) | to_line(args.copy);
    each<UPDATED>(args.elements, off_line == 0, [&](Few few) {
        float weights[UPDATED], velocities[UPDATED], gradients[UPDATED];
        take(weights, args.weights, few);
        take(velocities, args.velocities, few);
        take_gradients<T>(gradients, args.gradients, args.scaling, few);
#pragma unroll
        for (u32 lane = 0; lane < UPDATED; ++lane) {
            velocities[lane] = args.momentum * velocities[lane] + gradients[lane];
            weights[lane] = weights[lane] - args.rate * velocities[lane];
        }
        give(args.velocities, few, velocities);
        give_weights(args.weights, args.copy, args.copy_type, few, weights);
    });
}

#define SGD(name, T)                                                                                                   \
    KERNEL(sgd_##name, Sgd) { sgd<T>(args); }
FLOATS(SGD)
