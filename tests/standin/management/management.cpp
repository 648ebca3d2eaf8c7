// SPDX-License-Identifier: MPL-2.0
//
// A stand-in for NVIDIA's management library (NVML), for the cards of the stand-in for the CUDA driver. Test code: its
// figures are made up, and are of no card. Cards 0 and 1 are said to be joined by NVLink, all others through the system.
//
//   STANDIN_MANAGEMENT_LACKS=nvmlDeviceGetPowerUsage,..  these functions answer that they are not supported
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include <unistd.h>

using Result = int;
using Device = void*; // a card's number, plus one

enum : Result { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7 };

static bool lacks(const char* function) {
    const char* list = std::getenv("STANDIN_MANAGEMENT_LACKS");
    if (list == nullptr) return false;
    return ("," + std::string(list) + ",").find("," + std::string(function) + ",") != std::string::npos;
}

static size_t card(Device device) { return reinterpret_cast<size_t>(device) - 1; }

#define MANAGEMENT extern "C" __attribute__((visibility("default"))) Result
#define ENTER                                                                                                          \
    if (lacks(__func__)) return NOT_SUPPORTED

MANAGEMENT nvmlInit_v2() {
    ENTER;
    return SUCCESS;
}

MANAGEMENT nvmlSystemGetDriverVersion(char* version, unsigned length) {
    ENTER;
    if (length < 20) return INSUFFICIENT_SIZE;
    std::snprintf(version, length, "0.0 (stand-in)");
    return SUCCESS;
}

MANAGEMENT nvmlDeviceGetHandleByPciBusId_v2(const char* bus, Device* device) {
    ENTER;
    unsigned number;
    if (std::sscanf(bus, "0000:00:%2X.0", &number) != 1) return NOT_FOUND;
    *device = reinterpret_cast<Device>(static_cast<size_t>(number) + 1);
    return SUCCESS;
}

struct Memory {
    unsigned long long total, free, used;
};

MANAGEMENT nvmlDeviceGetMemoryInfo(Device, Memory* memory) {
    ENTER;
    *memory = {128ull << 20, 96ull << 20, 32ull << 20};
    return SUCCESS;
}

MANAGEMENT nvmlDeviceGetClockInfo(Device device, int which, unsigned* megahertz) {
    ENTER;
    if (which != 1) return INVALID_ARGUMENT;
    *megahertz = 1000 + static_cast<unsigned>(card(device));
    return SUCCESS;
}

MANAGEMENT nvmlDeviceGetTemperature(Device device, int sensor, unsigned* degrees) {
    ENTER;
    if (sensor != 0) return INVALID_ARGUMENT;
    *degrees = 40 + static_cast<unsigned>(card(device));
    return SUCCESS;
}

MANAGEMENT nvmlDeviceGetPowerUsage(Device, unsigned* milliwatts) {
    ENTER;
    *milliwatts = 123400;
    return SUCCESS;
}

struct Process {
    unsigned process;
    unsigned long long used;
    unsigned instance, compute_instance;
};

// Of card 0, the calling process.
MANAGEMENT nvmlDeviceGetComputeRunningProcesses_v3(Device device, unsigned* count, Process* processes) {
    ENTER;
    const unsigned found = card(device) == 0 ? 1 : 0;
    if (*count < found) return INSUFFICIENT_SIZE;
    *count = found;
    if (found != 0) processes[0] = {static_cast<unsigned>(getpid()), 32ull << 20, ~0u, ~0u};
    return SUCCESS;
}

MANAGEMENT nvmlDeviceGetP2PStatus(Device from, Device to, int which, int* status) {
    ENTER;
    if (which != 2) return INVALID_ARGUMENT;
    *status = card(from) + card(to) == 1 ? 0 : 5;
    return SUCCESS;
}

MANAGEMENT nvmlDeviceGetTopologyCommonAncestor(Device, Device, int* level) {
    ENTER;
    *level = 50;
    return SUCCESS;
}
