// SPDX-License-Identifier: MPL-2.0
//
// Numbers drawn from a seed (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
#pragma once

#include <cstdint>

namespace host::strict {

inline uint64_t mixed(uint64_t number) {
    number = (number ^ number >> 30) * 0xbf58476d1ce4e5b9u;
    number = (number ^ number >> 27) * 0x94d049bb133111ebu;
    return number ^ number >> 31;
}

class Random {
public:
    explicit Random(uint64_t seed) : state_(seed) {}

    uint64_t next() { return mixed(state_ += 0x9e3779b97f4a7c15u); }
    // Below `bound`, which is not zero.
    uint32_t below(uint32_t bound) { return static_cast<uint32_t>((next() >> 32) * bound >> 32); }

private:
    uint64_t state_;
};

} // namespace host::strict
