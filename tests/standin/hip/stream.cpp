// SPDX-License-Identifier: MPL-2.0
//
// Streams, events and graphs.
#include "hip.h"

DRIVER hipStreamCreateWithFlags(void** stream, unsigned flags) {
    HIP;
    return cuStreamCreate(stream, flags);
}

DRIVER hipStreamCreateWithPriority(void** stream, unsigned flags, int priority) {
    HIP;
    return cuStreamCreateWithPriority(stream, flags, priority);
}

DRIVER hipStreamDestroy(void* stream) {
    HIP;
    return cuStreamDestroy_v2(stream);
}

DRIVER hipStreamQuery(void* stream) {
    HIP;
    return cuStreamQuery(stream);
}

DRIVER hipStreamSynchronize(void* stream) {
    HIP;
    return cuStreamSynchronize(stream);
}

DRIVER hipStreamWaitEvent(void* stream, void* event, unsigned flags) {
    HIP;
    return flags == 0 ? cuStreamWaitEvent(stream, event, 0) : INVALID_VALUE;
}

DRIVER hipLaunchHostFunc(void* stream, void (*function)(void*), void* data) {
    HIP;
    return cuLaunchHostFunc(stream, function, data);
}

DRIVER hipStreamIsCapturing(void* stream, int* status) {
    HIP;
    return cuStreamIsCapturing(stream, status);
}

DRIVER hipStreamBeginCapture(void* stream, int mode) {
    HIP;
    return cuStreamBeginCapture_v2(stream, mode);
}

DRIVER hipStreamEndCapture(void* stream, void** graph) {
    HIP;
    return cuStreamEndCapture(stream, graph);
}

DRIVER hipGraphDestroy(void* graph) {
    HIP;
    return cuGraphDestroy(graph);
}

DRIVER hipGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long flags) {
    HIP;
    return cuGraphInstantiateWithFlags(executable, graph, flags);
}

DRIVER hipGraphLaunch(void* executable, void* stream) {
    HIP;
    return cuGraphLaunch(executable, stream);
}

DRIVER hipGraphExecDestroy(void* executable) {
    HIP;
    return cuGraphExecDestroy(executable);
}

// An event that does not release to the system would be passed by another device before it sees what was written.
DRIVER hipEventCreateWithFlags(void** event, unsigned flags) {
    HIP;
    constexpr unsigned RELEASE_TO_SYSTEM = 0x80000000u;
    if ((flags & RELEASE_TO_SYSTEM) == 0) return INVALID_VALUE;
    return cuEventCreate(event, flags & ~RELEASE_TO_SYSTEM);
}

DRIVER hipEventDestroy(void* event) {
    HIP;
    return cuEventDestroy_v2(event);
}

DRIVER hipEventQuery(void* event) {
    HIP;
    return cuEventQuery(event);
}

DRIVER hipEventRecord(void* event, void* stream) {
    HIP;
    return cuEventRecord(event, stream);
}

DRIVER hipEventSynchronize(void* event) {
    HIP;
    return cuEventSynchronize(event);
}

DRIVER hipEventElapsedTime(float* milliseconds, void* from, void* to) {
    HIP;
    return cuEventElapsedTime(milliseconds, from, to);
}
