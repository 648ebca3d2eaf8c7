// SPDX-License-Identifier: MPL-2.0
//
// Names of errors, and sentences, which say where they come from.
#include "driver.h"

struct Named {
    Result code;
    const char* name;
    const char* sentence;
};

static const Named NAMES[] = {
    {0, "CUDA_SUCCESS", "stand-in: no error"},
    {1, "CUDA_ERROR_INVALID_VALUE", "stand-in: invalid argument"},
    {2, "CUDA_ERROR_OUT_OF_MEMORY", "stand-in: out of memory"},
    {3, "CUDA_ERROR_NOT_INITIALIZED", "stand-in: initialization error"},
    {4, "CUDA_ERROR_DEINITIALIZED", "stand-in: driver shutting down"},
    {100, "CUDA_ERROR_NO_DEVICE", "stand-in: no CUDA-capable device is detected"},
    {101, "CUDA_ERROR_INVALID_DEVICE", "stand-in: invalid device ordinal"},
    {200, "CUDA_ERROR_INVALID_IMAGE", "stand-in: device kernel image is invalid"},
    {201, "CUDA_ERROR_INVALID_CONTEXT", "stand-in: invalid device context"},
    {205, "CUDA_ERROR_MAP_FAILED", "stand-in: mapping of buffer object failed"},
    {208, "CUDA_ERROR_ALREADY_MAPPED", "stand-in: resource already mapped"},
    {209, "CUDA_ERROR_NO_BINARY_FOR_GPU", "stand-in: no kernel image is available for execution on the device"},
    {218, "CUDA_ERROR_INVALID_PTX", "stand-in: a PTX JIT compilation failed"},
    {222, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "stand-in: the PTX was compiled with an unsupported toolchain"},
    {217, "CUDA_ERROR_PEER_ACCESS_UNSUPPORTED", "stand-in: peer access is not supported between these two devices"},
    {304, "CUDA_ERROR_OPERATING_SYSTEM", "stand-in: OS call failed or operation not supported on this OS"},
    {400, "CUDA_ERROR_INVALID_HANDLE", "stand-in: invalid resource handle"},
    {401, "CUDA_ERROR_ILLEGAL_STATE", "stand-in: the operation cannot be performed in the present state"},
    {500, "CUDA_ERROR_NOT_FOUND", "stand-in: named symbol not found"},
    {600, "CUDA_ERROR_NOT_READY", "stand-in: device not ready"},
    {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "stand-in: an illegal memory access was encountered"},
    {701, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "stand-in: too many resources requested for launch"},
    {702, "CUDA_ERROR_LAUNCH_TIMEOUT", "stand-in: the launch timed out and was terminated"},
    {704, "CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED", "stand-in: peer access is already enabled"},
    {712, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED", "stand-in: some of the memory is pinned already"},
    {716, "CUDA_ERROR_MISALIGNED_ADDRESS", "stand-in: misaligned address"},
    {719, "CUDA_ERROR_LAUNCH_FAILED", "stand-in: unspecified launch failure"},
    {720, "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE", "stand-in: too many blocks in cooperative launch"},
    {800, "CUDA_ERROR_NOT_PERMITTED", "stand-in: operation not permitted"},
    {801, "CUDA_ERROR_NOT_SUPPORTED", "stand-in: operation not supported"},
    {900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "stand-in: operation not permitted when stream is capturing"},
    {901, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "stand-in: operation failed due to a previous error during capture"},
    {902, "CUDA_ERROR_STREAM_CAPTURE_MERGE", "stand-in: operation would result in a merge of separate captures"},
    {903, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "stand-in: capture was not ended in the same stream as it began"},
    {904, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED", "stand-in: capturing stream has unjoined work"},
    {905, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION", "stand-in: dependency created on uncaptured work in another stream"},
    {906, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT",
     "stand-in: operation would make the legacy stream depend on a capturing blocking stream"},
    {907, "CUDA_ERROR_CAPTURED_EVENT", "stand-in: operation not permitted on an event last recorded in a capture"},
    {908, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD",
     "stand-in: attempt to terminate a thread-local capture from another thread"},
    {909, "CUDA_ERROR_TIMEOUT", "stand-in: wait operation timed out"},
    {999, "CUDA_ERROR_UNKNOWN", "stand-in: unknown error"},
};

static Result look_up(const char* function, Result error, const char** text, const char* Named::*field) {
    if (const Result result = planted(function); result != SUCCESS) return result;
    if (text == nullptr) return INVALID_VALUE;
    *text = nullptr;
    for (const Named& named : NAMES) {
        if (named.code != error) continue;
        *text = named.*field;
        return SUCCESS;
    }
    return INVALID_VALUE;
}

DRIVER cuGetErrorName(Result error, const char** text) { return look_up(__func__, error, text, &Named::name); }
DRIVER cuGetErrorString(Result error, const char** text) { return look_up(__func__, error, text, &Named::sentence); }
