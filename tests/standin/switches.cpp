// SPDX-License-Identifier: MPL-2.0
//
// What tests may ask of the stand-in, by environment variables that are read once:
//
//   STANDIN_DEVICES=n                    how many devices there are (1)
//   STANDIN_UNREACHABLE=0-1,..           which pairs of devices do not reach each other
//   STANDIN_MEMORY=4096                  MiB of a device (128: little, so that programs that measure with a share of it
//                                        are quick)
//   STANDIN_PINNED=n                     MiB that a process can pin by cuMemHostAlloc (all it wants); memory.cpp reads it
//   STANDIN_MULTIPROCESSORS=n            how many multiprocessors a device has (4)
//   STANDIN_VERSION=11080                what cuDriverGetVersion says (12080)
//   STANDIN_FAIL=cuIpcGetMemHandle=801,..  these calls return these codes and do nothing
//   STANDIN_HANG=cuLaunchKernel,..       these calls never return
//   STANDIN_QUEUE=n                      commands of a device that may be outstanding, on all its streams together (1024),
//                                        a graph's among them:
//                                        whoever enqueues one more waits, and so does every other thread that does;
//                                        CUDA_SCALE_LAUNCH_QUEUES is obeyed
//   STANDIN_ORDER=1                      kernels run one after the other in the order of their launches, whatever their
//                                        streams are, as if all streams shared one hardware queue; with 2, so does all that
//                                        is enqueued, but on streams of a higher priority, which have their own queues
//   STANDIN_LENT=1                       a process that frees memory which another one maps is ended, since no driver says
//                                        what comes of that; memory.cpp reads it
//
// CUDA_VISIBLE_DEVICES, as numbers, is obeyed as drivers do, or HIP_VISIBLE_DEVICES.
#include "driver.h"

#include <algorithm>
#include <cstdlib>

#include <unistd.h>

static std::string text(const char* name) {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
}

static int number(const char* name, int otherwise) {
    const std::string value = text(name);
    return value.empty() ? otherwise : std::atoi(value.c_str());
}

// The cards that are shown, by device. What follows a number that is no card's is not seen.
static const std::vector<int>& visible() {
    static const std::vector<int> cards = [] {
        const int count = number("STANDIN_DEVICES", 1);
        const char* of_cuda = std::getenv("CUDA_VISIBLE_DEVICES");
        const char* chosen = of_cuda == nullptr ? std::getenv("HIP_VISIBLE_DEVICES") : of_cuda;
        std::vector<int> found;
        if (chosen == nullptr)
            for (int card = 0; card < count; ++card) found.push_back(card);
        else
            for (const char* at = chosen; *at != '\0'; at += *at == ',') {
                char* end;
                const long card = std::strtol(at, &end, 10);
                if (end == at || card < 0 || card >= count) break;
                found.push_back(static_cast<int>(card));
                at = end;
            }
        return found;
    }();
    return cards;
}

int devices() { return static_cast<int>(visible().size()); }

int card(int device) { return visible()[static_cast<size_t>(device)]; }

bool reach_each_other(int a, int b) {
    static const std::string pairs = "," + text("STANDIN_UNREACHABLE") + ",";
    const auto named = [](int from, int to) { return "," + std::to_string(from) + "-" + std::to_string(to) + ","; };
    return pairs.find(named(a, b)) == std::string::npos && pairs.find(named(b, a)) == std::string::npos;
}

size_t total_memory() {
    static const size_t bytes = static_cast<size_t>(number("STANDIN_MEMORY", 128)) << 20;
    return bytes;
}

uint32_t multiprocessors() {
    static const uint32_t count = static_cast<uint32_t>(number("STANDIN_MULTIPROCESSORS", 4));
    return count;
}

int version() {
    static const int version = number("STANDIN_VERSION", 12080);
    return version;
}

size_t queue_length() {
    // "4x", as drivers take it.
    static const std::string scale = text("CUDA_SCALE_LAUNCH_QUEUES");
    static const double factor = scale.empty() ? 1 : std::atof(scale.c_str());
    static const size_t commands = static_cast<size_t>(number("STANDIN_QUEUE", 1024) * factor);
    return commands;
}

int in_order() {
    static const int order = number("STANDIN_ORDER", 0);
    return order;
}

// "a=1,b" as a map: {a: 1, b: 0}.
static std::map<std::string, int> list(const std::string& text) {
    std::map<std::string, int> entries;
    for (size_t begin = 0; begin < text.size();) {
        const size_t end = std::min(text.find(',', begin), text.size());
        const std::string entry = text.substr(begin, end - begin);
        const size_t sign = std::min(entry.find('='), entry.size());
        entries[entry.substr(0, sign)] = sign == entry.size() ? 0 : std::atoi(entry.c_str() + sign + 1);
        begin = end + 1;
    }
    return entries;
}

Result planted(const char* function) {
    static const std::map<std::string, int> failing = list(text("STANDIN_FAIL"));
    static const std::map<std::string, int> hanging = list(text("STANDIN_HANG"));
    if (hanging.count(function) != 0)
        for (;;) pause();
    const auto found = failing.find(function);
    return found == failing.end() ? SUCCESS : found->second;
}
