"""A stand-in for the `tensorrt` module: answers what `engines/tensorrt.py` calls, and notes what it was told.

Its names and arguments are held against the real modules by `test_tensorrt_contract.py`, since both are what the engine
calls. `failing` names calls that fail as TensorRT does: with a line in the log and None or False. `profiles` are the
shapes of `image` that were built, in place of the one; any other is refused.
"""

from __future__ import annotations

import types
from enum import Enum
from importlib.machinery import ModuleSpec

from spinescore.runtime.engines.sidecar import Sidecar, this_platform
from spinescore.runtime.files import file_sha256

DataType = Enum("DataType", "HALF FLOAT INT8")
TensorIOMode = Enum("TensorIOMode", "INPUT OUTPUT")
Strategy = Enum("Strategy", "STATIC USER_MANAGED")

SHAPES = {"image": (2, 1, 8, 6), "heatmaps": (2, 3, 2, 2)}
FREE = {"image": (-1, 1, -1, -1), "heatmaps": (-1, 3, -1, -1)}


GPU = "GeForce RTX 4060"


def write_engine(folder):
    """(engine, network, sidecar) of a bundle in `folder` that fit together."""
    onnx = folder / "localizer.fp16.onnx"
    onnx.write_bytes(b"network")
    engine = folder / "engines" / "here" / "localizer.fp16.engine"
    engine.parent.mkdir(parents=True)
    engine.write_bytes(b"plan")
    sidecar = Sidecar(
        flavour="tensorrt",
        version="10.16.1.11",
        precision="fp16",
        least_batch=2,
        most_batch=2,
        onnx=onnx.name,
        onnx_sha256=file_sha256(onnx),
        engine_sha256=file_sha256(engine),
        compute_capabilities=("8.9",),
        hardware="this",
        version_compatible=False,
        gpu=GPU,
        multiprocessors=24,
        driver="13.0",
        platform=this_platform(),
        build_seconds=1.5,
    )
    sidecar.write(engine)
    return engine, onnx, sidecar


def make_double(failing: frozenset[str] = frozenset(), tensors=None, dtypes=None, profiles=None) -> types.ModuleType:
    built = profiles or [SHAPES["image"]]
    tensors = tensors or {"image": TensorIOMode.INPUT, "heatmaps": TensorIOMode.OUTPUT}
    dtypes = dtypes or dict.fromkeys(tensors, DataType.HALF)
    module = types.ModuleType("tensorrt")
    module.__spec__ = ModuleSpec("tensorrt", None)
    module.__version__ = "10.16.1.11"
    module.calls = []

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def answer(logger, name, good, bad):
        if name in failing:
            logger.log(ILogger.VERBOSE, "small talk")
            logger.log(ILogger.ERROR, f"the double failed in {name}")
            return bad
        return good

    class Context:
        def __init__(self, logger):
            self.logger = logger
            self.profile = None if profiles else 0  # of several, one has to be chosen

        def set_optimization_profile_async(self, profile_index, stream_handle):
            module.calls.append(("profile", profile_index, stream_handle))
            self.profile = profile_index
            return answer(self.logger, "set_optimization_profile_async", profile_index < len(built), False)

        def set_input_shape(self, name, shape):
            module.calls.append(("shape", name, shape))
            if self.profile is None or shape != built[self.profile]:
                self.logger.log(ILogger.ERROR, f"{shape} is not within profile {self.profile}")
                return False
            return answer(self.logger, "set_input_shape", True, False)

        def update_device_memory_size_for_shapes(self):
            return 1000

        def set_device_memory(self, memory, size):
            module.calls.append(("memory", memory, size))

        def set_tensor_address(self, name, memory):
            module.calls.append(("address", name, memory))
            return answer(self.logger, "set_tensor_address", True, False)

        def execute_async_v3(self, stream_handle):
            module.calls.append(("execute", stream_handle))
            return answer(self.logger, "execute_async_v3", True, False)

    class Engine:
        num_io_tensors = len(tensors)

        def __init__(self, logger):
            self.logger = logger

        def get_tensor_name(self, index):
            return list(tensors)[index]

        def get_tensor_mode(self, name):
            return tensors[name]

        def get_tensor_dtype(self, name):
            return dtypes[name]

        def get_tensor_shape(self, name):
            return (FREE if profiles else SHAPES)[name]

        def create_execution_context(self, strategy):
            assert strategy is Strategy.USER_MANAGED
            return answer(self.logger, "create_execution_context", Context(self.logger), None)

    class Runtime:
        engine_host_code_allowed = False

        def __init__(self, logger):
            self.logger = logger
            module.runtime = self

        def deserialize_cuda_engine(self, data):
            module.calls.append(("load", data))
            return answer(self.logger, "deserialize_cuda_engine", Engine(self.logger), None)

    module.ILogger, module.Runtime = ILogger, Runtime
    module.DataType, module.TensorIOMode, module.ExecutionContextAllocationStrategy = DataType, TensorIOMode, Strategy
    return module
