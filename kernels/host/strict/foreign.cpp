// SPDX-License-Identifier: MPL-2.0
//
// The C face of this folder, which the library's host backend calls (src/driver/host/strict says the same in Rust).
#include "device.h"

#include <dlfcn.h>

using namespace host;

extern "C" {

// Why strict devices cannot be had in this build; null if they can.
const char* annulus_strict_obstacle() {
#if HOST_TSAN
    return "it was built for ThreadSanitizer, whose place in the compiler their modules take";
#else
    return nullptr;
#endif
}

void annulus_strict_add_memory(uintptr_t begin, size_t bytes) { strict::add_memory({begin, bytes}); }
void annulus_strict_remove_memory(uintptr_t begin) { strict::remove_memory(begin); }

// Loads the module in that file, for ever. Null where it cannot be; `why` is then a sentence, until the next call.
const void* annulus_strict_load(const char* file, const char** why) {
    void* const library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    using Open = Module (*)(const Runtime*);
    const Open open = library == nullptr ? nullptr : reinterpret_cast<Open>(dlsym(library, "annulus_module"));
    if (open == nullptr) {
        *why = dlerror();
        return nullptr;
    }
    return new Module(open(&strict::Run::runtime()));
}

const void* annulus_strict_find(const void* module, const char* name, size_t* argument_bytes,
                                size_t* argument_alignment) {
    const Kernel* const kernel = static_cast<const Module*>(module)->find(name);
    if (kernel == nullptr) return nullptr;
    *argument_bytes = kernel->argument_bytes;
    *argument_alignment = kernel->argument_alignment;
    return kernel;
}

// A new device, which lives for ever.
void* annulus_strict_device(uint64_t seed) { return new strict::Device(seed); }

uint32_t annulus_strict_resident(const void* device, uint32_t threads, uint32_t shared) {
    const Model& model = static_cast<const strict::Device*>(device)->model();
    return model.multiprocessors * model.resident_blocks(threads, shared);
}

// Where in a module something was, by an address in it: the file of the module, and the distance from its beginning.
struct AnnulusPlace {
    const char* file; // null: nowhere
    uintptr_t offset;
};

AnnulusPlace annulus_strict_place(const void* from) {
    Dl_info info;
    if (from == nullptr || dladdr(from, &info) == 0) return {nullptr, 0};
    return {info.dli_fname, reinterpret_cast<uintptr_t>(from) - reinterpret_cast<uintptr_t>(info.dli_fbase)};
}

// Runs a launch to its end or its first mistake; the arguments are aligned as the kernel asks, and the shape has room.
void annulus_strict_run(void* device, const void* module, const Launch* launch, uint64_t number, strict::Fault* fault,
                        strict::Unwritten* unwritten) {
    *fault = static_cast<strict::Device*>(device)->run(*static_cast<const Module*>(module), *launch, number, *unwritten);
}
}
