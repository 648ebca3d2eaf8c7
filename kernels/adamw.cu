// SPDX-License-Identifier: MPL-2.0
//
// Adam with decoupled weight decay, on weights in float. In step t, with gradient g:
//
//   m = beta1 m + (1 - beta1) g;  v = beta2 v + ((1 - beta2) g) g;
//   weight = weight x keep - pace x (m / (sqrt(v) / root + epsilon)),
//   keep = 1 - rate x decay,  pace = rate / (1 - beta1^t),  root = sqrt(1 - beta2^t).
//
// What does not depend on t are arguments. What does is computed on the device, once a step, by adamw_begin, so that a
// graph that was captured once counts its steps. All is rounded as `optim::AdamW` rounds it (factors in double, then
// once to float; products, sums, quotients and roots one by one): with gradients in float and no loss scale, the bits
// are those of the CPU. Gradients are divided by the scale of the loss first; where the step is skipped, nothing
// changes, and t does not either. The new weights are stored in f16 or bf16 too, if a copy is wanted, in the same pass.
//
// Bytes moved per weight: 24, the size of its gradient, and 2 for a copy.
// Launch: adamw_begin one thread, before the others of its step; adamw_* any shape, as the fold; a thread has 8 weights
// at a time.
#include "update.h"

// The step, in device memory.
struct AdamWStep {
    double beta1_power; // beta1^t; 1 before the first step
    double beta2_power;
    float pace;
    float root;
};

struct AdamWBegin {
    AdamWStep* step;
    const Scaling* scaling; // or null
    float rate;
    float beta1;
    float beta2;
    u32 unused;
};

struct AdamW {
    float* weights;
    float* moments; // m; zero before the first step
    float* squares; // v; zero before the first step
    const void* gradients;
    void* copy; // or null
    const AdamWStep* step;
    const Scaling* scaling; // or null
    u64 elements;
    float beta1;
    float beta2;
    float first;  // 1 - beta1
    float second; // 1 - beta2
    float keep;
    float epsilon;
    u32 copy_type;
    u32 unused;
};

KERNEL(adamw_begin, AdamWBegin) {
    if (block() != 0 || thread() != 0 || is_skipped(args.scaling)) return;
    AdamWStep step = *args.step;
    step.beta1_power = step.beta1_power * (double)args.beta1;
    step.beta2_power = step.beta2_power * (double)args.beta2;
    step.pace = (float)((double)args.rate / (1.0 - step.beta1_power));
    step.root = (float)square_root(1.0 - step.beta2_power);
    *args.step = step;
}

template <class T>
DEVICE void adamw(const AdamW& args) {
    if (is_skipped(args.scaling)) return;
    const float pace = args.step->pace, root = args.step->root;
    const u32 off_line = to_line(args.weights) | to_line(args.moments) | to_line(args.squares) |
                         to_line(args.gradients) | to_line(args.copy);
    each<UPDATED>(args.elements, off_line == 0, [&](Few few) {
        float weights[UPDATED], moments[UPDATED], squares[UPDATED], gradients[UPDATED];
        take(weights, args.weights, few);
        take(moments, args.moments, few);
        take(squares, args.squares, few);
        take_gradients<T>(gradients, args.gradients, args.scaling, few);
#pragma unroll
        for (u32 lane = 0; lane < UPDATED; ++lane) {
            const float gradient = gradients[lane];
            moments[lane] = args.beta1 * moments[lane] + args.first * gradient;
            squares[lane] = args.beta2 * squares[lane] + args.second * gradient * gradient;
            const float size = square_root(squares[lane]) / root + args.epsilon;
            weights[lane] = weights[lane] * args.keep - pace * (moments[lane] / size);
        }
        give(args.moments, few, moments);
        give(args.squares, few, squares);
        give_weights(args.weights, args.copy, args.copy_type, few, weights);
    });
}

#define ADAMW(name, T)                                                                                                 \
    KERNEL(adamw_##name, AdamW) { adamw<T>(args); }
FLOATS(ADAMW)
