// SPDX-License-Identifier: MPL-2.0
//
// What instructions compute, as the PTX ISA has it. Where it leaves a result open, the one here is as good as any.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

namespace ptx {

using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;
using s8 = int8_t;
using s16 = int16_t;
using s32 = int32_t;
using s64 = int64_t;
using f32 = float;
using f64 = double;

template <class To, class From>
To bits_as(From value) {
    static_assert(sizeof(To) == sizeof(From));
    To bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

// Every NaN that is computed in f32 is this one.
inline f32 computed(f32 value) { return value != value ? bits_as<f32>(u32{0x7fffffff}) : value; }
template <class T>
T computed(T value) {
    return value;
}

// Integers wrap, whatever their sign.
struct Add {
    template <class T>
    static T of(T a, T b) {
        if constexpr (std::is_floating_point_v<T>) return computed(a + b);
        else return static_cast<T>(static_cast<u64>(a) + static_cast<u64>(b));
    }
};
struct Sub {
    template <class T>
    static T of(T a, T b) {
        if constexpr (std::is_floating_point_v<T>) return computed(a - b);
        else return static_cast<T>(static_cast<u64>(a) - static_cast<u64>(b));
    }
};
// Of integers, the low half.
struct Mul {
    template <class T>
    static T of(T a, T b) {
        if constexpr (std::is_floating_point_v<T>) return computed(a * b);
        else return static_cast<T>(static_cast<u64>(a) * static_cast<u64>(b));
    }
};
struct Div {
    template <class T>
    static T of(T a, T b) {
        if constexpr (std::is_floating_point_v<T>) return computed(a / b);
        else if (b == 0) return static_cast<T>(~T{0});
        else if (std::is_signed_v<T> && b == static_cast<T>(-1)) return Sub::of(T{0}, a);
        else return static_cast<T>(a / b);
    }
};
struct Rem {
    template <class T>
    static T of(T a, T b) {
        if (b == 0) return a;
        if (std::is_signed_v<T> && b == static_cast<T>(-1)) return 0;
        return static_cast<T>(a % b);
    }
};
struct Min {
    template <class T>
    static T of(T a, T b) {
        return b < a ? b : a;
    }
};
struct Max {
    template <class T>
    static T of(T a, T b) {
        return a < b ? b : a;
    }
};
struct And {
    template <class T>
    static T of(T a, T b) {
        return static_cast<T>(a & b);
    }
};
struct Or {
    template <class T>
    static T of(T a, T b) {
        return static_cast<T>(a | b);
    }
};
struct Xor {
    template <class T>
    static T of(T a, T b) {
        return static_cast<T>(a ^ b);
    }
};

// By as many as there are, at most.
struct Shl {
    template <class T>
    static T of(T a, u32 by) {
        return by >= 8 * sizeof(T) ? T{0} : static_cast<T>(static_cast<u64>(a) << by);
    }
};
struct Shr {
    template <class T>
    static T of(T a, u32 by) {
        if (by < 8 * sizeof(T)) return static_cast<T>(a >> by);
        return static_cast<T>(a < 0 ? -1 : 0);
    }
};

struct Neg {
    template <class T>
    static T of(T a) {
        return Sub::of(T{0}, a);
    }
};
struct Not {
    template <class T>
    static T of(T a) {
        return static_cast<T>(~a);
    }
};
struct SquareRoot {
    template <class T>
    static T of(T a) {
        return computed(std::sqrt(a));
    }
};

// Comparisons. Those without a "u" do not hold where there is a NaN; those with one do.
struct Eq {
    template <class T>
    static bool of(T a, T b) {
        return a == b;
    }
};
struct Ne {
    template <class T>
    static bool of(T a, T b) {
        if constexpr (std::is_floating_point_v<T>) return a < b || a > b;
        else return a != b;
    }
};
struct Lt {
    template <class T>
    static bool of(T a, T b) {
        return a < b;
    }
};
struct Le {
    template <class T>
    static bool of(T a, T b) {
        return a <= b;
    }
};
struct Gt {
    template <class T>
    static bool of(T a, T b) {
        return a > b;
    }
};
struct Ge {
    template <class T>
    static bool of(T a, T b) {
        return a >= b;
    }
};
struct Neu {
    template <class T>
    static bool of(T a, T b) {
        return !(a == b);
    }
};
struct Ltu {
    template <class T>
    static bool of(T a, T b) {
        return !(a >= b);
    }
};
struct Leu {
    template <class T>
    static bool of(T a, T b) {
        return !(a > b);
    }
};
struct Gtu {
    template <class T>
    static bool of(T a, T b) {
        return !(a <= b);
    }
};
struct Geu {
    template <class T>
    static bool of(T a, T b) {
        return !(a < b);
    }
};
struct Equ {
    template <class T>
    static bool of(T a, T b) {
        return !(a < b || a > b);
    }
};
struct Num {
    template <class T>
    static bool of(T a, T b) {
        return a == a && b == b;
    }
};
struct Nan {
    template <class T>
    static bool of(T a, T b) {
        return a != a || b != b;
    }
};

// `length` bits of a, put into b from bit `place` on.
template <class T>
T with_bits(T a, T b, u32 place, u32 length) {
    place &= 0xff;
    length &= 0xff;
    T result = b;
    for (u32 bit = 0; bit < length && place + bit < 8 * sizeof(T); ++bit) {
        const T one = static_cast<T>(T{1} << (place + bit));
        result = static_cast<T>((result & ~one) | ((a >> bit & 1) != 0 ? one : T{0}));
    }
    return result;
}

// Four of the eight bytes of a and b, by four bits each: which one, and whether its sign is wanted instead.
inline u32 chosen_bytes(u32 a, u32 b, u32 choice) {
    const u64 both = static_cast<u64>(b) << 32 | a;
    u32 result = 0;
    for (u32 place = 0; place < 4; ++place) {
        const u32 nibble = choice >> (4 * place) & 0xf;
        u32 byte = static_cast<u32>(both >> (8 * (nibble & 7)) & 0xff);
        if ((nibble & 8) != 0) byte = (byte & 0x80) != 0 ? 0xff : 0;
        result |= byte << (8 * place);
    }
    return result;
}

// binary16 to float, exactly.
inline f32 of_half(u16 half) {
    const u32 exponent = half >> 10 & 0x1f, fraction = half & 0x3ff;
    const f32 sign = (half & 0x8000) != 0 ? -1.0f : 1.0f;
    if (exponent == 0x1f) return fraction != 0 ? computed(std::nanf("")) : sign * std::numeric_limits<f32>::infinity();
    if (exponent == 0) return sign * std::ldexp(static_cast<f32>(fraction), -24);
    return sign * std::ldexp(static_cast<f32>(0x400 + fraction), static_cast<int>(exponent) - 25);
}

// Float to binary16, to nearest even: by counting in units of its last place.
inline u16 to_half(f32 value) {
    const u16 sign = (bits_as<u32>(value) & 0x80000000u) != 0 ? 0x8000 : 0;
    const f64 size = std::fabs(static_cast<f64>(value));
    if (size != size) return 0x7fff;
    if (size >= 65520.0) return static_cast<u16>(sign | 0x7c00);
    int exponent = -14;
    while (exponent < 15 && size >= std::ldexp(1.0, exponent + 1)) ++exponent;
    const auto units = static_cast<u32>(std::nearbyint(std::ldexp(size, 10 - exponent)));
    // Without the leading one, whose place the exponent takes; a carry goes into the exponent by itself.
    const u32 magnitude = units + (static_cast<u32>(exponent + 14) << 10);
    return static_cast<u16>(sign | magnitude);
}

// To an integer, towards zero, as far as it goes.
template <class To, class From>
To truncated(From value) {
    if (value != value) return 0;
    const From least = static_cast<From>(std::numeric_limits<To>::min());
    const From beyond = std::ldexp(static_cast<From>(1), std::numeric_limits<To>::digits);
    if (value <= least) return std::numeric_limits<To>::min();
    if (value >= beyond) return std::numeric_limits<To>::max();
    return static_cast<To>(value);
}

} // namespace ptx
