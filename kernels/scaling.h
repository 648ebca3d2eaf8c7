// SPDX-License-Identifier: MPL-2.0
//
// The state of dynamic loss scaling: words in device memory, so that a graph which was captured once goes on with what
// they have become. loss_scale.cu says how they change.
#pragma once

#include "lanes.h"

struct Scaling {
    float scale;  // what losses are multiplied by before the backward pass, and gradients divided by after it
    u32 overflow; // not 0: a gradient of this step is infinite or no number, and nothing is to be updated
    u32 steps;    // steps since the scale has changed
    u32 skipped;  // steps that updated nothing, in all
};

// Of a null pointer: losses are not scaled, and no step is skipped.
DEVICE float scale_of(const Scaling* scaling) { return scaling == nullptr ? 1.0f : scaling->scale; }
DEVICE bool is_skipped(const Scaling* scaling) { return scaling != nullptr && scaling->overflow != 0; }
