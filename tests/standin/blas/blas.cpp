// SPDX-License-Identifier: MPL-2.0
//
// A stand-in for cuBLAS over the stand-in for the driver: matrix products by a plain loop, on the stream. It is test
// code, and nothing it shows is a result of a GPU. It refuses what a caller must not forget: a workspace after each
// change of stream, and the settings by which bits are the same each time.
//
//   STANDIN_BLAS_FAIL=cublasGemmEx=13,..   these calls return these codes and do nothing
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

extern "C" int cuLaunchHostFunc(void* stream, void (*function)(void*), void* data);

#define BLAS extern "C" __attribute__((visibility("default"))) int

enum : int { SUCCESS = 0, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };
enum : int { F32 = 0, F16 = 2, BF16 = 14 };
enum : int { COMPUTE_32F = 68, COMPUTE_32F_PEDANTIC = 69 };

struct Handle {
    void* stream = nullptr;
    void* workspace = nullptr;
    size_t bytes = 0;
    int math = 0;
    int atomics = 1;
};

// The code that a call shall return, or 0.
static int planted(const char* function) {
    const char* value = std::getenv("STANDIN_BLAS_FAIL");
    const std::string list = std::string(",") + (value == nullptr ? "" : value);
    const size_t found = list.find("," + std::string(function) + "=");
    return found == std::string::npos ? 0 : std::atoi(list.c_str() + found + std::strlen(function) + 2);
}

#define ENTER                                                                                                          \
    if (const int result = planted(__func__); result != SUCCESS) return result

BLAS cublasCreate_v2(Handle** handle) {
    ENTER;
    *handle = new Handle;
    return SUCCESS;
}

BLAS cublasGetVersion_v2(Handle*, int* version) {
    ENTER;
    *version = 120304;
    return SUCCESS;
}

BLAS cublasSetMathMode(Handle* handle, int mode) {
    ENTER;
    handle->math = mode;
    return SUCCESS;
}

BLAS cublasSetAtomicsMode(Handle* handle, int mode) {
    ENTER;
    handle->atomics = mode;
    return SUCCESS;
}

BLAS cublasSetStream_v2(Handle* handle, void* stream) {
    ENTER;
    handle->stream = stream;
    handle->workspace = nullptr;
    return SUCCESS;
}

BLAS cublasSetWorkspace_v2(Handle* handle, void* workspace, size_t bytes) {
    ENTER;
    handle->workspace = workspace;
    handle->bytes = bytes;
    return SUCCESS;
}

extern "C" __attribute__((visibility("default"))) const char* cublasGetStatusName(int status) {
    switch (status) {
    case INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
    case NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
    default: return nullptr;
    }
}

static float read(const void* from, size_t at, int type) {
    if (type == F32) return static_cast<const float*>(from)[at];
    if (type == F16) return static_cast<float>(static_cast<const _Float16*>(from)[at]);
    const uint32_t bits = static_cast<uint32_t>(static_cast<const uint16_t*>(from)[at]) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

static void write(void* to, size_t at, int type, float value) {
    if (type == F32) {
        static_cast<float*>(to)[at] = value;
    } else if (type == F16) {
        static_cast<_Float16*>(to)[at] = static_cast<_Float16>(value);
    } else {
        uint32_t bits;
        std::memcpy(&bits, &value, 4);
        // To the nearest, of two the even one; not-a-number stays one.
        bits = value != value ? bits | 0x400000 : bits + 0x7fff + (bits >> 16 & 1);
        static_cast<uint16_t*>(to)[at] = static_cast<uint16_t>(bits >> 16);
    }
}

// What a product was called with; its matrices lie column by column.
struct Product {
    int forms[2], rows, columns, inner, type, steps[3];
    float factor, kept;
    const void* from[2];
    void* to;
};

static void multiply(void* data) {
    const Product& product = *static_cast<const Product*>(data);
    const auto at = [&](int which, int row, int column) {
        const size_t step = static_cast<size_t>(product.steps[which]);
        const size_t place = product.forms[which] == 0 ? column * step + row : row * step + column;
        return read(product.from[which], place, product.type);
    };
    for (int column = 0; column < product.columns; ++column)
        for (int row = 0; row < product.rows; ++row) {
            float sum = 0;
            for (int i = 0; i < product.inner; ++i) sum += at(0, row, i) * at(1, i, column);
            const size_t place = static_cast<size_t>(column) * static_cast<size_t>(product.steps[2]) + row;
            const float before = product.kept == 0 ? 0 : product.kept * read(product.to, place, product.type);
            write(product.to, place, product.type, product.factor * sum + before);
        }
}

// What is enqueued may be captured, and launched ever again: so it is kept for good.
BLAS cublasGemmEx(Handle* handle, int first_form, int second_form, int rows, int columns, int inner,
                  const float* factor, const void* first, int first_type, int first_step, const void* second,
                  int second_type, int second_step, const float* kept, void* to, int to_type, int to_step, int computed,
                  int algorithm) {
    ENTER;
    if (handle->workspace == nullptr || handle->bytes == 0 || handle->math != 16 || handle->atomics != 0)
        return NOT_SUPPORTED;
    if (first_type != second_type || first_type != to_type || algorithm != -1) return NOT_SUPPORTED;
    if (computed != (to_type == F32 ? COMPUTE_32F_PEDANTIC : COMPUTE_32F)) return NOT_SUPPORTED;
    if (rows <= 0 || columns <= 0 || inner <= 0 || to_step < rows) return INVALID_VALUE;
    if (first_step < (first_form == 0 ? rows : inner) || second_step < (second_form == 0 ? inner : columns))
        return INVALID_VALUE;
    auto* const product = new Product{{first_form, second_form}, rows,    columns, inner,           to_type,
                                      {first_step, second_step, to_step}, *factor, *kept, {first, second}, to};
    return cuLaunchHostFunc(handle->stream, multiply, product) == 0 ? SUCCESS : EXECUTION_FAILED;
}
