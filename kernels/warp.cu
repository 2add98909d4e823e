// Kernel 1, `warp`: N regions of interest from up to M source images in one launch. Contract and oracle: warp.py.
//
// In      sources  M records in device memory: 8- or 16-bit stored values with a pitch, and their tables
//         rois     N records in device memory
// Out     (N, channels, height, width), FP16 (`warp_f16`) or FP32 (`warp_f32`), each value (grey - mean) / std
// Pixels  integer coordinates are pixel centres; outside of the image the grey is 0. A tap that lies outside has weight 0
//         and reads the nearest pixel inside, so that no lane branches at a border.
// Exact   a pixel's source coordinate is an integer and a remainder, found with compensated sums: samples lie within
//         about 1e-6 pixel of the float64 coordinate for images of any size. A coordinate, or an origin, beyond 2^29
//         counts as outside.
// Launch  grid (ceil(width / 2 / 16), ceil(height / 8), N), block (16, 8): a thread makes two neighbouring pixels, so
//         that a store has 4 (FP16) or 8 bytes (FP32); odd widths are stored one by one. No shared memory.
// Compile nvcc -O3 -std=c++17 -arch=sm_75 --fatbin warp.cu (build.py has all architectures)

#include <cuda_fp16.h>

#include "records.cuh"

namespace {

struct Coordinate {
    int whole;
    float part; // what is to be added, NaN where the coordinate is not finite or too far away
};

// x + y exactly, as a rounded sum and its error (Knuth's TwoSum).
__device__ inline float two_sum(float x, float y, float *error) {
    const float sum = __fadd_rn(x, y);
    const float from_y = __fadd_rn(sum, -x);
    *error = __fadd_rn(__fadd_rn(x, -__fadd_rn(sum, -from_y)), __fadd_rn(y, -from_y));
    return sum;
}

// row[0] x + row[1] y + row[2]
__device__ inline Coordinate coordinate(const float row[3], float x, float y) {
    const float along_x = __fmul_rn(row[0], x), along_y = __fmul_rn(row[1], y);
    const float product_errors = __fadd_rn(fmaf(row[0], x, -along_x), fmaf(row[1], y, -along_y));
    float first_error, second_error;
    const float partial = two_sum(along_x, along_y, &first_error);
    const float sum = two_sum(partial, row[2], &second_error);
    if (!(fabsf(sum) < kFar)) {
        return {0, nanf("")};
    }
    const float whole = floorf(sum);
    return {static_cast<int>(whole), (sum - whole) + (product_errors + (first_error + second_error))};
}

// One source, and one of its tables, ready to be read.
template <typename Pixel> struct Image {
    const unsigned char *pixels;
    const float *table;
    long long pitch;
    int columns, rows;
    int sign, first, last; // index = clamp((stored ^ sign) - first, 0, last)

    __device__ inline float grey(const Pixel *row, int column) const {
        const int index = (static_cast<int>(__ldg(row + column)) ^ sign) - first;
        return __ldg(table + min(max(index, 0), last));
    }

    // Bilinear between (column, row) and its right and lower neighbours, `right` and `down` of the way.
    __device__ inline float bilinear(int column, int row, float right, float down) const {
        const bool left_in = 0 <= column && column < columns, right_in = -1 <= column && column < columns - 1;
        const bool top_in = 0 <= row && row < rows, bottom_in = -1 <= row && row < rows - 1;
        const int c0 = min(max(column, 0), columns - 1), c1 = min(max(column + 1, 0), columns - 1);
        const int r0 = min(max(row, 0), rows - 1), r1 = min(max(row + 1, 0), rows - 1);
        const Pixel *top = reinterpret_cast<const Pixel *>(pixels + r0 * pitch);
        const Pixel *bottom = reinterpret_cast<const Pixel *>(pixels + r1 * pitch);
        const float left_weight = left_in ? 1.0f - right : 0.0f, right_weight = right_in ? right : 0.0f;
        const float top_weight = top_in ? 1.0f - down : 0.0f, bottom_weight = bottom_in ? down : 0.0f;
        const float upper = left_weight * grey(top, c0) + right_weight * grey(top, c1);
        const float lower = left_weight * grey(bottom, c0) + right_weight * grey(bottom, c1);
        return top_weight * upper + bottom_weight * lower;
    }
};

// The mean of n x n samples about output pixel (x, y).
template <typename Pixel> __device__ float pixel(const Image<Pixel> &image, const Roi &roi, int n, int x, int y) {
    const Coordinate u = coordinate(roi.matrix[0], static_cast<float>(x), static_cast<float>(y));
    const Coordinate v = coordinate(roi.matrix[1], static_cast<float>(x), static_cast<float>(y));
    const int column = roi.origin[0] + u.whole, row = roi.origin[1] + v.whole;
    const float step = 1.0f / n;
    float total = 0.0f;
    for (int j = 0; j < n; ++j) {
        const float dy = (j + 0.5f) * step - 0.5f;
        for (int i = 0; i < n; ++i) {
            const float dx = (i + 0.5f) * step - 0.5f;
            const float across = u.part + (roi.matrix[0][0] * dx + roi.matrix[0][1] * dy);
            const float down = v.part + (roi.matrix[1][0] * dx + roi.matrix[1][1] * dy);
            if (fabsf(across) < kFar && fabsf(down) < kFar) { // false for NaN too
                const float left = floorf(across), top = floorf(down);
                total += image.bilinear(column + static_cast<int>(left), row + static_cast<int>(top), across - left,
                                        down - top);
            }
        }
    }
    return total * (step * step);
}

template <typename Pixel>
__device__ float2 two_pixels(const Source &source, const Roi &roi, int table, int n, int x, int y) {
    const int sign = source.sign;
    const Image<Pixel> image = {source.pixels, source.tables[table], source.pitch,
                                source.columns, source.rows, sign,
                                source.stored_min + sign, source.lengths[table] - 1};
    return make_float2(pixel(image, roi, n, x, y), pixel(image, roi, n, x + 1, y));
}

__device__ inline void store_two(__half *out, float first, float second) {
    *reinterpret_cast<__half2 *>(out) = __floats2half2_rn(first, second);
}

__device__ inline void store_two(float *out, float first, float second) {
    *reinterpret_cast<float2 *>(out) = make_float2(first, second);
}

__device__ inline void store_one(__half *out, float value) { *out = __float2half_rn(value); }

__device__ inline void store_one(float *out, float value) { *out = value; }

__device__ inline bool readable(const WarpArgs &args, const Roi &roi) {
    const bool near_x = fabsf(static_cast<float>(roi.origin[0])) < kFar;
    const bool near_y = fabsf(static_cast<float>(roi.origin[1])) < kFar;
    return 0 <= roi.source && roi.source < args.source_count && near_x && near_y &&
           args.sources[roi.source].pixels != nullptr;
}

template <typename Value> __device__ void warp(const WarpArgs &args) {
    const int x = 2 * (blockIdx.x * blockDim.x + threadIdx.x), y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= args.width || y >= args.height) {
        return;
    }
    const Roi roi = args.rois[blockIdx.z];
    float2 grey = make_float2(0.0f, 0.0f);
    if (readable(args, roi)) {
        const Source &source = args.sources[roi.source];
        grey = source.bytes == 2 ? two_pixels<unsigned short>(source, roi, args.table, args.antialias, x, y)
                                 : two_pixels<unsigned char>(source, roi, args.table, args.antialias, x, y);
    }
    const size_t plane = static_cast<size_t>(args.height) * args.width;
    Value *out = static_cast<Value *>(args.out) + blockIdx.z * args.channels * plane +
                 static_cast<size_t>(y) * args.width + x;
    const bool even = args.width % 2 == 0; // then every pair is aligned
    for (int channel = 0; channel < args.channels; ++channel, out += plane) {
        const float mean = args.mean[channel], std = args.std[channel];
        const float first = (grey.x - mean) / std, second = (grey.y - mean) / std;
        if (even) {
            store_two(out, first, second);
        } else {
            store_one(out, first);
            if (x + 1 < args.width) {
                store_one(out + 1, second);
            }
        }
    }
}

} // namespace

extern "C" __global__ void __launch_bounds__(128) warp_f16(const __grid_constant__ WarpArgs args) {
    warp<__half>(args);
}

extern "C" __global__ void __launch_bounds__(128) warp_f32(const __grid_constant__ WarpArgs args) {
    warp<float>(args);
}
