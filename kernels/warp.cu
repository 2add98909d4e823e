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
// Tables  a table that is a clamped line (a linear window) is computed and not read: half of the loads are gone.
// Loads   two samples of each of two pixels are 16 stored values and 16 table entries; all values are read first, then all
//         entries, so that 16 loads are in flight at once. The launch bounds leave the registers for it.
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

// One source, and one of its tables, ready to be read. kLinear: the table's line stands for it.
template <typename Pixel, bool kLinear> struct Image {
    const unsigned char *pixels;
    const float *table;
    long long pitch;
    int columns, rows;
    int sign, first, last; // index = clamp((stored ^ sign) - first, 0, last)
    Line line;

    __device__ inline Pixel stored(int column, int row) const {
        return __ldg(reinterpret_cast<const Pixel *>(pixels + row * pitch) + column);
    }

    __device__ inline float grey(Pixel stored) const {
        const int value = static_cast<int>(stored) ^ sign;
        if (kLinear) { // 2^23 + value has the value in its lowest bits: a subtraction is quicker than a conversion
            const float steps = __fadd_rn(__uint_as_float(0x4B000000u | value), -line.origin); // exact
            return fminf(fmaxf(fmaf(line.slope, steps, line.offset), line.low), line.high);
        }
        return __ldg(table + min(max(value - first, 0), last));
    }
};

// One bilinear sample: its four taps, moved into the image, and their weights, 0 for a tap that was outside.
struct Sample {
    int columns[2], rows[2];  // left and right, top and bottom
    float across[2], down[2]; // weights
};

// The sample at (column, row) + (right, down). A remainder that is not finite, or too far away, has weights of 0.
template <typename Pixel, bool kLinear>
__device__ inline Sample sample(const Image<Pixel, kLinear> &image, int column, int row, float right, float down) {
    const bool near = fabsf(right) < kFar && fabsf(down) < kFar; // false for NaN too
    const float left = near ? floorf(right) : 0.0f, top = near ? floorf(down) : 0.0f;
    const int x = column + static_cast<int>(left), y = row + static_cast<int>(top);
    const bool left_in = near && 0 <= x && x < image.columns, right_in = near && -1 <= x && x < image.columns - 1;
    const bool top_in = near && 0 <= y && y < image.rows, bottom_in = near && -1 <= y && y < image.rows - 1;
    return {{min(max(x, 0), image.columns - 1), min(max(x + 1, 0), image.columns - 1)},
            {min(max(y, 0), image.rows - 1), min(max(y + 1, 0), image.rows - 1)},
            {left_in ? 1.0f - (right - left) : 0.0f, right_in ? right - left : 0.0f},
            {top_in ? 1.0f - (down - top) : 0.0f, bottom_in ? down - top : 0.0f}};
}

// Where the centre of an output pixel lies in the source: (column + u.part, row + v.part).
struct Centre {
    Coordinate u, v;
    int column, row;
};

__device__ inline Centre centre(const Roi &roi, int x, int y) {
    const Coordinate u = coordinate(roi.matrix[0], static_cast<float>(x), static_cast<float>(y));
    const Coordinate v = coordinate(roi.matrix[1], static_cast<float>(x), static_cast<float>(y));
    return {u, v, roi.origin[0] + u.whole, roi.origin[1] + v.whole};
}

// Where sample i of n lies about the pixel's centre: exactly 0 for the middle of an odd n, as a fused sum would not be.
__device__ inline float offset(int i, float step) { return __fadd_rn(__fmul_rn(i + 0.5f, step), -0.5f); }

// Adds samples i to i + K - 1 of row j of two pixels to their totals: 8 K stored values, then 8 K table entries.
template <int K, typename Pixel, bool kLinear>
__device__ inline void add_samples(const Image<Pixel, kLinear> &image, const Roi &roi, const Centre (&centres)[2], float step,
                                   int i, int j, float (&totals)[2]) {
    Sample all[2 * K];
    Pixel stored[2 * K][4];
    float grey[2 * K][4];
    const float dy = offset(j, step);
#pragma unroll
    for (int s = 0; s < 2 * K; ++s) {
        const Centre &at = centres[s / K];
        const float dx = offset(i + s % K, step);
        const float across = at.u.part + (roi.matrix[0][0] * dx + roi.matrix[0][1] * dy);
        const float down = at.v.part + (roi.matrix[1][0] * dx + roi.matrix[1][1] * dy);
        all[s] = sample(image, at.column, at.row, across, down);
    }
#pragma unroll
    for (int s = 0; s < 2 * K; ++s) {
#pragma unroll
        for (int tap = 0; tap < 4; ++tap) {
            stored[s][tap] = image.stored(all[s].columns[tap % 2], all[s].rows[tap / 2]);
        }
    }
#pragma unroll
    for (int s = 0; s < 2 * K; ++s) {
#pragma unroll
        for (int tap = 0; tap < 4; ++tap) {
            grey[s][tap] = image.grey(stored[s][tap]);
        }
    }
#pragma unroll
    for (int s = 0; s < 2 * K; ++s) {
        const float *across = all[s].across, *down = all[s].down;
        const float upper = across[0] * grey[s][0] + across[1] * grey[s][1];
        const float lower = across[0] * grey[s][2] + across[1] * grey[s][3];
        totals[s / K] += down[0] * upper + down[1] * lower;
    }
}

// The means of n x n samples about output pixels (x, y) and (x + 1, y).
template <typename Pixel, bool kLinear>
__device__ float2 two_pixels(const Source &source, const Roi &roi, int table, int n, int x, int y) {
    const int sign = source.sign;
    const Image<Pixel, kLinear> image = {source.pixels,
                                         source.tables[table],
                                         source.pitch,
                                         source.columns,
                                         source.rows,
                                         sign,
                                         source.stored_min + sign,
                                         source.lengths[table] - 1,
                                         source.lines[table]};
    const Centre centres[2] = {centre(roi, x, y), centre(roi, x + 1, y)};
    const float step = 1.0f / n;
    float totals[2] = {0.0f, 0.0f};
    for (int j = 0; j < n; ++j) {
        int i = 0;
        for (; i + 1 < n; i += 2) {
            add_samples<2>(image, roi, centres, step, i, j, totals);
        }
        if (i < n) {
            add_samples<1>(image, roi, centres, step, i, j, totals);
        }
    }
    return make_float2(totals[0] * (step * step), totals[1] * (step * step));
}

template <typename Pixel>
__device__ inline float2 grey_of(const Source &source, const Roi &roi, const WarpArgs &args, int x, int y) {
    return source.linear[args.table] ? two_pixels<Pixel, true>(source, roi, args.table, args.antialias, x, y)
                                     : two_pixels<Pixel, false>(source, roi, args.table, args.antialias, x, y);
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
        grey = source.bytes == 2 ? grey_of<unsigned short>(source, roi, args, x, y)
                                 : grey_of<unsigned char>(source, roi, args, x, y);
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

extern "C" __global__ void __launch_bounds__(128, 5) warp_f16(const __grid_constant__ WarpArgs args) {
    warp<__half>(args);
}

extern "C" __global__ void __launch_bounds__(128, 5) warp_f32(const __grid_constant__ WarpArgs args) {
    warp<float>(args);
}
