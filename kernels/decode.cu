// Kernel 2, `decode`: heatmaps to disc points, and points to the next regions of interest. Contract and oracle: decode.py.
//
// decode_f16, decode_f32   heatmaps (N, joints, height, width) and the ROIs that cut the network's input to points
//                          (N, 6, 2): one block of 128 threads per point, grid (12, N)
// boxes                    points to the second pass's ROIs (N): one thread per view, blocks of 32
// crops                    points to the crops' ROIs (N, 6, flips): one thread per disc, blocks of 32
//
// Ties    the peak is the largest (value, reversed index) as one 64-bit number, so that the lowest index wins in any
//         order of the threads, and two launches give the same bits.
// Double  DARK's 5 x 5 neighbourhood, the mapping to source pixels and the ROIs are computed in double, so that what is
//         accepted is what the oracle accepts; that is a few hundred operations per point, spread over the block.
// Bounds  a view whose region is not 0 or 1 has no points; coordinates beyond 2^29 count as not finite.
// Compile nvcc -O3 -std=c++17 -arch=sm_75 --fatbin decode.cu (build.py has all architectures)

#include <cfloat>

#include <cuda_fp16.h>

#include "records.cuh"

namespace {

constexpr int kThreads = 128;
constexpr int kRadius = 5; // of the Gaussian
constexpr double kMaxStep = 2.0, kLogFloor = 1e-10;

// exp(-k^2 / 8), normalised over k = -5 .. 5
__constant__ double kGaussian[2 * kRadius + 1] = {
    0.008812229292562285, 0.027143577143479373, 0.06511405659938267, 0.1216490730138096,
    0.1769983568313557,   0.20056541423882085,  0.1769983568313557,  0.1216490730138096,
    0.06511405659938267,  0.027143577143479373, 0.008812229292562285};

__device__ inline float number(float value) { return value; }

__device__ inline float number(__half value) { return __half2float(value); }

// A heatmap in which NaN and infinity are 0.
template <typename Value> struct Heatmap {
    const Value *values;
    int height, width;

    __device__ inline float at(int index) const {
        const float value = number(values[index]);
        return fabsf(value) <= FLT_MAX ? value : 0.0f;
    }

    __device__ inline float at(int x, int y) const { return at(y * width + x); }
};

struct Peak {
    int x, y;
    float value; // 0: nothing above 0
};

// The block's largest value above 0; every thread gets it.
template <typename Value> __device__ Peak peak(const Heatmap<Value> &heatmap) {
    __shared__ unsigned long long best[kThreads];
    const int thread = threadIdx.x, count = heatmap.height * heatmap.width;
    unsigned long long mine = 0;
    for (int index = thread; index < count; index += kThreads) {
        const float value = heatmap.at(index);
        if (value > 0.0f) { // such floats are ordered as their bits
            const unsigned long long bits = __float_as_uint(value);
            const unsigned long long key = bits << 32 | (0xffffffffu - static_cast<unsigned>(index));
            mine = max(mine, key);
        }
    }
    best[thread] = mine;
    __syncthreads();
    for (int half = kThreads / 2; half > 0; half /= 2) {
        if (thread < half) {
            best[thread] = max(best[thread], best[thread + half]);
        }
        __syncthreads();
    }
    if (best[0] == 0) {
        return {0, 0, 0.0f};
    }
    const int index = static_cast<int>(0xffffffffu - static_cast<unsigned>(best[0]));
    return {index % heatmap.width, index / heatmap.width, __uint_as_float(static_cast<unsigned>(best[0] >> 32))};
}

struct Shift {
    double x, y;
};

__device__ inline double quarter_towards(float before, float after) {
    return after > before ? 0.25 : after < before ? -0.25 : 0.0;
}

template <typename Value> __device__ Shift quarter_shift(const Heatmap<Value> &heatmap, const Peak &top) {
    const int x = top.x, y = top.y;
    if (!(1 < x && x < heatmap.width - 1 && 1 < y && y < heatmap.height - 1)) {
        return {0.0, 0.0};
    }
    return {quarter_towards(heatmap.at(x - 1, y), heatmap.at(x + 1, y)),
            quarter_towards(heatmap.at(x, y - 1), heatmap.at(x, y + 1))};
}

__device__ Shift newton_step(const double h[5][5]) { // the peak at [2][2]
    const double dx = 0.5 * (h[2][3] - h[2][1]), dy = 0.5 * (h[3][2] - h[1][2]);
    const double dxx = 0.25 * (h[2][4] - 2 * h[2][2] + h[2][0]), dyy = 0.25 * (h[4][2] - 2 * h[2][2] + h[0][2]);
    const double dxy = 0.25 * (h[3][3] - h[1][3] - h[3][1] + h[1][1]);
    const double determinant = dxx * dyy - dxy * dxy;
    if (!(determinant > 0 && dxx < 0)) {
        return {0.0, 0.0};
    }
    return {fmin(fmax((dxy * dy - dyy * dx) / determinant, -kMaxStep), kMaxStep),
            fmin(fmax((dxy * dx - dxx * dy) / determinant, -kMaxStep), kMaxStep)};
}

// The whole block takes part; the first thread's answer counts.
template <typename Value> __device__ Shift dark_shift(const Heatmap<Value> &heatmap, const Peak &top) {
    __shared__ double across[5 + 2 * kRadius][5]; // blurred along x: 15 rows about the peak, 5 columns
    __shared__ double logs[5][5];
    const int x = top.x, y = top.y, thread = threadIdx.x;
    if (!(1 < x && x < heatmap.width - 2 && 1 < y && y < heatmap.height - 2)) {
        return {0.0, 0.0};
    }
    const int row = thread / 5, column = thread % 5;
    if (row < 5 + 2 * kRadius) {
        const int from_y = y - 2 - kRadius + row, from_x = x - 2 - kRadius + column;
        double sum = 0.0;
        for (int k = 0; k < 2 * kRadius + 1; ++k) {
            const bool inside = 0 <= from_y && from_y < heatmap.height && 0 <= from_x + k && from_x + k < heatmap.width;
            sum += inside ? kGaussian[k] * heatmap.at(from_x + k, from_y) : 0.0;
        }
        across[row][column] = sum;
    }
    __syncthreads();
    if (row < 5) {
        double sum = 0.0;
        for (int k = 0; k < 2 * kRadius + 1; ++k) {
            sum += kGaussian[k] * across[row + k][column];
        }
        logs[row][column] = log(fmax(sum, kLogFloor));
    }
    __syncthreads();
    return newton_step(logs);
}

__device__ inline Point point_at(double x, double y, float confidence) {
    const bool known = fabs(x) < kFar && fabs(y) < kFar; // false for NaN too
    return known ? Point{{static_cast<float>(x), static_cast<float>(y)}, confidence} : Point{{0.0f, 0.0f}, 0.0f};
}

// A position in the heatmap, in source pixels.
__device__ Point to_source(const DecodeArgs &args, const Roi &roi, double x, double y, float confidence) {
    const double scale = args.stride;
    const double in_x = args.centre_aligned ? scale * (x + 0.5) - 0.5 : scale * x;
    const double in_y = args.centre_aligned ? scale * (y + 0.5) - 0.5 : scale * y;
    const auto along = [&](int axis) {
        const float *row = roi.matrix[axis];
        return row[0] * in_x + row[1] * in_y + (static_cast<double>(row[2]) + roi.origin[axis]);
    };
    return point_at(along(0), along(1), confidence);
}

template <typename Value> __device__ void decode(const DecodeArgs &args) {
    const int number = blockIdx.x, view_number = blockIdx.y;
    const View &view = args.views[view_number];
    const Roi &roi = args.rois[view_number];
    const int disc = number / 2, which = number % 2;
    Point point = {{0.0f, 0.0f}, 0.0f};
    if (view.given[disc]) {
        point = point_at(view.given_xy[disc][which][0], view.given_xy[disc][which][1], 1.0f);
    } else if (roi.source >= 0 && 0 <= view.region && view.region < kRegions) {
        const size_t plane = static_cast<size_t>(args.height) * args.width;
        const size_t channel = static_cast<size_t>(view_number) * args.joints + args.channels[view.region][number];
        const Heatmap<Value> heatmap = {static_cast<const Value *>(args.heatmaps) + channel * plane, args.height,
                                        args.width};
        const Peak top = peak(heatmap);
        Shift shift = {0.0, 0.0};
        if (top.value > 0.0f && args.method == 1) {
            shift = quarter_shift(heatmap, top);
        } else if (top.value > 0.0f && args.method == 2) {
            shift = dark_shift(heatmap, top);
        }
        if (top.value > 0.0f) {
            point = to_source(args, roi, top.x + shift.x, top.y + shift.y, top.value);
        }
    }
    if (threadIdx.x == 0) {
        args.points[view_number * 2 * kDiscs + number] = point;
    }
}

// The ROI whose output's centre shows (x, y), with the given steps per output pixel in x and y.
__device__ Roi roi_about(int source, double x, double y, Shift x_axis, Shift y_axis, int width, int height) {
    const double origin_x = floor(x + 0.5), origin_y = floor(y + 0.5);
    const double across = (width - 1) / 2.0, down = (height - 1) / 2.0;
    return {source,
            {static_cast<int>(origin_x), static_cast<int>(origin_y)},
            {{static_cast<float>(x_axis.x), static_cast<float>(y_axis.x),
              static_cast<float>(x - origin_x - x_axis.x * across - y_axis.x * down)},
             {static_cast<float>(x_axis.y), static_cast<float>(y_axis.y),
              static_cast<float>(y - origin_y - x_axis.y * across - y_axis.y * down)}}};
}

__device__ inline Roi no_roi() { return {kNoSource, {0, 0}, {{0, 0, 0}, {0, 0, 0}}}; }

// A direction in the upright image, as a direction in a source that `turns` quarter turns clockwise bring upright.
__device__ Shift in_source(Shift way, int turns) {
    for (int turn = 0; turn < (turns & 3); ++turn) {
        way = {way.y, -way.x};
    }
    return way;
}

__device__ Roi box(const BoxesArgs &args, const Point *points, const View &view) {
    double low_x = DBL_MAX, low_y = DBL_MAX, high_x = -DBL_MAX, high_y = -DBL_MAX;
    for (int number = 0; number < 2 * kDiscs; ++number) {
        if (points[number].confidence > 0.0f) {
            const double x = points[number].xy[0], y = points[number].xy[1];
            low_x = fmin(low_x, x), high_x = fmax(high_x, x);
            low_y = fmin(low_y, y), high_y = fmax(high_y, y);
        }
    }
    const double across = view.turns & 1 ? high_y - low_y : high_x - low_x;
    const double along = view.turns & 1 ? high_x - low_x : high_y - low_y;
    const double scale = args.padding * fmax(across / args.width, along / args.height);
    if (!(scale > 0.0)) { // fewer than two points, or all at one place
        return no_roi();
    }
    const Shift x_axis = in_source({view.faces_right ? -scale : scale, 0.0}, view.turns);
    return roi_about(view.source, (low_x + high_x) / 2, (low_y + high_y) / 2, x_axis,
                     in_source({0.0, scale}, view.turns), args.width, args.height);
}

__device__ inline bool both_found(const Point *points, int disc) {
    return points[2 * disc].confidence > 0.0f && points[2 * disc + 1].confidence > 0.0f;
}

__device__ inline double distance(const Point &from, const Point &to) {
    const double x = static_cast<double>(to.xy[0]) - from.xy[0], y = static_cast<double>(to.xy[1]) - from.xy[1];
    return sqrt(x * x + y * y);
}

// Mean distance between neighbouring disc centres that were both found, 0 where there are none.
__device__ double spacing(const Point *points) {
    double sum = 0.0;
    int steps = 0;
    for (int disc = 1; disc < kDiscs; ++disc) {
        if (both_found(points, disc - 1) && both_found(points, disc)) {
            sum += distance(points[2 * disc - 2], points[2 * disc]);
            ++steps;
        }
    }
    return steps ? sum / steps : 0.0;
}

__device__ void disc_crops(const CropsArgs &args, const Point *points, const View &view, int disc, Roi *rois) {
    const Point &centre = points[2 * disc], &anterior = points[2 * disc + 1];
    const double length = distance(centre, anterior), unit = args.spacing_unit ? spacing(points) : length;
    const double scale = args.extent * unit / args.size;
    const bool known = both_found(points, disc) && length > 0.0 && scale > 0.0;
    const double along = known ? (args.anterior_right ? scale : -scale) / length : 0.0;
    const Shift x_axis = {along * (static_cast<double>(anterior.xy[0]) - centre.xy[0]),
                          along * (static_cast<double>(anterior.xy[1]) - centre.xy[1])};
    const bool upright = (args.anterior_right != 0) == (view.faces_right != 0);
    for (int flip = 0; flip < args.flips; ++flip) {
        const double down = upright == ((args.flip_bits >> flip & 1) == 0) ? 1.0 : -1.0;
        rois[flip] = known ? roi_about(view.source, centre.xy[0], centre.xy[1], x_axis,
                                       {-down * x_axis.y, down * x_axis.x}, args.size, args.size)
                           : no_roi();
    }
}

} // namespace

extern "C" __global__ void __launch_bounds__(128) decode_f16(const __grid_constant__ DecodeArgs args) {
    decode<__half>(args);
}

extern "C" __global__ void __launch_bounds__(128) decode_f32(const __grid_constant__ DecodeArgs args) {
    decode<float>(args);
}

extern "C" __global__ void __launch_bounds__(32) boxes(const __grid_constant__ BoxesArgs args) {
    const int view = blockIdx.x * blockDim.x + threadIdx.x;
    if (view < args.count) {
        args.rois[view] = box(args, args.points + view * 2 * kDiscs, args.views[view]);
    }
}

extern "C" __global__ void __launch_bounds__(32) crops(const __grid_constant__ CropsArgs args) {
    const int number = blockIdx.x * blockDim.x + threadIdx.x, view = number / kDiscs, disc = number % kDiscs;
    if (view < args.count) {
        disc_crops(args, args.points + view * 2 * kDiscs, args.views[view], disc, args.rois + number * args.flips);
    }
}
