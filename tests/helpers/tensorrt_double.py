"""A stand-in for the `tensorrt` module: it answers the calls of `engines/tensorrt.py`, and notes them.

Its names and arguments are held against the real modules by `test_tensorrt_contract.py`, since both are what the engine
calls. `failing` names calls that fail as TensorRT does: with a line in the log, and None, False, or for `Runtime` the
TypeError of its bindings. As in TensorRT the first logger gets every line. `profiles` are the shapes of `image` that
were built, in place of the one; any other is refused. `rtx` adds the names of TensorRT-RTX.
"""

from __future__ import annotations

import types
from enum import Enum
from importlib.machinery import ModuleSpec

from spinescore.runtime.engines import Gpu
from spinescore.runtime.engines.sidecar import Sidecar, this_platform
from spinescore.runtime.files import file_sha256

DataType = Enum("DataType", "HALF FLOAT INT8")
TensorIOMode = Enum("TensorIOMode", "INPUT OUTPUT")
Strategy = Enum("Strategy", "STATIC USER_MANAGED")
Specialization = Enum("Specialization", "LAZY EAGER NONE")

SHAPES = {"image": (2, 1, 8, 6), "heatmaps": (2, 3, 2, 2)}
FREE = {"image": (-1, 1, -1, -1), "heatmaps": (-1, 3, -1, -1)}


HERE = Gpu("GeForce RTX 4060", (8, 9), 24)
GPU = HERE.name


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
        multiprocessors=HERE.multiprocessors,
        driver="13.0",
        platform=this_platform(),
        build_seconds=1.5,
    )
    sidecar.write(engine)
    return engine, onnx, sidecar


def make_double(
    failing: frozenset[str] = frozenset(), tensors=None, dtypes=None, profiles=None, rtx: bool = False
) -> types.ModuleType:
    built = profiles or [SHAPES["image"]]
    tensors = tensors or {"image": TensorIOMode.INPUT, "heatmaps": TensorIOMode.OUTPUT}
    dtypes = dtypes or dict.fromkeys(tensors, DataType.HALF)
    name = "tensorrt_rtx" if rtx else "tensorrt"
    module = types.ModuleType(name)
    module.__spec__ = ModuleSpec(name, None, origin="double")
    module.__version__ = "1.7.1.116" if rtx else "10.16.1.11"
    module.calls = []
    module.registered = None  # the process's logger

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def answer(name, good, bad):
        if name in failing:
            module.registered.log(ILogger.VERBOSE, "small talk")
            module.registered.log(ILogger.ERROR, f"the double failed in {name}")
            return bad
        return good

    class Context:
        def __init__(self):
            self.compiled = False
            self.profile = None if profiles else 0  # of several, one has to be chosen

        def set_optimization_profile_async(self, profile_index, stream_handle):
            module.calls.append(("profile", profile_index, stream_handle))
            self.profile = profile_index
            return answer("set_optimization_profile_async", profile_index < len(built), False)

        def set_input_shape(self, name, shape):
            module.calls.append(("shape", name, shape))
            self.shape = shape
            if self.profile is None or shape != built[self.profile]:
                module.registered.log(ILogger.ERROR, f"{shape} is not within profile {self.profile}")
                return False
            return answer("set_input_shape", True, False)

        def get_tensor_shape(self, name):
            """Return the shape for the present input; heatmaps have a quarter of its height and width, rounded up."""
            batch, _, height, width = self.shape
            return (batch, 3, -(-height // 4), -(-width // 4))

        def update_device_memory_size_for_shapes(self):
            return 1000

        def set_device_memory(self, memory, size):
            module.calls.append(("memory", memory, size))

        def set_tensor_address(self, name, memory):
            module.calls.append(("address", name, memory))
            return answer("set_tensor_address", True, False)

        def execute_async_v3(self, stream_handle):
            module.calls.append(("execute", stream_handle))
            self.compiled = True
            return answer("execute_async_v3", True, False)

    class Engine:
        num_io_tensors = len(tensors)

        def get_tensor_name(self, index):
            return list(tensors)[index]

        def get_tensor_mode(self, name):
            return tensors[name]

        def get_tensor_dtype(self, name):
            return dtypes[name]

        def get_tensor_shape(self, name):
            return (FREE if profiles else SHAPES)[name]

        def create_execution_context(self, strategy):
            if rtx:
                assert strategy.strategy is Strategy.USER_MANAGED
                assert strategy.cache is not None
            else:
                assert strategy is Strategy.USER_MANAGED
            return answer("create_execution_context", Context(), None)

    class Runtime:
        engine_host_code_allowed = False

        def __init__(self, logger):
            module.registered = module.registered or logger
            if not answer("Runtime", True, False):
                raise TypeError("pybind11::init(): factory function returned nullptr")
            module.runtime = self

        def deserialize_cuda_engine(self, data):
            module.calls.append(("load", data))
            return answer("deserialize_cuda_engine", Engine(), None)

    module.ILogger, module.Runtime = ILogger, Runtime
    module.Builder = None  # it is there, as the lean runtime's is not; what builds is a double of its own
    module.DataType, module.TensorIOMode, module.ExecutionContextAllocationStrategy = DataType, TensorIOMode, Strategy
    if rtx:
        _add_rtx(module, Engine, Context, answer)
    return module


def _add_rtx(module, engine, context, answer):
    """Add a runtime configuration and its cache, which holds the kernels of a context from its first run on.

    A context can be captured as soon as its kernels are compiled: with EAGER after the first run, else at some time.
    """

    class IRuntimeCache:
        compiled = b""

        def serialize(self):
            return self.compiled

        def deserialize(self, data):
            module.calls.append(("cache", data))
            self.compiled = data
            return True

    class IRuntimeConfig:
        strategy = cache = dynamic_shapes_kernel_specialization_strategy = None

        def set_execution_context_allocation_strategy(self, strategy):
            self.strategy = strategy

        def create_runtime_cache(self):
            return answer("create_runtime_cache", IRuntimeCache(), None)

        def set_runtime_cache(self, cache):
            self.cache = cache
            return True

    def create_runtime_config(self):
        module.config = IRuntimeConfig()
        return answer("create_runtime_config", module.config, None)

    def is_stream_capturable(self, stream):
        module.calls.append(("capturable", stream))
        eager = module.config.dynamic_shapes_kernel_specialization_strategy is Specialization.EAGER
        return answer("is_stream_capturable", self.compiled and eager, False)

    def execute_async_v3(self, stream_handle, run=context.execute_async_v3):
        done = run(self, stream_handle)
        module.config.cache.compiled = b"kernels of 1"
        return done

    engine.create_runtime_config = create_runtime_config
    context.is_stream_capturable, context.execute_async_v3 = is_stream_capturable, execute_async_v3
    module.IRuntimeCache, module.IRuntimeConfig = IRuntimeCache, IRuntimeConfig
    module.DynamicShapesKernelSpecializationStrategy = Specialization
