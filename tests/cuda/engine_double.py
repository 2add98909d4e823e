"""An engine that runs a network's ONNX in ONNX Runtime on the addresses that the driver double calls device memory.

Runs on the double's stream, as a host function: so it is queued, captured and replayed like a kernel.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

from spinescore.runtime.engines import CudaQueue, DeviceMemory
from spinescore.runtime.engines.onnxruntime import OnnxRuntimeEngine
from spinescore.runtime.errors import EngineError

_HOST_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class EngineDouble(OnnxRuntimeEngine):
    """Stands for an engine of TensorRT, or with `batches` left out for one of ONNX Runtime, which takes any batch.

    `batches` are the smallest and the largest number of images that it was built for; others are refused.
    `capturable=False` stands for an engine that a graph cannot hold: its run is refused while one is captured.
    """

    def __init__(
        self,
        path: Path,
        precision: str,
        queue: CudaQueue,
        capturable: bool = True,
        batches: tuple[int, int] | None = None,
        convert: bool = False,
    ) -> None:
        super().__init__(path, precision, threads=1, convert=convert)
        self.capturable, self.batches = capturable, batches
        self.closed = False
        self._queue = queue
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._kept: list[object] = []  # graphs call the functions again and again

    def run(self, inputs: DeviceMemory, outputs: DeviceMemory) -> None:
        if self.batches and not self.batches[0] <= inputs.shape[0] <= self.batches[1]:
            raise EngineError(f"{self.name} was built for {self.batches} images at once, got {inputs.shape[0]}")
        if not self.capturable and self._driver.cuStreamSynchronize(ctypes.c_void_p(self._queue.stream_handle)):
            raise EngineError(f"{self.name} waits for its stream, which is being captured")

        function = _HOST_FUNCTION(lambda _: self.infer(inputs, outputs))
        self._kept.append(function)
        status = self._driver.cuLaunchHostFunc(ctypes.c_void_p(self._queue.stream_handle), function, None)
        if status:
            raise EngineError(f"{self.name}: the double answered {status}")

    def infer(self, inputs: DeviceMemory, outputs: DeviceMemory) -> None:
        """Infer; the stream calls this when it comes to this engine's run."""
        OnnxRuntimeEngine.run(self, inputs, outputs)

    def close(self) -> None:
        self.closed = True
        super().close()
