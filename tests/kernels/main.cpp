// SPDX-License-Identifier: MPL-2.0
//
// Runs the cases named on the command line, or all that are not planted; exits with 1 if one failed.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "../../kernels/host/device.h"
#include "cases.h"

static Case* first = nullptr;
static bool failed = false;

Case::Case(const char* case_name, void (*body)()) : name(case_name), run(body), next(first) { first = this; }

void expect(bool holds, const char* what, const char* file, int line) {
    if (holds) return;
    failed = true;
    std::printf("%s:%d: %s\n", file, line, what);
}

static host::Model model(uint64_t barrier_patience_ns) {
    host::Model model;
    model.multiprocessors = 2;
    model.threads_per_multiprocessor = 256;
    model.blocks_per_multiprocessor = 4;
    model.threads_per_block = 256;
    model.barrier_patience_ns = barrier_patience_ns;
    return model;
}

// Never destroyed: threads of theirs wait for blocks while the process ends.
static host::Device& patient = *new host::Device(model(0));
static host::Device& impatient = *new host::Device(model(50000000));

static host::Outcome run_on(host::Device& device, const Shape& shape) {
    const host::Kernel* kernel = host::find(shape.kernel);
    if (kernel == nullptr || device.model().resident_blocks(shape.threads, shape.shared) == 0) {
        std::printf("%s cannot run\n", shape.kernel);
        std::exit(1);
    }
    return device.run({kernel, shape.args, shape.blocks, shape.threads, shape.shared});
}

host::Outcome run(const Shape& shape) { return run_on(patient, shape); }
host::Outcome run_impatient(const Shape& shape) { return run_on(impatient, shape); }

std::vector<host::Outcome> run_together(const std::vector<Shape>& shapes) {
    std::vector<host::Outcome> outcomes(shapes.size());
    std::vector<std::thread> threads;
    for (size_t i = 0; i < shapes.size(); ++i) threads.emplace_back([&, i] { outcomes[i] = run(shapes[i]); });
    for (std::thread& thread : threads) thread.join();
    return outcomes;
}

static bool wanted(const char* name, int count, char** names) {
    if (count == 1) return std::strncmp(name, "planted", 7) != 0;
    for (int i = 1; i < count; ++i)
        if (std::strcmp(names[i], name) == 0) return true;
    return false;
}

int main(int count, char** names) {
    int ran = 0;
    for (Case* one = first; one != nullptr; one = one->next) {
        if (!wanted(one->name, count, names)) continue;
        one->run();
        ++ran;
        std::printf("%s\n", one->name);
    }
    return failed || ran == 0;
}
