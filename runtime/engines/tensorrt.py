"""Run engine files on TensorRT: the full library, its lean runtime, or TensorRT-RTX."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spinescore.kernels.signing import sign, signed_bytes
from spinescore.runtime.engines import CudaQueue, DeviceMemory, gpu_of
from spinescore.runtime.engines.flavours import import_flavour, lines_of, runtime_flavour, start
from spinescore.runtime.engines.places import check_origin, engine_paths
from spinescore.runtime.engines.sidecar import ENGINE_FOLDER, Sidecar
from spinescore.runtime.errors import EngineError
from spinescore.runtime.files import read_bytes, write_atomic

__all__ = ["TensorRTEngine", "open_on_gpu"]

_MOST_BYTES = 8 << 30  # of an engine, or a cache
_ALIGNMENT = 256  # of activation memory


def open_on_gpu(path: Path, precision: str, queue: CudaQueue, target: str | None = None) -> TensorRTEngine:
    """Open the first engine in `engines/` (or in its folder `target`) beside the network `path` that runs here.

    Raises `EngineError` with the reason for each refused engine. `precision` is the network file's. The engine has its
    own: a network that a bundle has only in fp32 is built in fp16.
    """
    reasons = []
    for engine in (one for one in engine_paths(path.parent) if target in (None, one.parent.name)):
        try:
            if Sidecar.read(engine).onnx == path.name:
                return TensorRTEngine(engine, path, queue)
        except EngineError as error:  # noqa: PERF203  # each engine may be refused for itself
            reasons.append(str(error))
    raise EngineError(
        f"There is no engine of {path.name} ({precision}) for {queue.name} in {path.parent / ENGINE_FOLDER}: "
        + (" ".join(reasons) or "none was built; run: spinescore engine build BUNDLE")
    )


@dataclass(frozen=True, eq=False)
class _Bound:
    """An execution context whose shapes and addresses never change: a graph captured from it stays valid."""

    context: Any
    kept: tuple[Any, ...]  # the buffers and the activation memory


class TensorRTEngine:
    """An engine file on the queue's GPU and stream.

    Each pair of buffers has its own context, with activation memory from the queue's device. The first run on a pair
    must be outside of a capture. The caller owns the buffers; references to them are kept.
    """

    rows = 1

    def __init__(self, path: Path, onnx: Path, queue: CudaQueue) -> None:
        self.name, self.file, self._queue = path.name, path, queue
        self._sidecar = Sidecar.read(path)
        check_origin(onnx.parent, path, self._sidecar)
        self._sidecar.check_files(path, onnx)
        flavour = runtime_flavour(self._sidecar)
        self._trt = import_flavour(flavour)
        self._sidecar.check_machine(path, flavour, self._trt.__version__, gpu_of(queue))
        self.framework, self.precision = f"{flavour} {self._trt.__version__}", self._sidecar.precision
        self.capturable = True  # until a context says otherwise after its first run
        self._cached = ""  # hash of the runtime cache that was written
        self._bound: dict[tuple[Any, ...], _Bound] = {}
        self._runtime = start(self._trt, self._trt.Runtime)
        if self._sidecar.version_compatible:  # such an engine contains host code; this machine built it
            self._runtime.engine_host_code_allowed = True
        self._engine = self._checked(self._runtime.deserialize_cuda_engine(read_bytes(path, _MOST_BYTES)), "load")
        self._cache_name = f"runtime cache of {self._sidecar.engine_sha256}"
        self._config, self._cache = _runtime_config(self._trt, self._engine, self._cache_path, self._cache_name)
        self._input, self._output = self._ends()
        self._dtype = self._one_dtype()

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._dtype

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self._shape(self._input)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self._shape(self._output)

    def run(self, inputs: DeviceMemory, outputs: DeviceMemory) -> None:
        if self._engine is None:
            raise EngineError(f"Engine {self.name} is closed; open the device and its networks again.")
        key = (inputs.address, inputs.shape, outputs.address, outputs.shape)
        bound = self._bound.get(key) or self._bind(inputs, outputs)
        if not bound.context.execute_async_v3(self._queue.stream_handle):
            raise self._error("run")
        if key not in self._bound:
            self._bound[key] = bound
            if hasattr(bound.context, "is_stream_capturable"):  # TensorRT-RTX alone can tell, and not during a capture
                self.capturable &= bool(bound.context.is_stream_capturable(self._queue.stream_handle))
            self._keep_cache()

    def close(self) -> None:
        self._bound.clear()
        self._cache = self._config = self._engine = self._runtime = None

    def _bind(self, inputs: DeviceMemory, outputs: DeviceMemory) -> _Bound:
        batch, least, most = inputs.shape[0], self._sidecar.least_batch, self._sidecar.most_batch
        if not least <= batch <= most:
            raise EngineError(
                f"Engine {self.name} was built for {least} to {most} images at once, got {batch}; build it again with "
                "spinescore engine build --any-batch."
            )
        for tensor, memory, shape in (
            (self._input, inputs, self.input_shape),
            (self._output, outputs, self.output_shape),
        ):
            expected = (batch, *(size or actual for size, actual in zip(shape, memory.shape[1:], strict=False)))
            if memory.shape != expected or len(expected) != len(shape) + 1 or memory.dtype != self._dtype:
                raise EngineError(
                    f"Engine {self.name}: tensor {tensor} needs {(batch, *shape)} of {self._dtype}, got "
                    f"{memory.shape} of {memory.dtype}; export the bundle and build its engines again."
                )
        own_memory = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        kind = own_memory if self._config is None else self._config
        context = self._checked(self._engine.create_execution_context(kind), "make a context of")
        profile = self._profile(inputs.shape[2:])
        if profile is not None and not context.set_optimization_profile_async(profile, self._queue.stream_handle):
            raise self._error(f"take profile {profile} of")
        if not context.set_input_shape(self._input, inputs.shape):
            raise self._error(f"set {self._input} to {inputs.shape} in")
        written = tuple(context.get_tensor_shape(self._output))
        if written != outputs.shape:
            raise EngineError(
                f"Engine {self.name} writes {self._output} of {written} for {self._input} of {inputs.shape}, but the "
                f"buffer has {outputs.shape}; export the bundle and build its engines again."
            )
        size = max(int(context.update_device_memory_size_for_shapes()), _ALIGNMENT)
        memory = self._queue.allocate((size,), np.uint8)
        context.set_device_memory(memory.address, size)
        for tensor, buffer in ((self._input, inputs), (self._output, outputs)):
            if not context.set_tensor_address(tensor, buffer.address):
                raise self._error(f"bind {tensor} in")
        return _Bound(context, (inputs, outputs, memory))

    def _profile(self, size: tuple[int, ...]) -> int | None:
        """Return the number of the profile for pictures of that height and width; None for an engine of one size."""
        sizes = self._sidecar.sizes
        if not sizes:
            return None
        if size not in sizes:
            built = " and ".join(f"{height} x {width}" for height, width in sizes)
            raise EngineError(
                f"Engine {self.name} was built for pictures of {built} pixels, got {' x '.join(map(str, size))}; build "
                "it again: spinescore engine build BUNDLE"
            )
        return sizes.index((size[0], size[1]))

    def _ends(self) -> tuple[str, str]:
        modes = self._trt.TensorIOMode
        names = [self._engine.get_tensor_name(number) for number in range(self._engine.num_io_tensors)]
        inputs = [name for name in names if self._engine.get_tensor_mode(name) == modes.INPUT]
        outputs = [name for name in names if self._engine.get_tensor_mode(name) == modes.OUTPUT]
        if inputs != ["image"] or len(outputs) != 1:
            raise EngineError(
                f"Engine {self.name} has the inputs {inputs} and outputs {outputs}; one `image` and one output are "
                "needed: export the bundle and build its engines again."
            )
        return inputs[0], outputs[0]

    def _one_dtype(self) -> np.dtype[Any]:
        kinds = self._trt.DataType
        dtypes: dict[Any, np.dtype[Any]] = {kinds.HALF: np.dtype(np.float16), kinds.FLOAT: np.dtype(np.float32)}
        first, second = (self._engine.get_tensor_dtype(name) for name in (self._input, self._output))
        if first != second or first not in dtypes:
            raise EngineError(
                f"Engine {self.name}: tensor {self._input} is {first} and {self._output} {second}, not both half or "
                "both float; build it again: spinescore engine build BUNDLE"
            )
        return dtypes[first]

    def _shape(self, tensor: str) -> tuple[int, ...]:
        return tuple(max(int(size), 0) for size in self._engine.get_tensor_shape(tensor))[1:]  # -1: free

    def _checked(self, result: Any, action: str) -> Any:
        if result is None:
            raise self._error(action)
        return result

    def _error(self, action: str) -> EngineError:
        return EngineError(
            f"TensorRT could not {action} the engine {self.file} on {self._queue.name}: {lines_of(self._trt)}. Build "
            "it again for this machine: spinescore engine build BUNDLE"
        )

    @property
    def _cache_path(self) -> Path:
        return self.file.with_name(f"{self.file.name}.runtime-cache")

    def _keep_cache(self) -> None:
        """Keep the code that the first run compiled for the GPU, so that the next start is faster."""
        if self._cache is None:
            return
        with suppress(OSError):
            data = bytes(self._cache.serialize())
            if (digest := hashlib.sha256(data).hexdigest()) != self._cached:
                sign(self._cache_name, digest)
                write_atomic(self._cache_path, data)
                self._cached = digest


def _runtime_config(trt: Any, engine: Any, cache_path: Path, cache_name: str) -> tuple[Any, Any]:
    """Return (configuration, cache) for TensorRT-RTX, which compiles at the first run; (None, None) for the others.

    All kernels are compiled in that run: compiling later, in the background, could not be captured. A cache that this
    machine did not sign is not read.
    """
    if not hasattr(trt, "IRuntimeCache"):
        return None, None
    if (config := engine.create_runtime_config()) is None or (cache := config.create_runtime_cache()) is None:
        raise EngineError(f"TensorRT-RTX could not configure an engine: {lines_of(trt)}.")
    config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
    with suppress(OSError):
        if data := signed_bytes(cache_name, read_bytes(cache_path, _MOST_BYTES)):
            cache.deserialize(data)
    config.set_runtime_cache(cache)
    return config, cache
