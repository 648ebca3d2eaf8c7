// SPDX-License-Identifier: MPL-2.0
//
// The types for which this program has kernels: two, which every path of a kernel is taken for. (tests/kernels_bits.rs
// has all of them.)
#pragma once

#if defined(PLANTED)
#define TYPES(X) X(f32, float)
#else
#define TYPES(X)                                                                                                       \
    X(f32, float)                                                                                                      \
    X(bf16, bf16)
#endif
