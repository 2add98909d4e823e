// A driver of one GPU that is the host's memory: the calls of libcuda that pycuda, the device and its graphs make.
//
// Queued work runs as late as it may: when something waits for its stream, or for an event behind it. So a copy whose
// source is overwritten too early, or a stream that does not wait for another, gives wrong results. Freed addresses are
// never used again and cannot be read; a copy or a launch that names one fails. What a GPU forbids while a stream is
// captured fails and spoils the capture. Kernels come from a library as host_build.py makes it, whose path stands behind
// the header of the "fatbin", or in the first line of PTX. A fatbin is refused if its CUDA ("toolkit") is of a newer
// series than the driver's ("version"), PTX if its ISA is newer than the driver's. One thread at a time; host functions (cuLaunchHostFunc) may be Python.
//
// The tests ask and steer by the double_* functions at the end. Calls that are not here are generated (double.py) and
// answer CUDA_ERROR_NOT_SUPPORTED.

#include "driver_double.hpp"

extern "C" {

CUresult cuInit(unsigned) {
    ENTER(kAlways);
    return settings["devices"] ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}

CUresult cuDriverGetVersion(int *version) {
    *version = static_cast<int>(settings["version"]);
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *count) {
    ENTER(kAlways);
    *count = static_cast<int>(settings["devices"]);
    return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    ENTER(kAlways);
    *device = ordinal;
    return ordinal < settings["devices"] ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuDeviceGetName(char *name, int size, CUdevice) {
    ENTER(kAlways);
    std::strncpy(name, "driver double", size);
    return CUDA_SUCCESS;
}

CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice) {
    ENTER(kAlways);
    *major = 8, *minor = 7;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice) {
    ENTER(kAlways);
    if (attribute == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT) {
        *value = 16;
        return CUDA_SUCCESS;
    }
    const std::map<CUdevice_attribute, const char *> asked = {
        {CU_DEVICE_ATTRIBUTE_INTEGRATED, "integrated"},
        {CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES, "coherent"},
    };
    const auto found = asked.find(attribute);
    *value = found == asked.end() ? attribute == CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY : settings[found->second] != 0;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice) {
    ENTER(kAlways);
    ++retained;
    *context = &primary;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease(CUdevice) { // this and the next two work on a lost device too
    ++calls[__func__];
    NEED(retained > 0, CUDA_ERROR_INVALID_CONTEXT);
    --retained;
    return CUDA_SUCCESS;
}

CUresult cuCtxPushCurrent(CUcontext context) {
    ++calls[__func__];
    stack.push_back(context);
    return CUDA_SUCCESS;
}

CUresult cuCtxPopCurrent(CUcontext *context) {
    ++calls[__func__];
    NEED(!stack.empty(), CUDA_ERROR_INVALID_CONTEXT);
    *context = stack.back();
    stack.pop_back();
    return CUDA_SUCCESS;
}

CUresult cuMemAlloc(CUdeviceptr *address, std::size_t bytes) {
    ENTER(kNotCaptured);
    std::uintptr_t found = 0;
    const CUresult status = take(bytes, false, &found);
    *address = found;
    return status;
}

CUresult cuMemFree(CUdeviceptr address) {
    ENTER(kNotCaptured);
    for (CUstream stream : streams) { // freeing waits for the device
        drain(stream);
    }
    return give_back(address, false);
}

CUresult cuMemHostAlloc(void **host, std::size_t bytes, unsigned) {
    ENTER(kNotCaptured);
    std::uintptr_t found = 0;
    const CUresult status = take(bytes, true, &found);
    *host = reinterpret_cast<void *>(found);
    return status;
}

CUresult cuMemFreeHost(void *host) {
    ENTER(kNotCaptured);
    return give_back(reinterpret_cast<std::uintptr_t>(host), true);
}

CUresult cuMemHostGetDevicePointer(CUdeviceptr *address, void *host, unsigned) {
    ENTER(kContext);
    *address = reinterpret_cast<std::uintptr_t>(host);
    return is_pinned(host, 1) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, std::size_t bytes, CUstream stream) {
    ENTER(kContext);
    void *device = reinterpret_cast<void *>(to);
    NEED(is_whole(to, bytes) && is_pinned(from, bytes), CUDA_ERROR_INVALID_VALUE); // the device copies pinned memory only
    return queue(stream, [=] { return copy(device, from, bytes, device); });
}

CUresult cuMemcpyDtoHAsync(void *to, CUdeviceptr from, std::size_t bytes, CUstream stream) {
    ENTER(kContext);
    const void *device = reinterpret_cast<const void *>(from);
    NEED(is_whole(from, bytes) && is_pinned(to, bytes), CUDA_ERROR_INVALID_VALUE);
    return queue(stream, [=] { return copy(to, device, bytes, device); });
}

CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, std::size_t bytes, CUstream stream) {
    ENTER(kContext);
    NEED(is_whole(to, bytes) && is_whole(from, bytes), CUDA_ERROR_INVALID_VALUE);
    return queue(stream, [=] {
        NEED(is_whole(to, bytes), CUDA_ERROR_ILLEGAL_ADDRESS);
        const void *device = reinterpret_cast<const void *>(from);
        return copy(reinterpret_cast<void *>(to), device, bytes, device);
    });
}

CUresult cuMemGetInfo(std::size_t *free, std::size_t *total) {
    ENTER(kContext);
    std::size_t used = 0;
    for (const auto &block : blocks) {
        used += block.second.live && !block.second.on_host ? block.second.bytes : 0;
    }
    *total = static_cast<std::size_t>(settings["memory"]);
    *free = *total - used;
    return CUDA_SUCCESS;
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, std::size_t bytes, CUstream stream) {
    ENTER(kContext);
    NEED(is_whole(to, bytes), CUDA_ERROR_INVALID_VALUE);
    return queue(stream, [=] {
        NEED(is_whole(to, bytes), CUDA_ERROR_ILLEGAL_ADDRESS);
        std::memset(reinterpret_cast<void *>(to), value, bytes);
        return CUDA_SUCCESS;
    });
}

CUresult cuStreamCreate(CUstream *stream, unsigned) {
    ENTER(kContext);
    *stream = *streams.insert(new CUstream_st).first;
    return CUDA_SUCCESS;
}

CUresult cuStreamDestroy(CUstream stream) {
    ENTER(kNotCaptured);
    NEED(streams.count(stream), CUDA_ERROR_INVALID_HANDLE);
    drain(stream);
    streams.erase(stream); // never freed, so that a handle of the past is never a new one's
    return CUDA_SUCCESS;
}

CUresult cuStreamSynchronize(CUstream stream) {
    ENTER(kNotCaptured);
    NEED(streams.count(stream), CUDA_ERROR_INVALID_HANDLE);
    return drain(stream);
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned) {
    ENTER(kNotCaptured); // a capture that joins streams is legal on a GPU, and not needed here
    NEED(streams.count(stream) && events.count(event), CUDA_ERROR_INVALID_HANDLE);
    if (event->last) {
        stream->queue.push_back({nullptr, event->last, nullptr});
    }
    return CUDA_SUCCESS;
}

CUresult cuEventCreate(CUevent *event, unsigned) {
    ENTER(kContext);
    *event = *events.insert(new CUevent_st).first;
    return CUDA_SUCCESS;
}

CUresult cuEventDestroy(CUevent event) {
    ENTER(kContext);
    return events.erase(event) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned flags) {
    ENTER(kContext);
    NEED(events.count(event) && streams.count(stream), CUDA_ERROR_INVALID_HANDLE);
    NEED(!stream->spoiled, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    if (!stream->capture) {
        return flags == CU_EVENT_RECORD_EXTERNAL ? CUDA_ERROR_ILLEGAL_STATE : record(event, stream);
    }
    NEED(flags == CU_EVENT_RECORD_EXTERNAL, CUDA_ERROR_CAPTURED_EVENT); // it could not be read after a replay
    stream->capture->push_back({nullptr, event});
    return CUDA_SUCCESS;
}

CUresult cuEventRecord(CUevent event, CUstream stream) { return cuEventRecordWithFlags(event, stream, 0); }

CUresult cuEventSynchronize(CUevent event) {
    ENTER(kNotCaptured);
    NEED(events.count(event), CUDA_ERROR_INVALID_HANDLE);
    return event->last ? drain(event->last->stream, event->last.get()) : CUDA_SUCCESS;
}

CUresult cuEventElapsedTime(float *ms, CUevent first, CUevent last) {
    ENTER(kContext);
    NEED(events.count(first) && events.count(last) && first->last && last->last, CUDA_ERROR_INVALID_HANDLE);
    NEED(first->last->reached && last->last->reached, CUDA_ERROR_NOT_READY);
    *ms = static_cast<float>(last->last->ms - first->last->ms);
    return CUDA_SUCCESS;
}

CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned count, CUjit_option *options, void **values) {
    ENTER(kNotCaptured);
    for (unsigned i = 0; i < count; ++i) { // a log's size becomes that of what was written to it: nothing
        if (options[i] == CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES || options[i] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES) {
            values[i] = nullptr;
        }
    }
    const auto *path = static_cast<const char *>(image) + 16; // of a fatbin
    const std::string text(static_cast<const char *>(image), 3);
    if (text == "// ") { // PTX: its first line is the path, behind it stands its ISA
        const std::string ptx = static_cast<const char *>(image);
        const std::size_t line = ptx.find('\n'), version = ptx.find(".version ");
        NEED(version != std::string::npos, CUDA_ERROR_INVALID_PTX);
        NEED(std::stod(ptx.substr(version + 9)) <= newest_isa(), CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
        return load(module, ptx.substr(3, line - 3).c_str());
    }
    NEED(settings["toolkit"] / 1000 <= settings["version"] / 1000, static_cast<CUresult>(settings["refusal"]));
    return load(module, path);
}

CUresult cuModuleUnload(CUmodule module) {
    ENTER(kNotCaptured);
    return modules.erase(module) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    ENTER(kContext);
    NEED(modules.count(module), CUDA_ERROR_INVALID_HANDLE);
    auto bytes = reinterpret_cast<long (*)(const char *)>(dlsym(module->library, "spinescore_args_bytes"));
    NEED(bytes && bytes(name) >= 0, CUDA_ERROR_NOT_FOUND);
    *function = &(module->functions[name] = {name, module});
    return CUDA_SUCCESS;
}

CUresult cuFuncSetBlockShape(CUfunction, int, int, int) { // pycuda says it, and then says it again with the launch
    ENTER(kContext);
    return CUDA_SUCCESS;
}

CUresult cuLaunchKernel(CUfunction function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                        unsigned, CUstream stream, void **, void **extra) {
    ENTER(kContext);
    NEED(extra && extra[0] == CU_LAUNCH_PARAM_BUFFER_POINTER && extra[2] == CU_LAUNCH_PARAM_BUFFER_SIZE, CUDA_ERROR_INVALID_VALUE);
    const std::string arguments(static_cast<const char *>(extra[1]), *static_cast<std::size_t *>(extra[3]));
    auto bytes = reinterpret_cast<long (*)(const char *)>(dlsym(function->module->library, "spinescore_args_bytes"));
    NEED(bytes(function->name.c_str()) == static_cast<long>(arguments.size()), CUDA_ERROR_INVALID_VALUE);
    return queue(stream, [=] {
        const unsigned grid[] = {gx, gy, gz}, block[] = {bx, by, bz};
        return run_kernel(function, grid, block, arguments);
    });
}

CUresult cuLaunchHostFunc(CUstream stream, CUhostFn function, void *data) {
    ENTER(kContext);
    return queue(stream, [=] {
        function(data);
        return CUDA_SUCCESS;
    });
}

CUresult cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode) {
    ENTER(kNotCaptured);
    NEED(streams.count(stream), CUDA_ERROR_INVALID_HANDLE);
    stream->capture = std::make_unique<Nodes>();
    return CUDA_SUCCESS;
}

CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph) {
    *graph = nullptr;
    NEED(streams.count(stream) && stream->capture, CUDA_ERROR_ILLEGAL_STATE);
    const bool spoiled = stream->spoiled;
    auto nodes = std::move(stream->capture); // the capture is over also where this call fails
    stream->spoiled = false;
    ENTER(kContext);
    NEED(!spoiled, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    *graph = *graphs.insert(new CUgraph_st{std::move(*nodes)}).first;
    return CUDA_SUCCESS;
}

CUresult cuGraphGetNodes(CUgraph graph, CUgraphNode *, std::size_t *count) {
    ENTER(kContext);
    NEED(graphs.count(graph), CUDA_ERROR_INVALID_VALUE);
    *count = graph->nodes.size();
    return CUDA_SUCCESS;
}

CUresult cuGraphUpload(CUgraphExec runnable, CUstream stream) {
    ENTER(kNotCaptured);
    return runnables.count(runnable) && streams.count(stream) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec *runnable, CUgraph graph, unsigned long long) {
    ENTER(kContext);
    NEED(graphs.count(graph) && !graph->nodes.empty(), CUDA_ERROR_INVALID_VALUE); // an empty graph costs a launch
    *runnable = *runnables.insert(new CUgraphExec_st{graph->nodes}).first;
    return CUDA_SUCCESS;
}

CUresult cuGraphLaunch(CUgraphExec runnable, CUstream stream) {
    ENTER(kNotCaptured);
    NEED(runnables.count(runnable) && streams.count(stream), CUDA_ERROR_INVALID_VALUE);
    for (const Node &node : runnable->nodes) {
        if (node.records) {
            NEED(events.count(node.records), CUDA_ERROR_INVALID_HANDLE);
            record(node.records, stream);
        } else {
            stream->queue.push_back({node.run, nullptr, nullptr});
        }
    }
    return CUDA_SUCCESS;
}

CUresult cuGraphDestroy(CUgraph graph) {
    ENTER(kContext);
    return graphs.erase(graph) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGraphExecDestroy(CUgraphExec runnable) {
    ENTER(kContext);
    return runnables.erase(runnable) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGetErrorString(CUresult status, const char **text) { // as the driver words them
    static const std::map<int, const char *> texts = {
        {CUDA_ERROR_OUT_OF_MEMORY, "out of memory"},
        {CUDA_ERROR_NO_DEVICE, "no CUDA-capable device is detected"},
        {CUDA_ERROR_INVALID_IMAGE, "device kernel image is invalid"},
        {CUDA_ERROR_NO_BINARY_FOR_GPU, "no kernel image is available for execution on the device"},
        {CUDA_ERROR_INVALID_PTX, "a PTX JIT compilation failed"},
        {CUDA_ERROR_UNSUPPORTED_PTX_VERSION, "the provided PTX was compiled with an unsupported toolchain."},
        {CUDA_ERROR_JIT_COMPILER_NOT_FOUND, "PTX JIT compiler library not found"},
        {CUDA_ERROR_JIT_COMPILATION_DISABLED, "PTX JIT compilation was disabled"},
        {CUDA_ERROR_INVALID_SOURCE, "device kernel source is invalid"},
        {CUDA_ERROR_SHARED_OBJECT_INIT_FAILED, "shared object initialization failed"},
        {CUDA_ERROR_NOT_FOUND, "named symbol not found"},
        {CUDA_ERROR_INVALID_CONTEXT, "invalid device context"},
        {CUDA_ERROR_ILLEGAL_ADDRESS, "an illegal memory access was encountered"},
        {CUDA_ERROR_LAUNCH_FAILED, "unspecified launch failure"},
        {CUDA_ERROR_NOT_SUPPORTED, "operation not supported"},
        {CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "operation not permitted when stream is capturing"},
        {CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "operation failed due to a previous error during capture"},
    };
    const auto found = texts.find(status);
    *text = found == texts.end() ? "invalid argument" : found->second;
    return CUDA_SUCCESS;
}

// For the tests.

void double_set(const char *name, long value) { settings[name] = value; }

// The n-th call from now on (of that name, or of any where it is empty) fails; `for_good`: and all that come after it.
void double_fail(long nth, int status, int for_good, const char *name) {
    failure = {nth, static_cast<CUresult>(status), for_good != 0, name};
}

long double_calls(const char *name) { return calls[name]; }

// How many there are that were not given back. "current": contexts on this thread's stack.
long double_live(const char *kind) {
    long memory[2] = {0, 0};
    for (const auto &block : blocks) {
        memory[block.second.on_host] += block.second.live;
    }
    const std::map<std::string, long> live = {
        {"device", memory[0]},         {"host", memory[1]},     {"stream", streams.size()},
        {"event", events.size()},      {"module", modules.size()}, {"graph", graphs.size()},
        {"runnable", runnables.size()}, {"context", retained},  {"current", stack.size()},
    };
    return live.at(kind);
}
}
