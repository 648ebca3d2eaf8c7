// SPDX-License-Identifier: MPL-2.0
//
// One access after the other, byte by byte.
#include "shared.h"

#include <algorithm>

#include "../module/module.h"
#include "random.h"

namespace host::strict {

bool Shared::resize(size_t bytes) {
    bytes_.reset(static_cast<Byte*>(std::calloc(std::max<size_t>(bytes, 1), sizeof(Byte))));
    return bytes_ != nullptr;
}

bool Shared::ordered(const Moment& before, const Moment& now) {
    if (before.thread == now.thread || before.of_block != now.of_block) return true;
    return before.thread / WARP == now.thread / WARP && before.of_warp != now.of_warp;
}

Seen Shared::touch(Byte& byte, const Access& access, Moment now) {
    if (byte.written.of_block != 0 && !ordered(byte.written, now))
        return {true, false, byte.written.thread, true, byte.written_from};
    const bool same_warp = byte.read.thread / WARP == now.thread / WARP;
    // What was read before the barriers that both have passed does not count any more.
    if (byte.read.of_block != now.of_block) byte.readers = NONE;
    else if (same_warp && byte.readers != MANY && byte.read.of_warp != now.of_warp) byte.readers = NONE;
    if ((access.how & WRITES) == 0) {
        if (byte.readers == NONE) byte.readers = ONE;
        else if (!same_warp) byte.readers = MANY;
        else if (byte.readers == ONE && byte.read.thread != now.thread) byte.readers = OF_ONE_WARP;
        byte.read = now;
        byte.read_from = access.from;
        return {};
    }
    if (byte.readers > ONE || (byte.readers == ONE && byte.read.thread != now.thread))
        return {true, false, byte.read.thread, false, byte.read_from};
    byte.readers = NONE;
    byte.written = now;
    byte.written_from = access.from;
    return {};
}

Seen Shared::access(char* memory, size_t offset, const Access& access, Moment now, uint64_t seed) {
    begin_ = std::min(begin_, offset);
    end_ = std::max(end_, offset + access.bytes);
    Seen seen;
    for (size_t i = 0; i < access.bytes; ++i) {
        Byte& byte = bytes_[offset + i];
        if (!byte.has_value && (access.how & (WRITES | READS)) != WRITES) {
            memory[i] = static_cast<char>(mixed(seed + offset + i));
            seen.unwritten = true;
        }
        byte.has_value = true;
        if ((access.how & ATOMIC) != 0) continue;
        const Seen of_byte = touch(byte, access, now);
        if (of_byte.race && !seen.race) {
            const bool unwritten = seen.unwritten;
            seen = of_byte;
            seen.unwritten = unwritten;
        }
    }
    return seen;
}

} // namespace host::strict
