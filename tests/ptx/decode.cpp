// SPDX-License-Identifier: MPL-2.0
//
// The instructions: what each does to a thread, and the table of how they are written. What NVRTC comes to write is
// added there, and the reader refuses the rest.
#include "arithmetic.h"
#include "thread.h"

#include <ctime>
#include <unordered_map>

namespace ptx {

// A word that others may store. Who finds what was there before waits for another value: then others have their turn, and
// once in a while in any case.
template <int ORDER, class T>
T load_strong(Thread& t, const T* place) {
    T value = __atomic_load_n(place, ORDER);
    const uint64_t address = reinterpret_cast<uint64_t>(place);
    Thread::Found& last = t.found[address / sizeof(T) % 16];
    if ((last.address == address && last.value == value) || ++t.looks % 64 == 0) {
        host::pause();
        value = __atomic_load_n(place, ORDER);
    }
    last = {address, value};
    return value;
}

template <class Op, class T>
void unary(Thread& t, const Instruction& i) {
    set<T>(t, i.to[0], Op::template of<T>(get<T>(t, i.from[0])));
}
template <class Op, class T>
void binary(Thread& t, const Instruction& i) {
    set<T>(t, i.to[0], Op::template of<T>(get<T>(t, i.from[0]), get<T>(t, i.from[1])));
}
// The distance of a shift is a u32.
template <class Op, class T>
void shift(Thread& t, const Instruction& i) {
    set<T>(t, i.to[0], Op::template of<T>(get<T>(t, i.from[0]), get<u32>(t, i.from[1])));
}
template <class Op, class T>
void compare(Thread& t, const Instruction& i) {
    set<bool>(t, i.to[0], Op::template of<T>(get<T>(t, i.from[0]), get<T>(t, i.from[1])));
}
template <class Op>
void logic(Thread& t, const Instruction& i) {
    const u8 a = get<u8>(t, i.from[0]), b = get<u8>(t, i.from[1]);
    set<bool>(t, i.to[0], Op::of(a, b) != 0);
}
static void logic_not(Thread& t, const Instruction& i) { set<bool>(t, i.to[0], get<u8>(t, i.from[0]) == 0); }
static void logic_move(Thread& t, const Instruction& i) { set<bool>(t, i.to[0], get<u64>(t, i.from[0]) != 0); }

template <class T>
void multiply_add(Thread& t, const Instruction& i) {
    const T product = Mul::of(get<T>(t, i.from[0]), get<T>(t, i.from[1]));
    set<T>(t, i.to[0], Add::of(product, get<T>(t, i.from[2])));
}
template <class T>
void fused(Thread& t, const Instruction& i) {
    set<T>(t, i.to[0], computed(std::fma(get<T>(t, i.from[0]), get<T>(t, i.from[1]), get<T>(t, i.from[2]))));
}
template <class Wide, class T>
void multiply_wide(Thread& t, const Instruction& i) {
    set<Wide>(t, i.to[0], static_cast<Wide>(get<T>(t, i.from[0])) * static_cast<Wide>(get<T>(t, i.from[1])));
}
template <class T>
void insert_bits(Thread& t, const Instruction& i) {
    set<T>(t, i.to[0], with_bits(get<T>(t, i.from[0]), get<T>(t, i.from[1]), get<u32>(t, i.from[2]),
                                 get<u32>(t, i.from[3])));
}
static void permute(Thread& t, const Instruction& i) {
    set<u32>(t, i.to[0], chosen_bytes(get<u32>(t, i.from[0]), get<u32>(t, i.from[1]), get<u32>(t, i.from[2])));
}

template <class T>
void move(Thread& t, const Instruction& i) {
    set<T>(t, i.to[0], get<T>(t, i.from[0]));
}
template <class T>
void select(Thread& t, const Instruction& i) {
    set<T>(t, i.to[0], get<T>(t, i.from[get<u8>(t, i.from[2]) != 0 ? 0 : 1]));
}
// Halves are joined, or taken apart; the lower comes first.
template <class T, class Half>
void join(Thread& t, const Instruction& i) {
    const T low = get<Half>(t, i.from[0]), high = get<Half>(t, i.from[1]);
    set<T>(t, i.to[0], static_cast<T>(low | high << (8 * sizeof(Half))));
}
template <class T, class Half>
void split(Thread& t, const Instruction& i) {
    const T whole = get<T>(t, i.from[0]);
    set<Half>(t, i.to[0], static_cast<Half>(whole));
    set<Half>(t, i.to[1], static_cast<Half>(whole >> (8 * sizeof(Half))));
}

// As many bits as the target has: others are cut off, and what is missing is the sign of a signed source.
template <class To, class From>
void convert(Thread& t, const Instruction& i) {
    if constexpr (std::is_integral_v<To> && std::is_floating_point_v<From>)
        set<To>(t, i.to[0], truncated<To>(get<From>(t, i.from[0])));
    else set<To>(t, i.to[0], computed(static_cast<To>(get<From>(t, i.from[0]))));
}
static void widen(Thread& t, const Instruction& i) { set<f32>(t, i.to[0], of_half(get<u16>(t, i.from[0]))); }
static void narrow(Thread& t, const Instruction& i) { set<u16>(t, i.to[0], to_half(get<f32>(t, i.from[0]))); }

// A loaded value fills its register, with its sign if it has one.
template <class T>
void put(Thread& t, uint32_t number, T value) {
    if constexpr (std::is_integral_v<T> && std::is_signed_v<T>) set<s64>(t, number, value);
    else set<T>(t, number, value);
}
template <class T, unsigned N>
void load(Thread& t, const Instruction& i) {
    const char* const place = reach(t, i, N * sizeof(T));
    if (place == nullptr) return;
    T values[N];
    std::memcpy(values, place, sizeof values);
    for (unsigned k = 0; k < N; ++k) put(t, i.to[k], values[k]);
}
template <class T, unsigned N>
void load_argument(Thread& t, const Instruction& i) {
    T values[N];
    std::memcpy(values, reinterpret_cast<const char*>(get<u64>(t, i.from[0])) + i.offset, sizeof values);
    for (unsigned k = 0; k < N; ++k) put(t, i.to[k], values[k]);
}
template <class T, unsigned N>
void store(Thread& t, const Instruction& i) {
    char* const place = reach(t, i, N * sizeof(T));
    if (place == nullptr) return;
    T values[N];
    for (unsigned k = 0; k < N; ++k) values[k] = get<T>(t, i.from[1 + k]);
    std::memcpy(place, values, sizeof values);
}
// Of a vector each element is one access.
template <int ORDER, class T, unsigned N>
void load_ordered(Thread& t, const Instruction& i) {
    const T* const place = reinterpret_cast<const T*>(reach(t, i, N * sizeof(T)));
    if (place == nullptr) return;
    for (unsigned k = 0; k < N; ++k) put(t, i.to[k], load_strong<ORDER>(t, place + k));
}
template <int ORDER, class T, unsigned N>
void store_ordered(Thread& t, const Instruction& i) {
    T* const place = reinterpret_cast<T*>(reach(t, i, N * sizeof(T)));
    if (place == nullptr) return;
    for (unsigned k = 0; k < N; ++k) __atomic_store_n(place + k, get<T>(t, i.from[1 + k]), ORDER);
}
template <class T>
void fetch_add(Thread& t, const Instruction& i) {
    T* const place = reinterpret_cast<T*>(reach(t, i, sizeof(T)));
    if (place != nullptr) set<T>(t, i.to[0], __atomic_fetch_add(place, get<T>(t, i.from[1]), __ATOMIC_ACQ_REL));
}
template <class T>
void set_bits(Thread& t, const Instruction& i) {
    T* const place = reinterpret_cast<T*>(reach(t, i, sizeof(T)));
    if (place != nullptr) __atomic_fetch_or(place, get<T>(t, i.from[1]), __ATOMIC_RELAXED);
}

static void go(Thread& t, const Instruction& i) { t.next = i.target; }
static void go_if(Thread& t, const Instruction& i) {
    if (get<u8>(t, i.from[0]) != 0) t.next = i.target;
}
static void go_unless(Thread& t, const Instruction& i) {
    if (get<u8>(t, i.from[0]) == 0) t.next = i.target;
}
static void end(Thread& t, const Instruction&) { t.ended = true; }
static void synchronise(Thread&, const Instruction& i) { host::sync_block({"PTX", static_cast<int>(i.line)}); }

// The clock that the host's kernels have.
static void nanoseconds(Thread& t, const Instruction& i) {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    set<u64>(t, i.to[0], static_cast<u64>(now.tv_sec) * 1000000000u + static_cast<u64>(now.tv_nsec));
}

#define INTEGERS(name, Op)                                                                                             \
    {name ".u16", binary<Op, u16>}, {name ".u32", binary<Op, u32>}, {name ".u64", binary<Op, u64>},                    \
        {name ".s16", binary<Op, s16>}, {name ".s32", binary<Op, s32>}, {name ".s64", binary<Op, s64>}
#define FLOATS(name, Op) {name ".rn.f32", binary<Op, f32>}, {name ".rn.f64", binary<Op, f64>}
#define BITS(name, Op)                                                                                                 \
    {name ".b16", binary<Op, u16>}, {name ".b32", binary<Op, u32>}, {name ".b64", binary<Op, u64>},                    \
        {name ".pred", logic<Op>}
#define COMPARED(name, Op)                                                                                             \
    {"setp." name ".u16", compare<Op, u16>}, {"setp." name ".u32", compare<Op, u32>},                                  \
        {"setp." name ".u64", compare<Op, u64>}, {"setp." name ".s16", compare<Op, s16>},                              \
        {"setp." name ".s32", compare<Op, s32>}, {"setp." name ".s64", compare<Op, s64>},                              \
        {"setp." name ".f32", compare<Op, f32>}, {"setp." name ".f64", compare<Op, f64>}
#define COMPARED_BITS(name, Op)                                                                                        \
    {"setp." name ".b16", compare<Op, u16>}, {"setp." name ".b32", compare<Op, u32>},                                  \
        {"setp." name ".b64", compare<Op, u64>}
#define COMPARED_FLOATS(name, Op)                                                                                      \
    {"setp." name ".f32", compare<Op, f32>}, {"setp." name ".f64", compare<Op, f64>}
#define MOVED(name, function)                                                                                          \
    {name ".b16", function<u16>}, {name ".b32", function<u32>}, {name ".b64", function<u64>},                          \
        {name ".u16", function<u16>}, {name ".u32", function<u32>}, {name ".u64", function<u64>},                      \
        {name ".s16", function<s16>}, {name ".s32", function<s32>}, {name ".s64", function<s64>},                      \
        {name ".f32", function<f32>}, {name ".f64", function<f64>}
#define CONVERTED(to, To)                                                                                              \
    {"cvt." to ".u8", convert<To, u8>}, {"cvt." to ".u16", convert<To, u16>}, {"cvt." to ".u32", convert<To, u32>},    \
        {"cvt." to ".u64", convert<To, u64>}, {"cvt." to ".s8", convert<To, s8>}, {"cvt." to ".s16", convert<To, s16>}, \
        {"cvt." to ".s32", convert<To, s32>}, {"cvt." to ".s64", convert<To, s64>}
#define VECTORS(name, function, T, type)                                                                               \
    {name "." type, function<T, 1>}, {name ".v2." type, function<T, 2>}, {name ".v4." type, function<T, 4>}
#define TYPES(name, function)                                                                                          \
    VECTORS(name, function, u8, "u8"), VECTORS(name, function, u16, "u16"), VECTORS(name, function, u32, "u32"),       \
        VECTORS(name, function, u64, "u64"), VECTORS(name, function, s8, "s8"), VECTORS(name, function, s16, "s16"),   \
        VECTORS(name, function, s32, "s32"), VECTORS(name, function, s64, "s64"),                                      \
        VECTORS(name, function, f32, "f32"), VECTORS(name, function, f64, "f64")
#define ORDERED(name, function, ORDER)                                                                                 \
    {name ".u32", function<ORDER, u32, 1>}, {name ".u64", function<ORDER, u64, 1>},                                    \
        {name ".v2.u64", function<ORDER, u64, 2>}

static const std::unordered_map<std::string, Execute>& table() {
    static const std::unordered_map<std::string, Execute> table = {
        INTEGERS("add", Add), FLOATS("add", Add), INTEGERS("sub", Sub), FLOATS("sub", Sub),
        INTEGERS("mul.lo", Mul), FLOATS("mul", Mul), INTEGERS("div", Div), FLOATS("div", Div), INTEGERS("rem", Rem),
        INTEGERS("min", Min), INTEGERS("max", Max), BITS("and", And), BITS("or", Or), BITS("xor", Xor),
        {"shl.b16", shift<Shl, u16>}, {"shl.b32", shift<Shl, u32>}, {"shl.b64", shift<Shl, u64>},
        {"shr.u16", shift<Shr, u16>}, {"shr.u32", shift<Shr, u32>}, {"shr.u64", shift<Shr, u64>},
        {"shr.s16", shift<Shr, s16>}, {"shr.s32", shift<Shr, s32>}, {"shr.s64", shift<Shr, s64>},
        {"neg.s16", unary<Neg, s16>}, {"neg.s32", unary<Neg, s32>}, {"neg.s64", unary<Neg, s64>},
        {"not.b16", unary<Not, u16>}, {"not.b32", unary<Not, u32>}, {"not.b64", unary<Not, u64>},
        {"not.pred", logic_not}, {"mov.pred", logic_move},
        {"sqrt.rn.f32", unary<SquareRoot, f32>}, {"sqrt.rn.f64", unary<SquareRoot, f64>},
        {"fma.rn.f32", fused<f32>}, {"fma.rn.f64", fused<f64>},
        {"mad.lo.s32", multiply_add<s32>}, {"mad.lo.s64", multiply_add<s64>}, {"mul.wide.u32", multiply_wide<u64, u32>},
        {"mul.wide.s32", multiply_wide<s64, s32>}, {"mul.wide.u16", multiply_wide<u32, u16>},
        {"bfi.b32", insert_bits<u32>}, {"bfi.b64", insert_bits<u64>}, {"prmt.b32", permute},
        COMPARED("eq", Eq), COMPARED("ne", Ne), COMPARED("lt", Lt), COMPARED("le", Le), COMPARED("gt", Gt),
        COMPARED("ge", Ge), COMPARED_BITS("eq", Eq), COMPARED_BITS("ne", Ne), COMPARED_FLOATS("equ", Equ),
        COMPARED_FLOATS("neu", Neu), COMPARED_FLOATS("ltu", Ltu), COMPARED_FLOATS("leu", Leu),
        COMPARED_FLOATS("gtu", Gtu), COMPARED_FLOATS("geu", Geu), COMPARED_FLOATS("num", Num),
        COMPARED_FLOATS("nan", Nan),
        MOVED("mov", move), MOVED("selp", select), {"cvta.to.global.u64", move<u64>}, {"cvta.global.u64", move<u64>},
        {"cvta.to.shared.u64", move<u64>}, {"cvta.shared.u64", move<u64>},
        // As written by the reader for a mov with braces.
        {"mov.b64.joined", join<u64, u32>}, {"mov.b64.split", split<u64, u32>}, {"mov.b32.joined", join<u32, u16>},
        {"mov.b32.split", split<u32, u16>},
        CONVERTED("u8", u8), CONVERTED("u16", u16), CONVERTED("u32", u32), CONVERTED("u64", u64), CONVERTED("s8", s8),
        CONVERTED("s16", s16), CONVERTED("s32", s32), CONVERTED("s64", s64), CONVERTED("rn.f32", f32),
        CONVERTED("rn.f64", f64), {"cvt.f64.f32", convert<f64, f32>}, {"cvt.rn.f32.f64", convert<f32, f64>},
        {"cvt.rzi.s64.f64", convert<s64, f64>}, {"cvt.rzi.u64.f64", convert<u64, f64>},
        {"cvt.rzi.s32.f32", convert<s32, f32>}, {"cvt.rzi.u32.f32", convert<u32, f32>},
        {"cvt.f32.f16", widen}, {"cvt.rn.f16.f32", narrow},
        TYPES("ld", load), TYPES("ld.global", load), TYPES("ld.shared", load), TYPES("ld.param", load_argument),
        TYPES("st", store), TYPES("st.global", store), TYPES("st.shared", store),
        ORDERED("ld.acquire.sys.global", load_ordered, __ATOMIC_ACQUIRE),
        ORDERED("ld.acquire.gpu.global", load_ordered, __ATOMIC_ACQUIRE),
        ORDERED("ld.relaxed.sys.global", load_ordered, __ATOMIC_RELAXED),
        ORDERED("st.release.sys.global", store_ordered, __ATOMIC_RELEASE),
        ORDERED("st.release.gpu.global", store_ordered, __ATOMIC_RELEASE),
        ORDERED("st.relaxed.sys.global", store_ordered, __ATOMIC_RELAXED),
        {"atom.acq_rel.sys.global.add.u32", fetch_add<u32>}, {"red.relaxed.sys.global.or.b32", set_bits<u32>},
        {"bra", go}, {"bra.uni", go}, {"bra.if", go_if}, {"bra.unless", go_unless}, {"ret", end},
        {"bar.sync", synchronise}, {"mov.u64.globaltimer", nanoseconds}, {"mov.u64.clock64", nanoseconds},
    };
    return table;
}

Execute find(const std::string& opcode) {
    const auto found = table().find(opcode);
    return found == table().end() ? nullptr : found->second;
}

} // namespace ptx
