// SPDX-License-Identifier: MPL-2.0
//
// PTX, executed on the host, one instruction after the other. It is test code: with it, the very text that is embedded
// for NVIDIA's devices runs where there is none, up to what a driver makes of it. No result of it is a result of a GPU.
//
// What is executed is what NVRTC makes of the kernels, in its layout: a statement a line, branches alone guarded, no
// calls, nothing local. Anything else is refused when the text is read, with its line (read.cpp; decode.cpp has the table of
// instructions). A GPU thread is a fiber of kernels/host; where it finds a word that others may store as it was before,
// others have their turn.
//
// It is stricter than the processor below it, where cards are: a vector must lie at a multiple of its size; every
// address must be of memory that the launch may touch, or of the block's shared memory; a shift by more than the width
// gives what is left; NaN comes out as NVIDIA's. What cards leave undefined is made conspicuous: registers and shared memory
// begin with nonsense.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace ptx {

struct Thread;

// One instruction. Every operand is a register; constants are registers that nobody writes.
struct Instruction {
    void (*execute)(Thread&, const Instruction&) = nullptr;
    uint32_t to[4] = {};   // what it writes
    uint32_t from[5] = {}; // what it reads; of an access to memory, the base comes first
    int64_t offset = 0;    // of an access, in bytes from the base
    uint32_t target = 0;   // of a branch: the instruction to go on with
    uint32_t line = 0;     // where it stands
};

// The registers that are set when a thread begins.
enum Special : uint32_t { THREAD, THREADS, BLOCK, BLOCKS, ARGUMENT, SPECIALS };

// A kernel, read.
struct Entry {
    std::string name;
    size_t argument_bytes = 0;
    uint32_t most_threads = 0; // of a block
    uint32_t shared_bytes = 0; // without the dynamic ones
    std::vector<Instruction> code;
    std::vector<uint64_t> registers;                          // as a thread has them in the beginning
    std::vector<std::pair<uint32_t, uint32_t>> shared;        // registers with addresses of shared memory, by offset
    std::vector<uint32_t> dynamic;                            // registers with the address of dynamic shared memory
};

// Why a text cannot be executed here: a sentence, with the line.
struct Mistake : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// The names of a text's kernels.
std::vector<std::string> names(const std::string& text);

// The kernel of that name. Throws a Mistake.
Entry read(const std::string& text, const std::string& name);

// The instruction that is written so, without its operands, or null where there is none: `add.s64`.
using Execute = void (*)(Thread&, const Instruction&);
Execute find(const std::string& opcode);

// Memory from an address up to another.
struct Range {
    uint64_t begin, end;
};

// What a launch did that a card would have ended it for.
enum class Fault { NONE, MISALIGNED, ILLEGAL };

// A launch. The kernel that executes it is `run`, whose argument is one of these.
struct Launch {
    const Entry* entry;
    const void* argument;
    uint32_t dynamic_bytes = 0; // of shared memory
    std::vector<Range> memory;  // what may be touched, in order; empty: anything may
    std::atomic<Fault> fault{Fault::NONE};
};

// What one GPU thread does.
void run(const void* launch);

} // namespace ptx
