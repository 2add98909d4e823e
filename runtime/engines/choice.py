"""Which engine runs a bundle's networks, and in which precision."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

from spinescore.runtime.engines import CudaQueue, Engine
from spinescore.runtime.engines.places import engine_paths
from spinescore.runtime.engines.sidecar import Sidecar
from spinescore.runtime.errors import EngineError
from spinescore.runtime.manifest import Files
from spinescore.runtime.names import EngineName, PrecisionName
from spinescore.runtime.notices import notice

__all__ = [
    "ENGINES",
    "PRECISIONS",
    "EngineChoice",
    "cpu_choices",
    "gpu_choices",
    "installed_openvino",
    "open_on_cpu",
    "open_on_gpu",
]

ENGINES: tuple[EngineName, ...] = get_args(EngineName)
PRECISIONS: tuple[PrecisionName, ...] = get_args(PrecisionName)

# Precisions of network files that serve a precision, the preferred one first. BF16 is arithmetic on FP32 files; what
# a bundle does not hold in INT8 runs as it is.
_FILES = {"fp32": ("fp32",), "bf16": ("fp32",), "fp16": ("fp16",), "int8": ("int8", "fp32")}
_TENSORRT_FILES = {"fp32": ("fp32",), "fp16": ("fp16", "fp32"), "int8": ("int8", "fp16", "fp32")}
_ON_CPU = (
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "fp16"),
    ("openvino", "int8"),
    ("onnxruntime", "fp16"),
    ("onnxruntime", "int8"),
)


@dataclass(frozen=True)
class EngineChoice:
    """One way to run networks; `target` is the folder in `engines/` of a bundle where TensorRT's engines lie."""

    engine: str
    precision: str
    target: str | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """Precisions of the network files that it takes, the preferred one first."""
        return (_TENSORRT_FILES if self.engine == "tensorrt" else _FILES).get(self.precision, ())

    def __str__(self) -> str:
        return f"{self.engine} {self.precision}{f' ({self.target})' if self.target else ''}"


def installed_openvino() -> str | None:
    """OpenVINO as reports name it, with its version, without importing it; None if it is not there or does not tell."""
    try:
        spec, package = find_spec("openvino"), metadata.distribution("openvino")
    except (metadata.PackageNotFoundError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    same = Path(str(package.locate_file("openvino/__init__.py"))).resolve() == Path(spec.origin).resolve()
    return f"openvino {package.version.split('-')[0]}" if same else None


def cpu_choices(networks: Iterable[Files]) -> list[EngineChoice]:
    """What is installed and could run these networks on a CPU, beside ONNX Runtime in FP32.

    `networks` are files by precision, as the manifest has them. Whether the CPU has BF16 is seen at opening.
    """
    installed = [EngineChoice(*pair) for pair in _ON_CPU if pair[0] == "onnxruntime" or find_spec(pair[0])]
    return [choice for choice in installed if _held(choice, list(networks))]


def gpu_choices(networks: Iterable[Files], folder: Path) -> list[EngineChoice]:
    """What could run these networks on a GPU: the engines of the bundle in `folder`, then ONNX Runtime."""
    built: dict[EngineChoice, None] = {}
    for path in engine_paths(folder):
        try:
            built[EngineChoice("tensorrt", Sidecar.read(path).precision, path.parent.name)] = None
        except EngineError:  # noqa: PERF203  # `spinescore engine list` says why
            continue
    plain = [EngineChoice("onnxruntime", precision) for precision in ("fp16", "fp32")]
    return [*built, *(choice for choice in plain if _held(choice, list(networks)))]


def open_on_cpu(
    choice: EngineChoice | None, path: Path, precision: str, threads: int | None, callers: int = 1
) -> Engine[Any]:
    """The network file `path`, which is of `precision`, on a CPU's engine; without a choice on ONNX Runtime.

    It has `threads`, those of the `callers` included that run it at the same time.
    """
    if choice is None or choice.engine == "onnxruntime":
        from spinescore.runtime.engines.onnxruntime import OnnxRuntimeEngine

        own = threads if threads is None or callers == 1 else max(1, threads - callers + 1)  # callers work as well
        return OnnxRuntimeEngine(path, precision, own)
    if choice.engine == "openvino":
        from spinescore.runtime.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(path, "bf16" if choice.precision == "bf16" else precision, threads, callers)
    raise EngineError(f"Engine {choice.engine} does not run on a CPU; choose onnxruntime or openvino.")


def open_on_gpu(
    choice: EngineChoice | None, path: Path, precision: str, queue: CudaQueue
) -> tuple[Engine[Any], str | None]:
    """The network on a GPU's engine, and a warning where it is not the best one.

    Without a choice TensorRT where this GPU has an engine of the network, else ONNX Runtime.
    """
    from spinescore.runtime.engines import onnxruntime, tensorrt

    if choice is not None:
        if choice.engine == "tensorrt":
            return tensorrt.open_engine(path, precision, queue, choice.target), None
        if choice.engine == "onnxruntime":
            return onnxruntime.OnnxRuntimeEngine(path, precision, queue=queue), None
        raise EngineError(f"Engine {choice.engine} does not run on {queue.name}; choose tensorrt or onnxruntime.")
    try:
        return tensorrt.open_engine(path, precision, queue), None
    except EngineError as refused:
        try:
            engine = onnxruntime.OnnxRuntimeEngine(path, precision, queue=queue)
        except EngineError as error:
            raise EngineError(f"{refused} {error}") from error
        return engine, notice("engine-passed-over", f"{path.name} runs on ONNX Runtime. {refused}", engine="tensorrt")


def _held(choice: EngineChoice, networks: list[Files]) -> bool:
    """Every network can be run so, and one at least has a file of the first choice."""
    wanted = choice.files
    return all(set(wanted) & set(files) for files in networks) and any(wanted[0] in files for files in networks)
