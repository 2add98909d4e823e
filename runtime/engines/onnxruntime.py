"""Run networks on ONNX Runtime: on its CPU provider, or on its CUDA provider with a device's buffers and stream.

The only module that imports onnxruntime.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.engines import CudaQueue, DeviceMemory
from spinescore.runtime.engines.cudalibraries import load_cuda_libraries, missing_library
from spinescore.runtime.errors import CheckpointError, EngineError
from spinescore.runtime.machine.packages import CUDA_BUILD

try:
    import onnxruntime
except ImportError as missing:
    raise EngineError(
        f"ONNX Runtime cannot be imported ({missing}); install it again: pip install --force-reinstall onnxruntime "
        f"(for a GPU: {CUDA_BUILD})"
    ) from missing

__all__ = ["OnnxRuntimeEngine", "give_back", "open_on_cpu", "open_on_gpu"]

Memory = NDArray[Any] | DeviceMemory

_DTYPES: dict[str, np.dtype[Any]] = {"tensor(float)": np.dtype(np.float32), "tensor(float16)": np.dtype(np.float16)}
_KEPT_BINDINGS = 64  # the pipeline needs six for each run of a localizer: for each view, and for the halves of one view
_CUDA = "CUDAExecutionProvider"
_NO_FALLBACK = "session.disable_cpu_ep_fallback"
_FATAL_ONLY = 4  # errors arrive as exceptions; the library's own lines would only repeat them


@dataclass(frozen=True, eq=False)
class _Bound:
    """Buffers of one size that a session is bound to, and how it runs on them."""

    binding: Any
    options: Any
    graph: int
    buffers: tuple[Memory, Memory]


class OnnxRuntimeEngine:
    """A session that is bound to the caller's buffers once for each pair of buffers; the latest bindings are kept.

    The caller owns the buffers; the engine keeps references to the bound ones. With a `queue` it runs on that GPU: the
    buffers are device memory, and `run` queues work on the queue's stream without waiting. On a GPU the provider
    captures a CUDA graph of its own for each pair of buffers, whose addresses never change. `convert` runs an FP32 file
    in half precision.
    """

    rows = 1
    capturable = False  # the provider allocates while it runs, and may copy shapes to the host

    def __init__(
        self,
        path: Path,
        precision: str,
        threads: int | None = None,
        *,
        queue: CudaQueue | None = None,
        convert: bool = False,
    ) -> None:
        self.name, self.file = path.name, path
        self.precision = precision
        self.framework = f"onnxruntime {onnxruntime.__version__}{'' if queue is None else ' CUDA'}"
        self._place = ("cpu", 0) if queue is None else ("cuda", queue.index)
        self._session = _session(path, _half(path) if convert else str(path), threads, queue, precision)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise EngineError(
                f"Network {self.name} has {len(inputs)} inputs and {len(outputs)} outputs, one of each is needed; "
                "export it again."
            )
        self._input, self._output = inputs[0], outputs[0]
        self._graphs = count(1)
        self._bindings: dict[tuple[Any, ...], _Bound] = {}
        for end in (self._input, self._output):
            if end.type not in _DTYPES:
                raise EngineError(
                    f"Network {self.name}: tensor {end.name} is {end.type}, not float or float16; export it again."
                )
        if self._input.type != self._output.type:
            raise EngineError(
                f"Network {self.name}: tensor {self._input.name} is {self._input.type} but {self._output.name} is "
                f"{self._output.type}; export it again."
            )

    @property
    def dtype(self) -> np.dtype[Any]:
        return _DTYPES[str(self._input.type)]

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self._fixed(self._input)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self._fixed(self._output)

    def run(self, inputs: Memory, outputs: Memory) -> None:
        if self._session is None:
            raise EngineError(f"Network {self.name} is closed; open the device and its networks again.")
        key = (_address(inputs), inputs.shape, _address(outputs), outputs.shape)
        try:
            if key not in self._bindings:
                while len(self._bindings) >= _KEPT_BINDINGS:
                    oldest = self._bindings.pop(next(iter(self._bindings)))
                    if self._place[0] == "cuda" and hasattr(self._session, "release_captured_graph"):
                        self._session.release_captured_graph(oldest.graph)  # older versions keep it until the end
                self._bindings[key] = self._bound_to(inputs, outputs)
            bound = self._bindings[key]
            self._session.run_with_iobinding(bound.binding, bound.options)
        except Exception as error:  # the library's exceptions share no base of their own
            raise EngineError(
                f"Network {self.name} failed on tensor {self._input.name} {inputs.shape} ({_first_line(error)}); check "
                "the bundle with `spinescore bundle verify`."
            ) from error

    def close(self) -> None:
        self._bindings.clear()
        self._session = None

    def _bound_to(self, inputs: Memory, outputs: Memory) -> _Bound:
        options, graph = onnxruntime.RunOptions(), next(self._graphs)
        if self._place[0] == "cuda":
            options.add_run_config_entry("disable_synchronize_execution_providers", "1")
            options.add_run_config_entry("gpu_graph_id", str(graph))
        binding = self._session.io_binding()
        for bind, end, array in (
            (binding.bind_input, self._input, inputs),
            (binding.bind_output, self._output, outputs),
        ):
            if array.dtype != self.dtype or (isinstance(array, np.ndarray) and not array.flags.c_contiguous):
                raise EngineError(f"tensor {end.name} needs a contiguous {self.dtype} buffer, got {array.dtype}")
            bind(end.name, *self._place, array.dtype.type, list(array.shape), _address(array))
        return _Bound(binding, options, graph, (inputs, outputs))

    def _fixed(self, end: Any) -> tuple[int, ...]:
        shape = tuple(size if isinstance(size, int) else 0 for size in end.shape[1:])
        if not all(shape[:1]) or (len(shape) != 3 and not all(shape)):  # height and width of pictures may be free
            raise EngineError(
                f"Network {self.name}: tensor {end.name} has no fixed shape {end.shape}; export it again."
            )
        return shape


def open_on_cpu(
    path: Path, precision: str, threads: int | None, callers: int, rows: int | None = None
) -> OnnxRuntimeEngine:
    """Open a network. The callers' own threads work as well, so that the session gets fewer threads."""
    return OnnxRuntimeEngine(path, precision, threads if threads is None else max(1, threads - callers + 1))


def open_on_gpu(
    path: Path, precision: str, queue: CudaQueue, target: str | None = None, *, convert: bool = False
) -> OnnxRuntimeEngine:
    """Open a network on a GPU. It runs the network's file itself, so that `target` is ignored.

    `convert` runs an FP32 file in half precision.
    """
    return OnnxRuntimeEngine(path, precision, queue=queue, convert=convert)


def _half(path: Path) -> bytes:
    """Return the FP32 network `path` in half precision. Raises `EngineError` if it cannot be converted."""
    try:
        import onnx
    except ImportError as error:
        raise EngineError(
            f"Network {path.name} is in FP32. The package onnx, which converts it to half precision, cannot be "
            f'imported ({error}). Install it (pip install "spinescore[export]"), or use fp32.'
        ) from error
    from spinescore.runtime.engines.half import to_half

    try:
        model, report = to_half(onnx.load(str(path), load_external_data=False))
    except CheckpointError as error:
        raise EngineError(f"Network {path.name} cannot run in half precision: {error}. Use fp32.") from error
    if report.overflowed:
        layers = ", ".join(layer.layer for layer in report.overflowed[:3])
        raise EngineError(f"Network {path.name} overflows in half precision in {layers}. Use fp32.")
    return bytes(model.SerializeToString())


def _address(memory: Memory) -> int:
    return int(memory.ctypes.data) if isinstance(memory, np.ndarray) else memory.address


def _session(path: Path, network: str | bytes, threads: int | None, queue: CudaQueue | None, precision: str) -> Any:
    """Return a session of `network`, which is the file `path` or its content."""
    onnxruntime.set_default_logger_severity(_FATAL_ONLY)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.inter_op_num_threads = 1
    if threads is not None:
        options.intra_op_num_threads = threads
    providers: list[Any] = ["CPUExecutionProvider"]
    if queue is not None:
        providers = [_cuda_provider(path, queue, precision)]
        options.add_session_config_entry(_NO_FALLBACK, "1")
    try:
        # Its own way back from an error would print, and run on the CPU in silence.
        session = onnxruntime.InferenceSession(network, options, providers=providers, enable_fallback=0)
    except Exception as error:
        if queue is not None:
            raise _refused_by_cuda(path, queue, error) from error
        raise EngineError(
            f"ONNX Runtime cannot load the network {path.name} ({_first_line(error)}); export the bundle again."
        ) from error
    give_back()
    if queue is not None and _CUDA not in session.get_providers():
        raise _refused_by_cuda(path, queue, None)
    return session


def _refused_by_cuda(path: Path, queue: CudaQueue, error: Exception | None) -> EngineError:
    """Return why the CUDA provider does not run the network: a missing library, an operator, or its own words."""
    where = f"the network {path.name} on {queue.name}"
    if missing := missing_library(Path(onnxruntime.__file__).parent / "capi"):
        return EngineError(
            f"ONNX Runtime could not start its CUDA provider for {where}: {missing}. Install the CUDA and cuDNN "
            f"libraries that onnxruntime-gpu {onnxruntime.__version__} needs, or use device cpu."
        )
    if error is not None and "fallback to CPU" in str(error):
        return EngineError(
            f"ONNX Runtime could not start its CUDA provider for {where}, or an operator of the network runs on the "
            f"CPU alone ({_first_line(error)}); update the NVIDIA driver, export the network without that operator, or "
            "use device cpu."
        )
    reason = "it gave no reason" if error is None else _first_line(error)
    return EngineError(f"ONNX Runtime's CUDA provider cannot load {where} ({reason}); export the bundle again.")


def give_back() -> None:
    """Return freed memory to the system; otherwise glibc keeps 300 MB after loading a full-size bundle in FP32."""
    with suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _cuda_provider(path: Path, queue: CudaQueue, precision: str) -> tuple[str, dict[str, str]]:
    """Return the CUDA provider on the queue's stream. TF32 is off: a user asks for fp32 because fp16 is too coarse."""
    if _CUDA not in onnxruntime.get_available_providers():
        raise EngineError(
            f"The network {path.name} cannot run on {queue.name}: this ONNX Runtime {onnxruntime.__version__} has no "
            f"CUDA provider. Install onnxruntime-gpu in place of onnxruntime ({CUDA_BUILD}), or use device cpu."
        )
    load_cuda_libraries()
    return _CUDA, {
        "device_id": str(queue.index),
        "user_compute_stream": str(queue.stream_handle),
        "do_copy_in_default_stream": "1",
        "use_tf32": "0",
        "cudnn_conv_algo_search": "HEURISTIC",  # an exhaustive search takes minutes, and again for each batch
        "enable_cuda_graph": "1",
        "prefer_nhwc": "1" if precision == "fp16" else "0",  # tensor cores read channels last
    }


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
