// What the driver double (driver_double.cpp) holds and how queued work runs. Included once.
#pragma once

#include <cuda.h>
#include <dlfcn.h>
#include <sys/mman.h>

#include <chrono>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#undef cuEventElapsedTime

namespace driver_double {

using Run = std::function<CUresult()>;

struct Block { // memory that was handed out, and stays known when it is freed
    std::size_t bytes;
    bool on_host, live;
};
struct Mark { // one recording of an event
    CUstream stream;
    bool reached = false;
    double ms = 0;
};
using MarkPointer = std::shared_ptr<Mark>;
struct Step { // of a stream's queue: runs, or waits for a mark, or reaches one
    Run run;
    MarkPointer awaits, reaches;
};
struct Node { // of a graph: runs, or records an event
    Run run;
    CUevent records;
};
using Nodes = std::vector<Node>;

std::map<std::uintptr_t, Block> blocks;
std::map<std::string, long> calls, settings = {
    {"devices", 1}, {"version", CUDA_VERSION}, {"memory", 1L << 40}, {"toolkit", CUDA_VERSION}, {"refusal", CUDA_ERROR_INVALID_IMAGE}};
std::set<const void *> contexts, modules;
thread_local std::vector<CUcontext> stack;
CUresult lost = CUDA_SUCCESS;
struct {
    long left = 0;
    CUresult status;
    bool for_good;
    std::string name;
} failure;

} // namespace driver_double
using namespace driver_double;

struct CUctx_st {};
struct CUevent_st {
    MarkPointer last;
};
struct CUstream_st {
    std::deque<Step> queue;
    std::unique_ptr<Nodes> capture;
    bool spoiled = false;
};
struct CUgraph_st {
    Nodes nodes;
};
struct CUgraphExec_st {
    Nodes nodes;
};
struct CUfunc_st {
    std::string name;
    CUmodule module;
};
struct CUmod_st {
    void *library;
    std::map<std::string, CUfunc_st> functions;
};

namespace driver_double {

CUctx_st primary;
long retained = 0;
std::set<CUstream> streams;
std::set<CUevent> events;
std::set<CUgraph> graphs;
std::set<CUgraphExec> runnables;

enum { kAlways = 0, kContext = 1, kNotCaptured = 3 }; // what a call needs

CUresult enter(const char *name, int needs) {
    ++calls[name];
    if (lost != CUDA_SUCCESS) {
        return lost;
    }
    if (failure.left > 0 && (failure.name.empty() || failure.name == name) && --failure.left == 0) {
        lost = failure.for_good ? failure.status : CUDA_SUCCESS;
        return failure.status;
    }
    if ((needs & kContext) && (stack.empty() || !retained)) {
        return CUDA_ERROR_INVALID_CONTEXT;
    }
    if (needs == kNotCaptured) {
        for (CUstream stream : streams) {
            if (stream->capture) {
                stream->spoiled = true;
                return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
            }
        }
    }
    return CUDA_SUCCESS;
}

#define ENTER(needs)                                                  \
    if (CUresult status = enter(__func__, needs); status != CUDA_SUCCESS) \
    return status
#define NEED(condition, status) \
    if (!(condition))           \
    return status

double now_ms() {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

const Block *block_of(std::uintptr_t address, std::size_t *left = nullptr) {
    auto next = blocks.upper_bound(address);
    if (next == blocks.begin()) {
        return nullptr;
    }
    --next;
    if (address >= next->first + next->second.bytes) {
        return nullptr;
    }
    if (left) {
        *left = next->first + next->second.bytes - address;
    }
    return &next->second;
}

bool is_whole(std::uintptr_t address, std::size_t bytes) {
    std::size_t left = 0;
    const Block *block = block_of(address, &left);
    return block && block->live && bytes <= left;
}

bool is_pinned(const void *host, std::size_t bytes) {
    const Block *block = block_of(reinterpret_cast<std::uintptr_t>(host));
    return block && block->on_host && is_whole(reinterpret_cast<std::uintptr_t>(host), bytes);
}

std::size_t pages(std::size_t bytes) { return (bytes + 4095) / 4096 * 4096; }

CUresult take(std::size_t bytes, bool on_host, std::uintptr_t *address) {
    NEED(bytes > 0, CUDA_ERROR_INVALID_VALUE);
    long used = 0;
    for (const auto &block : blocks) {
        used += block.second.live && block.second.on_host == on_host ? block.second.bytes : 0;
    }
    NEED(used + static_cast<long>(bytes) <= settings["memory"], CUDA_ERROR_OUT_OF_MEMORY);
    void *memory = mmap(nullptr, pages(bytes) + 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    NEED(memory != MAP_FAILED && mprotect(memory, pages(bytes), PROT_READ | PROT_WRITE) == 0, CUDA_ERROR_OUT_OF_MEMORY);
    *address = reinterpret_cast<std::uintptr_t>(memory);
    blocks[*address] = {bytes, on_host, true};
    return CUDA_SUCCESS;
}

CUresult give_back(std::uintptr_t address, bool on_host) {
    auto found = blocks.find(address);
    NEED(found != blocks.end() && found->second.live && found->second.on_host == on_host, CUDA_ERROR_INVALID_VALUE);
    found->second.live = false;
    void *memory = reinterpret_cast<void *>(address);
    madvise(memory, pages(found->second.bytes), MADV_DONTNEED);
    mprotect(memory, pages(found->second.bytes), PROT_NONE);
    return CUDA_SUCCESS;
}

CUresult drain(CUstream stream, const Mark *until = nullptr) {
    while (!stream->queue.empty() && !(until && until->reached) && lost == CUDA_SUCCESS) {
        Step step = std::move(stream->queue.front());
        stream->queue.pop_front();
        if (step.awaits && !step.awaits->reached) {
            drain(step.awaits->stream, step.awaits.get());
        }
        if (step.run) {
            lost = step.run();
        }
        if (step.reaches) {
            step.reaches->reached = true;
            step.reaches->ms = now_ms();
        }
    }
    return lost;
}

CUresult queue(CUstream stream, Run run) {
    NEED(streams.count(stream), CUDA_ERROR_INVALID_HANDLE);
    NEED(!stream->spoiled, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    if (stream->capture) {
        stream->capture->push_back({std::move(run), nullptr});
    } else {
        stream->queue.push_back({std::move(run), nullptr, nullptr});
    }
    return CUDA_SUCCESS;
}

CUresult record(CUevent event, CUstream stream) {
    event->last = std::make_shared<Mark>(Mark{stream});
    stream->queue.push_back({nullptr, nullptr, event->last});
    return CUDA_SUCCESS;
}

CUresult copy(void *to, const void *from, std::size_t bytes, const void *on_device) {
    NEED(is_whole(reinterpret_cast<std::uintptr_t>(on_device), bytes), CUDA_ERROR_ILLEGAL_ADDRESS);
    std::memcpy(to, from, bytes);
    return CUDA_SUCCESS;
}

// The newest PTX ISA of a driver: 9.0 with CUDA 13.0, 8.5 with 12.6, 7.4 with 11.4 (PTX ISA, release history).
double newest_isa() {
    const long major = settings["version"] / 1000, minor = settings["version"] % 1000 / 10;
    return major >= 13 ? 9.0 + 0.1 * minor : major == 12 ? (minor < 6 ? 8.0 + 0.1 * minor : 8.5) : 7.0 + 0.1 * minor;
}

CUresult load(CUmodule *module, const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    NEED(library, CUDA_ERROR_INVALID_IMAGE);
    *module = new CUmod_st{library, {}};
    modules.insert(*module);
    return CUDA_SUCCESS;
}

CUresult run_kernel(CUfunction function, const unsigned *grid, const unsigned *block, const std::string &arguments) {
    NEED(modules.count(function->module), CUDA_ERROR_ILLEGAL_ADDRESS);
    for (std::size_t at = 0; at + 8 <= arguments.size(); at += 8) {
        std::uintptr_t word;
        std::memcpy(&word, arguments.data() + at, 8);
        const Block *named = block_of(word);
        NEED(!named || named->live, CUDA_ERROR_ILLEGAL_ADDRESS);
    }
    using Launch = int (*)(const char *, const unsigned *, const unsigned *, const void *);
    auto launch = reinterpret_cast<Launch>(dlsym(function->module->library, "spinescore_launch"));
    return launch(function->name.c_str(), grid, block, arguments.data()) ? CUDA_ERROR_LAUNCH_FAILED : CUDA_SUCCESS;
}

} // namespace driver_double
using namespace driver_double;
