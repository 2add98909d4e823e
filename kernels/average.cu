// Kernel 3, `mirror` and `average`: a localizer's runs at several scales, and mirrored. Contract and oracle: average.py.
//
// mirror_f16, mirror_f32     rows of `width` values, reversed: one thread per value, blocks of 128
// average_f16, average_f32   heatmaps (planes, height_r, width_r) of every run r to their mean (planes, height, width):
//                            one thread per value, blocks of 128, grid (ceil(height * width / 128), planes)
//
// Order   each value is the sum over the runs in their order, in FP32, times 1 / runs: two launches give the same bits.
// Exact   a run at scale 1 with offset 0 reads one pixel for each, with weight 1.
// Compile nvcc -O3 -std=c++17 -arch=sm_75 --fatbin average.cu (build.py has all architectures)

#include <cfloat>

#include <cuda_fp16.h>

#include "records.cuh"

namespace {

__device__ inline float as_float(float value) { return value; }

__device__ inline float as_float(__half value) { return __half2float(value); }

__device__ inline void put(float *out, float value) { *out = value; }

__device__ inline void put(__half *out, float value) { *out = __float2half_rn(value); }

// The two pixels that a coordinate lies between, and how far it is on its way to the second one.
struct Taps {
    int first, second;
    float part;
};

__device__ inline Taps taps(float place, int size) {
    const float inside = fminf(fmaxf(place, 0.0f), static_cast<float>(size - 1));
    const float before = floorf(inside);
    const int first = static_cast<int>(before);
    return {first, min(first + 1, size - 1), inside - before};
}

// A column of a flipped run that was turned back, as a column of its heatmap as it came.
__device__ inline int turned(const Run &run, int column) {
    return run.flipped ? run.width - 1 - max(column - run.shift, 0) : column;
}

template <typename Value> __device__ float sample(const Run &run, size_t plane, int x, int y) {
    const Value *heatmap = static_cast<const Value *>(run.heatmaps) + plane * run.height * run.width;
    const Taps across = taps(fmaf(run.scale, static_cast<float>(x), run.offset), run.width);
    const Taps down = taps(fmaf(run.scale, static_cast<float>(y), run.offset), run.height);
    const auto at = [&](int row, int column) {
        const float value = as_float(heatmap[row * run.width + turned(run, column)]);
        return fabsf(value) <= FLT_MAX ? value : 0.0f; // false for NaN too
    };
    const float left = 1.0f - across.part, top = 1.0f - down.part;
    const float upper = left * at(down.first, across.first) + across.part * at(down.first, across.second);
    const float lower = left * at(down.second, across.first) + across.part * at(down.second, across.second);
    return top * upper + down.part * lower;
}

template <typename Value> __device__ void average(const AverageArgs &args) {
    const int index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= args.height * args.width) {
        return;
    }
    const size_t plane = blockIdx.y;
    const int x = index % args.width, y = index / args.width;
    float total = 0.0f;
    for (int number = 0; number < args.count; ++number) {
        total += sample<Value>(args.runs[number], plane, x, y);
    }
    put(static_cast<Value *>(args.out) + plane * args.height * args.width + index, total / args.count);
}

template <typename Value> __device__ void mirror(const MirrorArgs &args) {
    const long long index = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (index >= static_cast<long long>(args.rows) * args.width) {
        return;
    }
    const long long row = index / args.width;
    const long long from = row * args.width + (args.width - 1 - (index - row * args.width));
    static_cast<Value *>(args.out)[index] = static_cast<const Value *>(args.images)[from];
}

} // namespace

extern "C" __global__ void __launch_bounds__(128) mirror_f16(const __grid_constant__ MirrorArgs args) {
    mirror<__half>(args);
}

extern "C" __global__ void __launch_bounds__(128) mirror_f32(const __grid_constant__ MirrorArgs args) {
    mirror<float>(args);
}

extern "C" __global__ void __launch_bounds__(128) average_f16(const __grid_constant__ AverageArgs args) {
    average<__half>(args);
}

extern "C" __global__ void __launch_bounds__(128) average_f32(const __grid_constant__ AverageArgs args) {
    average<float>(args);
}
