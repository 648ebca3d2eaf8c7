// SPDX-License-Identifier: MPL-2.0
//
// Conversions between f16 and float by the processor's own instructions, which the compiler may not assume and, of
// several elements at a time, does not find by itself.
#pragma once

#include <cstdint>

namespace host {

// `count` elements, a multiple of 16. Narrowing rounds to nearest even and makes every NaN the canonical one.
struct Halves {
    void (*widen)(float* to, const uint16_t* from, uint32_t count);
    void (*narrow)(uint16_t* to, const float* from, uint32_t count);
};

// Those of this processor; null where it has none.
extern const Halves* const HALVES;

} // namespace host
