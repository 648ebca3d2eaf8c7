// SPDX-License-Identifier: MPL-2.0
//
// What a strict launch looks at before each access to memory, but for a thread's own stack.
#include "run.h"

#include <link.h>

namespace host::strict {

// The module's memory, as its loader knows it.
struct Loaded {
    uintptr_t inside; // an address of its code
    Range image;
    Range thread_local_of_this;
};

static int look(dl_phdr_info* info, size_t, void* data) {
    Loaded& loaded = *static_cast<Loaded*>(data);
    Range image;
    size_t thread_local_bytes = 0;
    for (int i = 0; i < info->dlpi_phnum; ++i) {
        const auto& segment = info->dlpi_phdr[i];
        if (segment.p_type == PT_TLS) thread_local_bytes = segment.p_memsz;
        if (segment.p_type != PT_LOAD) continue;
        const uintptr_t begin = info->dlpi_addr + segment.p_vaddr;
        if (image.bytes == 0) image.begin = begin;
        image.bytes = begin + segment.p_memsz - image.begin;
    }
    if (!image.holds(loaded.inside, 1)) return 0;
    loaded.image = image;
    loaded.thread_local_of_this = {reinterpret_cast<uintptr_t>(info->dlpi_tls_data), thread_local_bytes};
    return 1;
}

void Run::find_declared() {
    // This makes the module's thread-local memory, where it is the thread's first kernel of this module.
    here_ = module_.here();
    Loaded loaded{reinterpret_cast<uintptr_t>(module_.here), {}, {}};
    dl_iterate_phdr(look, &loaded);
    declared_ = loaded.thread_local_of_this;
    image_ = loaded.image;
}

void Run::check_shared(Shared& shared, char* memory, size_t offset, const Access& access) {
    Resident& block = *running_->block;
    const uint32_t thread = running_->index;
    const Moment now = {thread, block.all.opened + 1, block.warps[thread / WARP].opened};
    const Seen seen = shared.access(memory, offset, access, now, filler_);
    if (seen.unwritten && unwritten_.from == nullptr) unwritten_ = {block.index, thread, access.from};
    if (!seen.race) return;
    Fault fault = fault_of(Wrong::RACE);
    fault.access = access;
    fault.other = seen.other;
    fault.other_wrote = seen.other_wrote;
    fault.other_from = seen.other_from;
    fail(fault);
}

void Run::check(const Access& access) {
    const bool aligned = (access.how & UNALIGNED) != 0 || access.address % access.bytes == 0;
    if (!aligned) {
        Fault fault = fault_of(Wrong::UNALIGNED);
        fault.access = access;
        fail(fault);
    }
    const Resident& block = *running_->block;
    char* const memory = reinterpret_cast<char*>(access.address);
    if (declared_.holds(access.address, access.bytes))
        return check_shared(running_->block->declared_shared, memory, access.address - declared_.begin, access);
    const Range dynamic = {reinterpret_cast<uintptr_t>(block.dynamic), launch_.shared};
    if (dynamic.holds(access.address, access.bytes))
        return check_shared(running_->block->dynamic_shared, memory, access.address - dynamic.begin, access);
    if (changes_ != changes()) {
        changes_ = changes();
        found_ = {};
    }
    if (found_.holds(access.address, access.bytes)) return;
    const Range argument = {reinterpret_cast<uintptr_t>(launch_.args), launch_.kernel->argument_bytes};
    const bool constant = image_.holds(access.address, access.bytes) || argument.holds(access.address, access.bytes);
    if (constant && (access.how & WRITES) == 0) return;
    const Range range = range_before(access.address);
    if (range.holds(access.address, access.bytes)) {
        found_ = range;
        return;
    }
    Fault fault = fault_of(constant ? Wrong::CONSTANT : Wrong::OUTSIDE);
    fault.access = access;
    // Memory of the launch before memory of the device.
    fault.near = dynamic.bytes != 0 && access.address - dynamic.begin < dynamic.bytes + 4096 ? dynamic : range;
    fail(fault);
}

} // namespace host::strict
