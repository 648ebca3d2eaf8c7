// SPDX-License-Identifier: MPL-2.0
//
// The C face of this folder, which the library's host backend calls (src/driver/host/execution.rs says the same in
// Rust).
#include "device.h"

extern "C" {

// What there is to know of a kernel before it is launched.
struct AnnulusKernel {
    const void* kernel; // null: there is none of that name
    size_t argument_bytes;
    size_t argument_alignment;
    const char* file; // where it is, as its compiler was told
};

AnnulusKernel annulus_host_find(const char* name) {
    const host::Kernel* kernel = host::find(name);
    if (kernel == nullptr) return {nullptr, 0, 0, nullptr};
    return {kernel, kernel->argument_bytes, kernel->argument_alignment, kernel->file};
}

// What a device has (Model).
struct AnnulusModel {
    uint32_t multiprocessors, warp, threads_per_block, shared_per_block;
};

// A new device of the default model, which lives for ever.
void* annulus_host_device() { return new host::Device(host::Model()); }

AnnulusModel annulus_host_model(const void* device) {
    const host::Model& model = static_cast<const host::Device*>(device)->model();
    return {model.multiprocessors, model.warp, model.threads_per_block,
            model.shared_per_multiprocessor - model.shared_reserved_per_block};
}

// How many blocks of this shape the device has room for at once.
uint32_t annulus_host_resident(const void* device, uint32_t threads, uint32_t shared) {
    const host::Model& model = static_cast<const host::Device*>(device)->model();
    return model.multiprocessors * model.resident_blocks(threads, shared);
}

struct AnnulusOutcome {
    uint32_t ended; // host::Ended
    uint32_t block;
    uint32_t absent;
};

// Runs a launch to its end; the arguments are aligned as the kernel asks, and the shape has room.
AnnulusOutcome annulus_host_run(void* device, const void* kernel, const void* args, uint32_t blocks, uint32_t threads,
                                uint32_t shared) {
    const host::Launch launch{static_cast<const host::Kernel*>(kernel), args, blocks, threads, shared};
    const host::Outcome outcome = static_cast<host::Device*>(device)->run(launch);
    return {static_cast<uint32_t>(outcome.ended), outcome.block, outcome.absent};
}
}
