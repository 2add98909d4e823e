"""PyTorch as an engine, for these checks alone: it stands in where no engine of the package runs networks on the GPU.

Networks run in FP16, channels last, with each batch normalisation folded into its convolution, on the device's buffers
and stream. They may be captured into the device's CUDA graph: all memory between the layers comes from a pool that
nothing else uses, and the runs before the capture have filled it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from spinescore.benchmarks.phantom.checkpoints import network, rebuilt_tensors
from spinescore.runtime.engines import CudaQueue, DeviceMemory
from spinescore.runtime.errors import EngineError

__all__ = ["Cuda", "TorchEngine", "open_on_gpu"]

_WARM_UPS = 3  # on new buffers: cuDNN tries its algorithms in the first, and then the pool comes to rest


class Cuda:
    """The calls of `torch.cuda` that the engine needs, for one network on the device's stream."""

    dtype = torch.float16  # of the networks' weights and arithmetic

    def __init__(self, queue: CudaQueue) -> None:
        if not torch.cuda.is_available():
            raise EngineError(f"PyTorch {torch.__version__} sees no GPU.")
        if not hasattr(torch.cuda, "MemPool"):
            raise EngineError(f"PyTorch {torch.__version__} has no pools of memory for graphs; 2.6 or later has.")
        torch.backends.cudnn.benchmark = True
        self.device = torch.device("cuda", queue.index)
        self._stream = torch.cuda.ExternalStream(queue.stream_handle, self.device)
        self._pool = torch.cuda.MemPool()

    def tensor(self, memory: DeviceMemory) -> Any:
        """Return device memory as a tensor, without a copy."""
        return torch.as_tensor(_Interface(memory), device=self.device)

    def run(self, work: Callable[[], object]) -> None:
        """Queue `work` on the device's stream, with memory from this network's pool."""
        with torch.cuda.stream(self._stream), torch.cuda.use_mem_pool(self._pool, self.device):
            work()


class _Interface:
    """Device memory as other libraries see it (CUDA Array Interface, version 3)."""

    def __init__(self, memory: DeviceMemory) -> None:
        self._memory = memory  # it lives as long as a tensor of it
        self.__cuda_array_interface__ = {
            "version": 3,
            "shape": memory.shape,
            "typestr": memory.dtype.str,
            "data": (memory.address, False),
            "strides": None,
        }


class TorchEngine:
    """An ONNX file of the exporter on PyTorch; see `spinescore.runtime.engines.Engine`."""

    precision, dtype = "fp16", np.dtype(np.float16)
    capturable, rows = True, 1

    def __init__(self, path: Path, gpu: Cuda) -> None:
        model = onnx.load(str(path))
        self.file, self.name, self.framework = path, path.name, f"pytorch {torch.__version__}"
        self.input_shape, self.output_shape = (_shape(ends[0]) for ends in (model.graph.input, model.graph.output))
        self._gpu = gpu
        self._bound: dict[tuple[int, int, tuple[int, ...]], tuple[Any, Any]] = {}
        self._module: Any = _folded(network(rebuilt_tensors(model)))
        gpu.run(lambda: self._module.to(gpu.device, gpu.dtype, memory_format=torch.channels_last))

    def run(self, inputs: DeviceMemory, outputs: DeviceMemory) -> None:
        if self._module is None:
            raise EngineError(f"Network {self.name} is closed; open the device and its networks again.")
        key = inputs.address, outputs.address, tuple(inputs.shape)
        count = 1
        try:
            if key not in self._bound:
                self._bound[key] = self._gpu.tensor(inputs), self._gpu.tensor(outputs)
                count += _WARM_UPS
            ends = self._bound[key]
            for _ in range(count):
                self._gpu.run(lambda: self._infer(*ends))
        except RuntimeError as error:  # the base of PyTorch's errors
            reason = str(error).strip().splitlines()[:1]
            raise EngineError(f"Network {self.name} failed on PyTorch with {inputs.shape}: {reason}") from error

    def _infer(self, images: Any, outputs: Any) -> None:
        with torch.inference_mode():
            outputs.copy_(self._module(images.to(self._gpu.dtype, memory_format=torch.channels_last)))

    def close(self) -> None:
        self._bound.clear()
        self._module = None


def open_on_gpu(path: Path, precision: str, queue: CudaQueue) -> TorchEngine:
    """Open a network, in FP16 whatever the file's `precision` is. Raises `EngineError`."""
    return TorchEngine(path, Cuda(queue))


def _folded(module: nn.Module) -> nn.Module:
    """Fold each batch normalisation into the convolution that is defined before it."""
    for (conv_name, conv), (norm_name, norm) in pairwise(list(module.named_modules())):
        if isinstance(norm, nn.BatchNorm2d):
            module.set_submodule(conv_name, fuse_conv_bn_eval(conv, norm))
            module.set_submodule(norm_name, nn.Identity())
    return module


def _shape(end: onnx.ValueInfoProto) -> tuple[int, ...]:
    """Return the shape without the batch; a free height or width is 0."""
    return tuple(int(dimension.dim_value) for dimension in end.type.tensor_type.shape.dim[1:])
