// The kernels as a shared library for the host. Entry points (C, see host_build.py):
//
//   int  spinescore_launch(const char *kernel, const unsigned grid[3], const unsigned block[3], const void *args)
//        runs the kernel to its end; 0: done, 1: no such kernel, 2: a grid or block that a GPU refuses
//   long spinescore_args_bytes(const char *kernel)          size of its argument block, -1: no such kernel
//   void spinescore_reverse_threads(int reversed)           the order of a block's threads, for the calling thread
//
// Several threads may launch at the same time.

#include <ucontext.h>

#include <cstring>
#include <memory>
#include <vector>

#include "average.cu"
#include "decode.cu"
#include "warp.cu"

namespace {

constexpr std::size_t kStackBytes = 64 * 1024;

struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack{new char[kStackBytes]};
    dim3 index;
    bool running = false;
};

struct Kernel {
    const char *name;
    std::size_t args_bytes;
    unsigned most_threads;
    bool has_barriers;
    void (*run)(const void *args);
};

thread_local ucontext_t scheduler;
thread_local std::vector<std::unique_ptr<Fiber>> fibers;
thread_local Fiber *current = nullptr;
thread_local const Kernel *kernel = nullptr;
thread_local const void *arguments = nullptr;
thread_local bool reversed = false;

void run_fiber() {
    kernel->run(arguments);
    current->running = false; // and on to the scheduler, which is the context's successor
}

void start(Fiber &fiber, unsigned number) {
    fiber.index = {number % blockDim.x, number / blockDim.x % blockDim.y, number / (blockDim.x * blockDim.y)};
    fiber.running = true;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = &scheduler;
    makecontext(&fiber.context, run_fiber, 0);
}

void run_block_with_barriers(unsigned threads) {
    while (fibers.size() < threads) {
        fibers.push_back(std::make_unique<Fiber>());
    }
    for (unsigned number = 0; number < threads; ++number) {
        start(*fibers[number], number);
    }
    for (bool any = true; any;) {
        any = false;
        for (unsigned turn = 0; turn < threads; ++turn) {
            Fiber &fiber = *fibers[reversed ? threads - 1 - turn : turn];
            if (fiber.running) {
                any = true;
                current = &fiber;
                threadIdx = fiber.index;
                swapcontext(&scheduler, &fiber.context);
            }
        }
    }
}

void run_block(unsigned threads) {
    for (unsigned turn = 0; turn < threads; ++turn) {
        const unsigned number = reversed ? threads - 1 - turn : turn;
        threadIdx = {number % blockDim.x, number / blockDim.x % blockDim.y, number / (blockDim.x * blockDim.y)};
        kernel->run(arguments);
    }
}

template <typename Args, void (*function)(Args)> void call(const void *args) { function(*static_cast<const Args *>(args)); }

const Kernel kernels[] = {
    {"warp_f16", sizeof(WarpArgs), 128, false, call<const WarpArgs, warp_f16>},
    {"warp_f32", sizeof(WarpArgs), 128, false, call<const WarpArgs, warp_f32>},
    {"decode_f16", sizeof(DecodeArgs), 128, true, call<const DecodeArgs, decode_f16>},
    {"decode_f32", sizeof(DecodeArgs), 128, true, call<const DecodeArgs, decode_f32>},
    {"boxes", sizeof(BoxesArgs), 32, false, call<const BoxesArgs, boxes>},
    {"crops", sizeof(CropsArgs), 32, false, call<const CropsArgs, crops>},
    {"mirror_f16", sizeof(MirrorArgs), 128, false, call<const MirrorArgs, mirror_f16>},
    {"mirror_f32", sizeof(MirrorArgs), 128, false, call<const MirrorArgs, mirror_f32>},
    {"average_f16", sizeof(AverageArgs), 128, false, call<const AverageArgs, average_f16>},
    {"average_f32", sizeof(AverageArgs), 128, false, call<const AverageArgs, average_f32>},
};

const Kernel *find(const char *name) {
    for (const Kernel &candidate : kernels) {
        if (std::strcmp(candidate.name, name) == 0) {
            return &candidate;
        }
    }
    return nullptr;
}

} // namespace

void __syncthreads() {
    Fiber &mine = *current;
    swapcontext(&mine.context, &scheduler);
}

extern "C" long spinescore_args_bytes(const char *name) {
    const Kernel *found = find(name);
    return found ? static_cast<long>(found->args_bytes) : -1;
}

extern "C" void spinescore_reverse_threads(int reverse) { reversed = reverse != 0; }

extern "C" int spinescore_launch(const char *name, const unsigned grid[3], const unsigned block[3], const void *args) {
    kernel = find(name);
    if (!kernel) {
        return 1;
    }
    const unsigned threads = block[0] * block[1] * block[2];
    if (threads == 0 || threads > kernel->most_threads || grid[0] == 0 || grid[1] - 1 > 65534 || grid[2] - 1 > 65534) {
        return 2;
    }
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    arguments = args;
    for (unsigned z = 0; z < grid[2]; ++z) {
        for (unsigned y = 0; y < grid[1]; ++y) {
            for (unsigned x = 0; x < grid[0]; ++x) {
                blockIdx = {x, y, z};
                kernel->has_barriers ? run_block_with_barriers(threads) : run_block(threads);
            }
        }
    }
    return 0;
}
