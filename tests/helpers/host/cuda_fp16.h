// What the kernels use of CUDA, for a C++17 compiler on the host: it stands where nvcc has its cuda_fp16.h, so that the
// very same .cu files compile. Arithmetic is IEEE, and conversions to half round to nearest even, as on the GPU; compile
// with -ffp-contract=off for sums as they are written, or with =fast for fused ones, which nvcc makes too.
//
// A block's threads are coroutines: each runs until __syncthreads() or its end, then the next one does; a round is over
// when all have stopped. So shared memory and barriers mean what they mean on the GPU, and the order of the threads within
// a round can be reversed: a result that changes with it is a race.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __constant__ const
#define __grid_constant__
#define __launch_bounds__(...)
#define __shared__ static thread_local

struct dim3 {
    unsigned x, y, z;
};

inline thread_local dim3 gridDim, blockDim, blockIdx, threadIdx;

void __syncthreads();

struct alignas(8) float2 {
    float x, y;
};

inline float2 make_float2(float x, float y) { return {x, y}; }

struct __half {
    std::uint16_t bits;
};

struct alignas(4) __half2 {
    __half x, y;
};

inline std::uint32_t __float_as_uint(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float __uint_as_float(std::uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline float __half2float(__half half) {
    const int exponent = half.bits >> 10 & 0x1f, fraction = half.bits & 0x3ff;
    float magnitude = std::ldexp(static_cast<float>(exponent ? fraction | 0x400 : fraction), std::max(exponent, 1) - 25);
    if (exponent == 0x1f) {
        magnitude = fraction ? NAN : INFINITY;
    }
    return half.bits & 0x8000 ? -magnitude : magnitude;
}

inline __half __float2half_rn(float value) {
    const auto sign = static_cast<std::uint16_t>(__float_as_uint(value) >> 16 & 0x8000);
    const float magnitude = std::fabs(value);
    if (!(magnitude < 65520.0f)) { // rounds to infinity, or is no number
        return {static_cast<std::uint16_t>(sign | (std::isnan(value) ? 0x7e00 : 0x7c00))};
    }
    const int exponent = magnitude < 0x1p-14f ? -14 : std::ilogb(magnitude);
    const auto steps = static_cast<int>(std::nearbyint(std::ldexp(magnitude, 10 - exponent))); // of the last place
    return {static_cast<std::uint16_t>(sign | ((exponent + 14) * 0x400 + steps))};
}

inline __half2 __floats2half2_rn(float x, float y) { return {__float2half_rn(x), __float2half_rn(y)}; }

template <typename T> inline T __ldg(const T *address) { return *address; }

// Never part of a fused multiply-add, as on the GPU: the compiler cannot see through the empty statement.
inline float rounded(float value) {
    std::uint32_t bits = __float_as_uint(value);
    asm volatile("" : "+r"(bits));
    return __uint_as_float(bits);
}

inline float __fadd_rn(float x, float y) { return rounded(x + y); }
inline float __fmul_rn(float x, float y) { return rounded(x * y); }

using std::fabs;
using std::max;
using std::min;
