"""Bundles and engines for the checks.

A full-size bundle is exported here, and engines are built if TensorRT is installed. If no engine of the package runs
networks on a GPU here, PyTorch stands in (`torchengine`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from spinescore.benchmarks.gpu.machine import Driver
from spinescore.benchmarks.gpu.record import SKIPPED, Failed, Figures, Record, Skipped
from spinescore.benchmarks.harness.child import SPINESCORE, run_child
from spinescore.kernels.decode import DISCS
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.engines import CudaQueue, DeviceMemory, Engine
from spinescore.runtime.errors import DeviceError, EngineError
from spinescore.runtime.machine.processes import worker_command
from spinescore.runtime.manifest import HEAD_OUTPUTS
from spinescore.runtime.scoring.networks import VIEWS

__all__ = [
    "FULL_SIZE",
    "SHIPPED",
    "OpenEngine",
    "StillNetwork",
    "Subject",
    "run",
    "still",
    "subjects",
]

OpenEngine = Callable[[Path, str, CudaQueue], Engine[Any]]

SHIPPED, FULL_SIZE = "phantom-reference", "hrnet-w32-resnet152"
_MOST_FLIPS = 2
_BUILDERS = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}


@dataclass(frozen=True)
class Subject:
    """A bundle and the function that opens its engines; None for the device's own choice.

    `is_still` marks the double whose networks compute nothing.
    """

    name: str
    bundle: Bundle
    open_engine: OpenEngine | None = None
    is_still: bool = False


class StillNetwork:
    """A double of a network that copies fixed outputs on the device's stream, so that kernels run without an engine.

    Heatmaps show a spine, logits are random.
    """

    framework, capturable, rows = "none: outputs that stand still", True, 1

    def __init__(
        self, path: Path, input_shape: tuple[int, ...], output_shape: tuple[int, ...], values: Any, queue: Any
    ) -> None:
        self.file, self.name, self.precision, self.dtype = path, path.name, "fp16", np.dtype(np.float16)
        self.input_shape, self.output_shape = input_shape, output_shape
        self._driver, self._queue = Driver(), queue
        self._values = queue.allocate(values.shape, self.dtype)
        queue.write(self._values, values.astype(self.dtype))

    def run(self, inputs: DeviceMemory, outputs: DeviceMemory) -> None:
        self._driver.copy_on_device(outputs.address, self._values.address, outputs.nbytes, self._queue.stream_handle)

    def close(self) -> None:
        """Do nothing: its memory is the device's."""


def still(bundle: Bundle) -> OpenEngine:
    """Return a function that opens `StillNetwork`s of the shapes in the bundle's manifest."""
    localizer, grader = bundle.manifest.localizer, bundle.manifest.grader
    localizers = {name for files in localizer.files.values() for name in files.values()}
    joints = 1 + max(keypoint.channel for keypoints in localizer.keypoints.values() for keypoint in keypoints)
    outputs = {name: HEAD_OUTPUTS[grader.head][role] for role, files in grader.files.items() for name in files.values()}

    def opened(path: Path, precision: str, queue: CudaQueue) -> Engine[Any]:
        rng = np.random.default_rng(0)
        if path.name in localizers:
            size = localizer.input
            shape: tuple[int, ...] = (joints, size.height // 4, size.width // 4)
            values = np.stack([_spine(rng, shape) for _ in range(VIEWS)])
        else:
            size = grader.input
            shape = (outputs[path.name],)
            values = rng.normal(0, 2, (VIEWS * DISCS * _MOST_FLIPS, *shape))
        return StillNetwork(path, (size.channels, size.height, size.width), shape, values, queue)

    return opened


def _spine(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Return heatmaps (joints, h, w) from the top disc down, centre then anterior, each with a peak between pixels."""
    joints, height, width = shape
    y, x = np.mgrid[:height, :width]
    disc, anterior = np.divmod(np.arange(joints) % (2 * DISCS), 2)
    across = width * (0.55 - 0.2 * anterior) + rng.uniform(-1, 1, joints)
    down = height * (0.15 + 0.13 * disc) + rng.uniform(-1, 1, joints)
    distance = (x - across[:, None, None]) ** 2 + (y - down[:, None, None]) ** 2
    return 0.9 * np.exp(-distance / 8)


def subjects(options: Any) -> list[Subject]:
    """Return the subjects: no networks, the shipped bundle, and the full-size one if it was exported."""
    shipped, open_engine = Bundle.open(_prepared(options, SHIPPED)), stand_in()
    available = [
        Subject("kernels alone", shipped, still(shipped), is_still=True),
        Subject(SHIPPED, shipped, open_engine),
    ]
    if (options.scratch / FULL_SIZE / "bundle.json").is_file():
        available.append(Subject(FULL_SIZE, Bundle.open(options.scratch / FULL_SIZE), open_engine))
    return available


def stand_in() -> OpenEngine | None:
    """Return the function that opens networks on PyTorch, if nothing else here runs them on a GPU and PyTorch does."""
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers() or any(map(_builds_here, _builders())):
        return None
    try:
        import torch

        from spinescore.benchmarks.gpu.torchengine import open_on_gpu
    except ImportError:
        return None
    return open_on_gpu if torch.cuda.is_available() else None


def _builders() -> list[str]:
    """Return the import names of the installed flavours of TensorRT that build engines."""
    from spinescore.runtime.engines.flavours import installed_flavours

    return [flavour for flavour in installed_flavours() if flavour in _BUILDERS]


def _builds_here(flavour: str) -> bool:
    """Return whether a flavour builds engines for this GPU; false without a GPU."""
    from spinescore.runtime.devices import first_gpu
    from spinescore.runtime.engines.flavours import builds_for, import_flavour

    try:
        return builds_for(import_flavour(flavour), first_gpu().compute_capability)
    except (DeviceError, EngineError):
        return False


def _prepared(options: Any, name: str) -> Path | str:
    folder: Path = options.scratch / name
    return folder if (folder / "bundle.json").is_file() else name


def run(record: Record, options: Any) -> None:
    """Run the part `networks`: the bundles, their engines, and the device's choice of one."""
    flavours = _builders()
    if not flavours:
        record.add("engines of TensorRT", SKIPPED, {}, "no TensorRT that builds engines is installed")
    for name, prepare in ((SHIPPED, _copy), (FULL_SIZE, _export)):
        record.check(f"{name}: bundle", partial(prepare, options))
        for subject in subjects(options):
            if subject.name == name:
                for flavour in flavours:
                    build = _Build(subject.bundle.folder, flavour, record.left_s / 3)
                    record.check(f"{name}: {flavour} built and tried", build)
                record.check(f"{name}: engine chosen", partial(opened, subject))


def _copy(options: Any) -> Figures:
    """Copy the shipped bundle to a folder in which engines can be built."""
    folder = options.scratch / SHIPPED
    shutil.copytree(Bundle.open(SHIPPED).folder, folder, dirs_exist_ok=True)
    return {"bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())}


def _export(options: Any) -> Figures:
    if options.quick:
        raise Skipped("left out by --quick")
    from spinescore.export.bundle import export_bundle

    report = export_bundle("synthetic:hrnet-w32", "synthetic:resnet152", options.scratch / FULL_SIZE, golden_studies=3)
    return {"warnings": list(report.warnings)}


class _Build:
    """Build the engines of a bundle in one child process and run them in another: either may end the process."""

    def __init__(self, folder: Path, flavour: str, seconds: float) -> None:
        self._folder, self._flavour, self._seconds = folder, flavour, max(seconds, 1.0)

    def __call__(self) -> Figures:
        from spinescore.runtime.devices import first_gpu
        from spinescore.runtime.engines.flavours import builds_for, import_flavour

        major, minor = first_gpu().compute_capability
        if not builds_for(import_flavour(self._flavour), (major, minor)):
            raise Skipped(f"{self._flavour} builds nothing for compute capability {major}.{minor}")
        build = [*SPINESCORE, "engine", "build", str(self._folder), "--engine", _BUILDERS[self._flavour]]
        try:
            built = run_child(build, timeout_s=self._seconds)
            trial = worker_command(__name__, str(self._folder), "run_once")
            tried = run_child(trial, timeout_s=self._seconds)
        except EngineError as error:
            shutil.rmtree(self._folder / "engines", ignore_errors=True)  # the next flavour, or ONNX Runtime, goes on
            raise Failed(str(error)) from error
        return {"built": built.strip().splitlines()[-4:], "tried": tried.strip()[-300:]}


def run_once(folder: str) -> None:
    """Open a bundle's TensorRT engines, which runs them once: in a process of its own, since a wrong one may end it."""
    from spinescore.runtime.devices.cuda import CudaDevice
    from spinescore.runtime.engines.tensorrt import open_on_gpu
    from spinescore.runtime.scoring.pipeline import Pipeline

    device = CudaDevice(largest_image_px=2**16, open_engine=open_on_gpu)
    try:
        pipeline = Pipeline(Bundle.open(folder), device)
        device.synchronise()
        print(pipeline.framework, pipeline.precision)
    finally:
        device.close()


def opened(subject: Subject) -> Figures:
    """Open the networks and run them once; returns the choice and its reasons. Skipped if no engine runs them here."""
    from spinescore.runtime.devices import open_device
    from spinescore.runtime.scoring.pipeline import Pipeline

    device = open_device("cuda", largest_image_px=2**16)  # says what is missing if there is no GPU
    if subject.open_engine is not None:
        from spinescore.runtime.devices.cuda import CudaDevice

        device.close()
        device = CudaDevice(largest_image_px=2**16, open_engine=subject.open_engine)
    try:
        pipeline = Pipeline(subject.bundle, device)
    except EngineError as error:
        raise Skipped(f"no engine runs these networks here: {error}") from error
    finally:
        chosen = {"warnings": list(device.warnings), "gpu": device.name}
        device.close()
    return {"engine": pipeline.framework, "precision": pipeline.precision, **chosen}
