// Records and argument blocks that the kernels share with the host: the dtypes of warp.py, decode.py and layouts.py.
#pragma once

constexpr int kDiscs = 6;        // per region
constexpr int kRegions = 2;      // cervical, lumbar
constexpr int kTables = 2;       // per source: the localizer's and the grader's
constexpr int kMaxChannels = 16; // of a warp's output
constexpr int kMostRuns = 16;    // in one average of heatmaps
constexpr int kNoSource = -1;    // a region of interest that could not be determined

// Coordinates from here on lie outside of every image; below it they are exact enough, and sums of three fit an int.
constexpr float kFar = 536870912.0f; // 2^29

struct Roi {
    int source;
    int origin[2];      // x, y in the source
    float matrix[2][3]; // output pixel (x, y, 1) to source pixel, relative to the origin
};

struct Line { // a table that is a clamped line: clamp(slope * (2^23 + value - origin) + offset, low, high)
    float origin, slope, offset, low, high;
};

struct Source {
    const unsigned char *pixels; // null: no image
    const float *tables[kTables];
    int lengths[kTables];
    int pitch; // bytes
    int columns, rows;
    int bytes;      // per pixel: 1 or 2
    int sign;       // the sign bit of signed pixels, else 0
    int stored_min; // stored value of the tables' first entry
    int linear[kTables]; // 1: the line below stands for the table
    Line lines[kTables]; // `value` is the pixel as an unsigned number, its sign bit reversed
};

struct Point {
    float xy[2]; // source pixels
    float confidence;
};

struct View {
    int source;
    int region;
    int faces_right; // in the upright image
    int turns;       // quarter turns clockwise that bring the source upright
    int given[kDiscs];
    float given_xy[kDiscs][2][2]; // centre, anterior
};

struct WarpArgs {
    const Source *sources;
    const Roi *rois;
    void *out;
    int source_count;
    int height, width, antialias, channels, table;
    float mean[kMaxChannels], std[kMaxChannels];
};

struct DecodeArgs {
    const void *heatmaps;
    const Roi *rois;
    const View *views;
    Point *points;
    int joints, height, width;
    int method; // 0 argmax, 1 quarter, 2 dark
    int centre_aligned, stride;
    int channels[kRegions][2 * kDiscs];
};

struct BoxesArgs {
    const Point *points;
    const View *views;
    Roi *rois;
    int count, height, width;
    float padding;
};

struct CropsArgs {
    const Point *points;
    const View *views;
    Roi *rois;
    int count, size, spacing_unit;
    float extent;
    int anterior_right, flips, flip_bits, unused;
};

struct MirrorArgs {
    const void *images;
    void *out;
    int rows, width;
};

struct Run { // of the localizer
    const void *heatmaps;
    int height, width;
    float scale, offset; // pixel x of the output lies at scale * x + offset
    int flipped, shift;  // columns are read from the right, `shift` to the right of their place
};

struct AverageArgs {
    void *out;
    int height, width, count, unused;
    Run runs[kMostRuns];
};

static_assert(sizeof(Roi) == 36 && sizeof(Source) == 104 && sizeof(Point) == 12 && sizeof(View) == 136, "warp.py, decode.py");
static_assert(sizeof(WarpArgs) == 176 && sizeof(DecodeArgs) == 152, "layouts.py");
static_assert(sizeof(BoxesArgs) == 40 && sizeof(CropsArgs) == 56, "layouts.py");
static_assert(sizeof(MirrorArgs) == 24 && sizeof(Run) == 32 && sizeof(AverageArgs) == 536, "layouts.py");
