"""Run networks on OpenVINO's CPU plugin: in FP32, in BF16 if the CPU has it, or in INT8 as in the file.

The only module that imports openvino.
"""

from __future__ import annotations

import ctypes
import hashlib
import io
import os
import threading
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.engines.keptnetworks import kept_networks, plugin_cache, read_kept, write_kept
from spinescore.runtime.engines.locales import kept_locale
from spinescore.runtime.errors import EngineError
from spinescore.runtime.machine.processor import processor_kind

try:
    import openvino
except ImportError as missing:
    raise EngineError(
        f'OpenVINO cannot be imported ({missing}); install it: pip install "spinescore[openvino]"'
    ) from missing

__all__ = ["OpenVinoEngine", "open_on_cpu"]

Array = NDArray[Any]

_DTYPES: dict[str, np.dtype[Any]] = {"f32": np.dtype(np.float32), "f16": np.dtype(np.float16)}
_KEPT_REQUESTS = 64  # one for each of the pipeline's pairs of buffers
_TWIN_BYTES = 16 * 2**20  # a larger network is compiled only once, to save memory
# Operations on constants that give the same result if they are done twice.
_MOVED = ("Const", "Convert", "Reorder", "Reshape", "Transpose")
_SHARED, _APART = b"streams may share a compiled model\n", b"one stream for each compiled model\n"

_open: weakref.WeakSet[OpenVinoEngine] = weakref.WeakSet()


class OpenVinoEngine:
    """A compiled network for any batch; it reads and writes the caller's buffers directly.

    Threads may run it at the same time on buffers of their own. References to the latest buffers are kept. The
    arithmetic is never less precise than `precision`: by default the plugin would run an FP32 network in BF16 on a CPU
    that has it. In an INT8 network, the parts that the file leaves in floating point run in BF16 on such a CPU; the
    gate decides whether that is good enough.

    The streams of one compiled model share the values that are computed from constants at loading. If the plugin
    scales 8-bit weights there, one stream can convert them again, in place, after another stream has scaled them. Both
    then compute with unscaled weights (OpenVINO 2026.4.1). Therefore an INT8 network in which that could happen has one
    stream for each compiled model. A small network is compiled once for each caller, with a share of the threads. A
    large network is compiled once, and its callers take turns on all threads.
    """

    capturable = False

    def __init__(
        self, path: Path, precision: str, threads: int | None = None, callers: int = 1, rows: int | None = None
    ) -> None:
        """`precision` is `bf16` for an FP32 file in BF16 arithmetic, else that of the file.

        `callers` is how many threads run it at the same time; they share the `threads`. Every batch is a multiple of
        `rows`; None if that is not known. An INT8 network is compiled for `rows` pictures and run for each part of the
        batch, which takes less time: with a free batch the plugin quantises between the layers in steps of their own.
        """
        self.name, self.file, self.precision = path.name, path, precision
        self.framework = f"openvino {openvino.__version__.split('-')[0]}"
        self._requests: dict[tuple[Any, ...], tuple[Any, Array, Array]] = {}
        self._requested = 0  # how many requests were created, so that simultaneous callers get different models
        self._making = threading.Lock()
        self._batch = rows if precision == "int8" else None
        try:
            core = openvino.Core()
            has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            if precision == "bf16" and not has_bf16:
                raise EngineError(
                    f"The network {self.name} cannot run in bf16: this CPU has no BF16 arithmetic; take precision fp32 "
                    "or int8."
                )
            floating = "bf16" if has_bf16 and precision in ("bf16", "int8") else "f32"
            self._models = _compiled(core, path, precision, floating, threads, callers, self._batch)
            self._inputs, self._outputs = list(self._models[0].inputs), list(self._models[0].outputs)
        except EngineError:
            raise
        except Exception as error:  # the library's exceptions share no base of their own
            raise EngineError(
                f"OpenVINO cannot load the network {self.name} in {precision} ({_last_line(error)}); export the bundle "
                "again, or use the engine onnxruntime."
            ) from error
        self._check_ends()
        _open.add(self)

    @property
    def rows(self) -> int:
        return self._batch or 1

    @property
    def dtype(self) -> np.dtype[Any]:
        return _DTYPES[self._inputs[0].element_type.get_type_name()]

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self._fixed(self._inputs[0])

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self._fixed(self._outputs[0])

    def run(self, inputs: Array, outputs: Array) -> None:
        if not self._models:
            raise EngineError(f"Network {self.name} is closed; open the device and its networks again.")
        try:
            step = self._batch or len(inputs)
            for first in range(0, len(inputs), step):
                part = slice(first, first + step)
                self._request(inputs[part], outputs[part]).infer()
        except EngineError:
            raise
        except Exception as error:
            raise EngineError(
                f"Network {self.name} failed on tensor {self._inputs[0].get_any_name()} {inputs.shape} "
                f"({_last_line(error)}); check the bundle with `spinescore bundle verify`."
            ) from error

    def close(self) -> None:
        """Free the network now. Its ends hold it, too, and a reference cycle may keep this engine alive for a while."""
        self._requests.clear()
        for held in (self._inputs, self._outputs, self._models):
            held.clear()

    def _request(self, inputs: Array, outputs: Array) -> Any:
        """Return the request that is bound to these buffers; new requests go to the models in turn."""
        key = (inputs.ctypes.data, inputs.shape, outputs.ctypes.data, outputs.shape)
        with self._making:
            if key not in self._requests:
                for array in (inputs, outputs):
                    if array.dtype != self.dtype or not array.flags.c_contiguous:
                        raise EngineError(f"a contiguous {self.dtype} buffer is needed, got {array.dtype}")
                while len(self._requests) >= _KEPT_REQUESTS:
                    del self._requests[next(iter(self._requests))]
                request = self._models[self._requested % len(self._models)].create_infer_request()
                self._requested += 1
                request.set_input_tensor(openvino.Tensor(inputs, shared_memory=True))
                request.set_output_tensor(openvino.Tensor(outputs, shared_memory=True))
                self._requests[key] = (request, inputs, outputs)
            return self._requests[key][0]

    def _check_ends(self) -> None:
        if len(self._inputs) != 1 or len(self._outputs) != 1:
            raise EngineError(
                f"Network {self.name} has {len(self._inputs)} inputs and {len(self._outputs)} outputs, one of each is "
                "needed; export it again."
            )
        kinds = [end.element_type.get_type_name() for end in (*self._inputs, *self._outputs)]
        if kinds[0] != kinds[1] or kinds[0] not in _DTYPES:
            raise EngineError(
                f"Network {self.name}: its input is {kinds[0]} and its output {kinds[1]}, not both f32 or both f16; "
                "export it again."
            )

    def _fixed(self, end: Any) -> tuple[int, ...]:
        sizes = list(end.partial_shape)[1:]
        shape = tuple(0 if size.is_dynamic else int(size.get_length()) for size in sizes)
        if not all(shape[:1]) or (len(shape) != 3 and not all(shape)):  # of pictures height and width may be free
            raise EngineError(
                f"Network {self.name}: tensor {end.get_any_name()} has no fixed shape {end.partial_shape}; export it "
                "again."
            )
        return shape


open_on_cpu = OpenVinoEngine


def _keep_inherited() -> None:
    """Keep a forked child from destroying its parent's networks: it would wait for threads that it does not have."""
    for engine in _open:
        requests = (bound[0] for bound in engine._requests.values())
        for held in (*engine._models, *engine._inputs, *engine._outputs, *requests):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_inherited)


def _compiled(
    core: Any, path: Path, precision: str, floating: str, threads: int | None, callers: int, rows: int | None
) -> list[Any]:
    """Return the compiled models that callers take in turn: usually one, with a stream for each caller."""
    cache = kept_networks(path)

    def compiled(threads: int | None, streams: int) -> Any:
        settings = _settings(floating, threads, streams)
        if rows is not None:
            return _with_fixed_batch(core, path, rows, settings, cache)
        if cache is None:
            return core.compile_model(str(path), "CPU", settings)
        with plugin_cache(cache):
            return core.compile_model(str(path), "CPU", {**settings, "CACHE_DIR": str(cache)})

    with kept_locale():
        if precision != "int8" or callers == 1:
            return [compiled(threads, callers)]
        place = "-".join((openvino.__version__.replace("/", "-"), floating, *processor_kind().split()))
        verdict_file = None if cache is None else cache / f"streams-{place}{'' if rows is None else '-fixed'}"
        verdict = read_kept(verdict_file)
        if verdict != _APART:
            model = compiled(threads, callers)
            if verdict == _SHARED or not _scales_constants(model):
                if verdict is None:
                    write_kept(verdict_file, _SHARED)
                return [model]
            write_kept(verdict_file, _APART)
        if path.stat().st_size > _TWIN_BYTES or threads is None or threads < callers:
            return [compiled(threads, 1)]
        return [compiled(threads // callers, 1) for _ in range(callers)]


def _with_fixed_batch(core: Any, path: Path, rows: int, settings: dict[str, Any], cache: Path | None) -> Any:
    """Return the network compiled for `rows` pictures, as an earlier start exported it if there was one.

    The plugin's own cache would have to read and reshape the network at each start.
    """
    conditions = [openvino.__version__, core.get_property("CPU", "FULL_DEVICE_NAME"), rows, *sorted(settings.items())]
    name = f"fixed-{hashlib.sha256(repr(conditions).encode()).hexdigest()[:32]}.blob"
    file = None if cache is None else cache / name
    if (exported := read_kept(file)) is not None:
        with suppress(RuntimeError):
            return core.import_model(exported, "CPU", settings)
    network = core.read_model(str(path))
    network.reshape({end: [rows, *list(end.partial_shape)[1:]] for end in network.inputs})
    compiled = core.compile_model(network, "CPU", settings)
    if file is not None:
        stream = io.BytesIO()
        compiled.export_model(stream)
        write_kept(file, stream.getvalue())
    return compiled


def _scales_constants(model: Any) -> bool:
    """Return whether the plugin computes with constants at loading, beyond moving their values."""
    constant: set[str] = set()
    for node in model.get_runtime_model().get_ordered_ops():
        kind = node.get_rt_info()["layerType"].astype(str)
        sources = [end.get_source_output().get_node().get_friendly_name() for end in node.inputs()]
        if kind == "Const" or (sources and constant.issuperset(sources)):
            constant.add(node.get_friendly_name())
            if kind not in _MOVED:
                return True
    return False


def _settings(floating: str, threads: int | None, streams: int) -> dict[str, Any]:
    """Return the plugin's settings. Threads are pinned to cores only if the caller does not limit their number."""
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": floating,
        "NUM_STREAMS": streams,
    }
    if threads is not None:
        settings |= {"INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
    return settings


def _last_line(error: Exception) -> str:
    """Return the last line of a message: OpenVINO's messages begin with lines of its source."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
