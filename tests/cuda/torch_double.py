"""The calls of `torch.cuda` on the driver double, where device memory is the host's: for PyTorch as an engine.

Work is queued on the double's stream as a host function, so that it is captured and replayed as kernels are.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from spinescore.runtime.engines import CudaQueue, DeviceMemory
from spinescore.runtime.errors import EngineError

_HOST_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class CudaDouble:
    """Stands for `torchengine.Cuda`. Arithmetic is in float32: a CPU takes minutes for float16."""

    dtype = torch.float32

    def __init__(self, queue: CudaQueue) -> None:
        torch.set_num_threads(1)
        self.device = torch.device("cpu")
        self._queue, self._driver = queue, ctypes.CDLL("libcuda.so.1")
        self._kept: list[object] = []  # graphs call the functions again and again

    def tensor(self, memory: DeviceMemory) -> Any:
        held = (ctypes.c_uint8 * memory.nbytes).from_address(memory.address)
        return torch.from_numpy(np.frombuffer(held, memory.dtype).reshape(memory.shape))

    def run(self, work: Callable[[], object]) -> None:
        function = _HOST_FUNCTION(lambda _: work() and None)
        self._kept.append(function)
        status = self._driver.cuLaunchHostFunc(ctypes.c_void_p(self._queue.stream_handle), function, None)
        if status:
            raise EngineError(f"the double answered {status}")
