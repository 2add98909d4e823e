"""The choice of the engine that runs a bundle's networks, and of its precision."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from spinescore.runtime.engines import ENGINES, ONNX_RUNTIME, CudaQueue, Engine
from spinescore.runtime.engines.places import engine_paths
from spinescore.runtime.engines.sidecar import Sidecar
from spinescore.runtime.errors import EngineError
from spinescore.runtime.manifest import Files
from spinescore.runtime.notices import notice

__all__ = [
    "REFERENCE",
    "EngineChoice",
    "choices_on",
    "engines_on",
    "extra_for",
    "installed_openvino",
    "open_on_cpu",
    "open_on_gpu",
]


@dataclass(frozen=True)
class EngineChoice:
    """One way to run networks; `target` is the folder in `engines/` of a bundle that holds prebuilt engines."""

    engine: str
    precision: str
    target: str | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """Precisions of the network files that it takes, the preferred precision first."""
        return ENGINES[self.engine].files.get(self.precision, ())

    def __str__(self) -> str:
        return f"{self.engine} {self.precision}{f' ({self.target})' if self.target else ''}"


_HALF = EngineChoice(ONNX_RUNTIME, "fp16")
REFERENCE = EngineChoice(ONNX_RUNTIME, "fp32")  # on a CPU; all others are compared with it, and it needs no record


def engines_on(device: str) -> tuple[str, ...]:
    return tuple(name for name, row in ENGINES.items() if device in row.precisions)


def extra_for(device: str) -> str:
    """Return the extra of spinescore that installs an engine for this kind of device."""
    frameworks = [framework for name in engines_on(device) for framework in ENGINES[name].frameworks.values()]
    return [framework.extra for framework in frameworks if framework.extra][-1]


def installed_openvino() -> str | None:
    """Return OpenVINO's name and version as in reports; None if it is not installed or has no version.

    OpenVINO is not imported.
    """
    try:
        spec, package = find_spec("openvino"), metadata.distribution("openvino")
    except (metadata.PackageNotFoundError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    same = Path(str(package.locate_file("openvino/__init__.py"))).resolve() == Path(spec.origin).resolve()
    return f"openvino {package.version.split('-')[0]}" if same else None


def choices_on(device: str, networks: Iterable[Files], folder: Path) -> list[EngineChoice]:
    """Return the engines that are installed or built and could run these networks on a device.

    The reference is not among them; others of its engine come last. `networks` are files by precision, as in the
    manifest; `folder` is the bundle's. Whether a CPU has BF16 arithmetic shows only when the engine is opened.
    """
    files = list(networks)
    choices: list[EngineChoice] = []
    for name in sorted(engines_on(device), key=lambda name: name == REFERENCE.engine):
        row = ENGINES[name]
        if row.prebuilt:
            choices += _prebuilt(name, folder)
        elif name == REFERENCE.engine or any(map(find_spec, row.frameworks)):
            choices += [
                choice
                for precision in row.precisions[device]
                if (device, choice := EngineChoice(name, precision)) != ("cpu", REFERENCE)
                and _has_files(choice, files, device == "cuda")
            ]
    return choices


def _prebuilt(engine: str, folder: Path) -> dict[EngineChoice, None]:
    choices: dict[EngineChoice, None] = {}
    for path in engine_paths(folder):
        try:
            choices[EngineChoice(engine, Sidecar.read(path).precision, path.parent.name)] = None
        except EngineError:  # noqa: PERF203  # `spinescore engine list` says why
            continue
    return choices


def _has_files(choice: EngineChoice, networks: list[Files], on_gpu: bool) -> bool:
    """Return whether every network has a file for the choice, and one of them in its preferred precision.

    On a GPU the package onnx converts FP32 files to half precision for ONNX Runtime.
    """
    precisions = choice.files
    converts = on_gpu and choice == _HALF and find_spec("onnx") is not None
    return all(set(precisions) & set(files) for files in networks) and (
        converts or any(precisions[0] in files for files in networks)
    )


def open_on_cpu(
    choice: EngineChoice | None,
    path: Path,
    precision: str,
    threads: int | None,
    callers: int = 1,
    rows: int | None = None,
) -> Engine[Any]:
    """Open the network file `path` on a CPU; without a choice on the reference's engine.

    `precision` is the file's. The `threads` include those of the `callers` that run the network at the same time.
    Every batch is a multiple of `rows`; None if that is not known.
    Raises `EngineError`.
    """
    name = REFERENCE.engine if choice is None else choice.engine
    if name not in engines_on("cpu"):
        raise EngineError(f"Engine {name} does not run on a CPU; choose {' or '.join(engines_on('cpu'))}.")
    bf16 = choice is not None and choice.precision == "bf16"  # arithmetic on an FP32 file
    opened: Engine[Any] = _module(name).open_on_cpu(path, "bf16" if bf16 else precision, threads, callers, rows)
    return opened


def open_on_gpu(
    choice: EngineChoice | None, path: Path, precision: str, queue: CudaQueue
) -> tuple[Engine[Any], str | None]:
    """Open the network file `path` on a GPU; also return a warning if a better engine was passed over.

    Without a choice the GPU's prebuilt engine of the network is taken, else the reference's engine. Raises
    `EngineError`.
    """
    names = sorted(engines_on("cuda"), key=lambda name: not ENGINES[name].prebuilt)
    if choice is not None:
        if choice.engine not in names:
            raise EngineError(f"Engine {choice.engine} does not run on {queue.name}; choose {' or '.join(names)}.")
        if choice == _HALF and precision == "fp32":
            return _module(choice.engine).open_on_gpu(path, "fp16", queue, convert=True), None
        return _module(choice.engine).open_on_gpu(path, precision, queue, choice.target), None
    refusals: list[str] = []
    for name in names:
        try:
            engine = _module(name).open_on_gpu(path, precision, queue)
        except EngineError as error:
            refusals.append(str(error))
            continue
        if not refusals:
            return engine, None
        text = f"{path.name} runs on {ENGINES[name].title}. {' '.join(refusals)}"
        return engine, notice("engine-passed-over", text, engine=names[0])
    raise EngineError(" ".join(refusals))


def _module(engine: str) -> Any:
    return import_module(f"spinescore.runtime.engines.{engine}")
