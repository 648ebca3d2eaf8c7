// SPDX-License-Identifier: MPL-2.0
//
// What updates of parameters share (sgd.cu, adamw.cu): gradients in, and a copy of the new weights in 16 bits out.
#pragma once

#include "scaling.h"

// Of what type the copy is.
enum Copy : u32 {
    NO_COPY = 0,
    COPY_F16 = 1,
    COPY_BF16 = 2,
};

// Elements that a thread has at a time: those of a line of the narrowest type that may be there.
constexpr u32 UPDATED = 8;

// Gradients in floats, divided by the scale of the loss, if there is one.
template <class T>
DEVICE void take_gradients(float (&gradients)[UPDATED], const void* from, const Scaling* scaling, Few few) {
    take(gradients, (const T*)from, few);
    if (scaling == nullptr) return;
    const float scale = scaling->scale;
#pragma unroll
    for (u32 lane = 0; lane < UPDATED; ++lane) gradients[lane] = gradients[lane] / scale;
}

// Weights, and their copy.
DEVICE void give_weights(float* to, void* copy, u32 type, Few few, const float (&weights)[UPDATED]) {
    give(to, few, weights);
    if (type == COPY_F16) give((f16*)copy, few, weights);
    if (type == COPY_BF16) give((bf16*)copy, few, weights);
}
