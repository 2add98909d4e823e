"""Networks on ONNX Runtime's CPU provider. The only module that imports onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from spinescore.runtime.errors import EngineError

__all__ = ["OnnxRuntimeEngine"]

_DTYPES: dict[str, np.dtype[Any]] = {"tensor(float)": np.dtype(np.float32), "tensor(float16)": np.dtype(np.float16)}
_KEPT_BINDINGS = 8  # the pipeline needs four: both views, each alone, and evidence
_FATAL_ONLY = 4  # what goes wrong arrives as an exception; the library's own lines would only repeat it


class OnnxRuntimeEngine:
    """A session with bindings to the caller's buffers, made once per pair of buffers; the latest few are kept.

    The buffers are the caller's; the engine keeps a reference to those that it is bound to.
    """

    framework = f"onnxruntime {onnxruntime.__version__}"

    def __init__(self, path: Path, precision: str, threads: int | None = None) -> None:
        self.name = path.name
        self.precision = precision
        self._session = _session(path, threads)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise EngineError(
                f"Network {self.name} has {len(inputs)} inputs and {len(outputs)} outputs, one of each is needed; "
                "export it again."
            )
        self._input, self._output = inputs[0], outputs[0]
        self._bindings: dict[tuple[Any, ...], tuple[Any, NDArray[Any], NDArray[Any]]] = {}
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

    def run(self, inputs: NDArray[Any], outputs: NDArray[Any]) -> None:
        key = (inputs.ctypes.data, inputs.shape, outputs.ctypes.data, outputs.shape)
        try:
            if key not in self._bindings:
                while len(self._bindings) >= _KEPT_BINDINGS:
                    del self._bindings[next(iter(self._bindings))]
                self._bindings[key] = (self._bind(inputs, outputs), inputs, outputs)
            self._session.run_with_iobinding(self._bindings[key][0])
        except Exception as error:  # the library's exceptions share no base of their own
            raise EngineError(
                f"Network {self.name} failed on tensor {self._input.name} {inputs.shape} ({_first_line(error)}); check "
                "the bundle with `spinescore bundle verify`."
            ) from error

    def _bind(self, inputs: NDArray[Any], outputs: NDArray[Any]) -> Any:
        binding = self._session.io_binding()
        for bind, end, array in (
            (binding.bind_input, self._input, inputs),
            (binding.bind_output, self._output, outputs),
        ):
            if array.dtype != self.dtype or not array.flags.c_contiguous:
                raise EngineError(f"tensor {end.name} wants a contiguous {self.dtype} buffer, got {array.dtype}")
            bind(end.name, "cpu", 0, array.dtype.type, list(array.shape), array.ctypes.data)
        return binding

    def _fixed(self, end: Any) -> tuple[int, ...]:
        shape = tuple(end.shape[1:])
        if not all(isinstance(size, int) for size in shape):
            raise EngineError(
                f"Network {self.name}: tensor {end.name} has no fixed shape {end.shape}; export it again."
            )
        return shape


def _session(path: Path, threads: int | None) -> Any:
    onnxruntime.set_default_logger_severity(_FATAL_ONLY)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.inter_op_num_threads = 1
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise EngineError(
            f"ONNX Runtime cannot load the network {path.name} ({_first_line(error)}); export the bundle again."
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
