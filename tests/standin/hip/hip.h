// SPDX-License-Identifier: MPL-2.0
//
// A thin face of HIP over the stand-in for the CUDA driver: the functions that Annulus calls, under HIP's names, with
// HIP's arguments and numbers. It is test code like the rest, and nothing it shows is a result of a GPU.
//
// Beside switches.cpp it obeys STANDIN_HIP_VERSION=50422804, what hipDriverGetVersion says (60443484), by which the flag
// of hipIpcOpenMemHandle is another; and HIP_VISIBLE_DEVICES, in the place of CUDA_VISIBLE_DEVICES.
#pragma once

#include "../driver.h"

DRIVER cuInit(unsigned flags);
DRIVER cuDeviceGet(int* device, int ordinal);
DRIVER cuDeviceGetAttribute(int* value, int which, int device);
DRIVER cuDeviceGetName(char* name, int length, int device);
DRIVER cuDeviceGetPCIBusId(char* name, int length, int device);
DRIVER cuDeviceTotalMem_v2(size_t* bytes, int device);
DRIVER cuDeviceCanAccessPeer(int* can, int device, int peer);
DRIVER cuDevicePrimaryCtxRetain(void** context, int device);
DRIVER cuCtxSetCurrent(void* context);
DRIVER cuCtxEnablePeerAccess(void* context, unsigned flags);
DRIVER cuModuleGetFunction(void** function, void* module, const char* name);
DRIVER cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void* function, int threads, size_t shared);
DRIVER cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                      unsigned block_y, unsigned block_z, unsigned shared, void* stream, void** parameters,
                      void** extra);
DRIVER cuStreamCreate(void** stream, unsigned flags);
DRIVER cuStreamCreateWithPriority(void** stream, unsigned flags, int priority);
DRIVER cuStreamDestroy_v2(void* stream);
DRIVER cuStreamQuery(void* stream);
DRIVER cuStreamSynchronize(void* stream);
DRIVER cuStreamWaitEvent(void* stream, void* event, unsigned flags);
DRIVER cuStreamIsCapturing(void* stream, int* status);
DRIVER cuStreamBeginCapture_v2(void* stream, int mode);
DRIVER cuStreamEndCapture(void* stream, void** graph);
DRIVER cuLaunchHostFunc(void* stream, void (*function)(void*), void* data);
DRIVER cuGraphDestroy(void* graph);
DRIVER cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long flags);
DRIVER cuGraphLaunch(void* executable, void* stream);
DRIVER cuGraphExecDestroy(void* executable);
DRIVER cuEventCreate(void** event, unsigned flags);
DRIVER cuEventDestroy_v2(void* event);
DRIVER cuEventQuery(void* event);
DRIVER cuEventRecord(void* event, void* stream);
DRIVER cuEventSynchronize(void* event);
DRIVER cuEventElapsedTime(float* milliseconds, void* from, void* to);
DRIVER cuMemAlloc_v2(Address* address, size_t bytes);
DRIVER cuMemFree_v2(Address address);
struct PoolProperties;
DRIVER cuMemPoolCreate(void** pool, const PoolProperties* asked);
DRIVER cuMemPoolSetAttribute(void* pool, int which, const void* value);
DRIVER cuMemPoolTrimTo(void* pool, size_t least);
DRIVER cuMemAllocFromPoolAsync(Address* address, size_t bytes, void* pool, void* stream);
DRIVER cuMemFreeAsync(Address address, void* stream);
DRIVER cuMemGetInfo_v2(size_t* free, size_t* total);
DRIVER cuMemHostAlloc(void** memory, size_t bytes, unsigned flags);
DRIVER cuMemHostRegister_v2(void* memory, size_t bytes, unsigned flags);
DRIVER cuMemHostUnregister(void* memory);
DRIVER cuMemHostGetDevicePointer_v2(Address* address, void* memory, unsigned flags);
DRIVER cuMemGetAddressRange_v2(Address* base, size_t* bytes, Address address);
DRIVER cuMemcpyAsync(Address to, Address from, size_t bytes, void* stream);
DRIVER cuMemcpyPeerAsync(Address to, void* to_context, Address from, void* from_context, size_t bytes, void* stream);
DRIVER cuMemsetD8Async(Address to, unsigned char value, size_t count, void* stream);
DRIVER cuMemsetD16Async(Address to, unsigned short value, size_t count, void* stream);
DRIVER cuMemsetD32Async(Address to, unsigned value, size_t count, void* stream);
struct Handle64 {
    char reserved[64];
};
DRIVER cuIpcGetMemHandle(Handle64* handle, Address address);
DRIVER cuIpcOpenMemHandle_v2(Address* address, Handle64 handle, unsigned flags);
DRIVER cuIpcCloseMemHandle(Address address);

// The context of a device, or null; HIP has one for each, without being asked.
Context* context_of(int device);
// Makes the context of this thread's device current.
Result in_device();
int hip_version();

// What calls begin with: a planted failure, and this thread's device. Each returns by itself if it cannot go on.
#define HIP                                                                                                            \
    if (const Result result = planted(__func__); result != SUCCESS) return result;                                     \
    if (const Result result = in_device(); result != SUCCESS) return result
