"""The sidecar of an engine: what the engine is, and whether it may run here. Nothing in here imports TensorRT.

An engine lies in `engines/<target>/` of a bundle, as `localizer.fp16.engine` beside `localizer.fp16.engine.json`. The
sidecar names the network, the TensorRT and the GPU that the engine was built from, with and for. An engine without a
sidecar, or with one that does not fit, is refused.
"""

from __future__ import annotations

import json
import math
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from spinescore.kernels.signing import sign
from spinescore.runtime.documents import document_of, document_sha256, read
from spinescore.runtime.engines import ENGINES, TENSORRT, Gpu
from spinescore.runtime.errors import EngineError
from spinescore.runtime.fields import OPTIONAL, Length, OneOf, Within, dotted
from spinescore.runtime.files import file_sha256, write_atomic
from spinescore.runtime.jsonfile import read_json

__all__ = [
    "ENGINE_FOLDER",
    "FLAVOURS",
    "HARDWARE",
    "SCHEMA",
    "SUFFIX",
    "Sidecar",
    "sidecar_path",
    "this_platform",
]

SCHEMA = "spinescore.engine/1"
ENGINE_FOLDER = "engines"  # of a bundle
SUFFIX = ".engine"
FLAVOURS = tuple(ENGINES[TENSORRT].frameworks)  # as they are imported
HARDWARE = ("this", "same-compute-capability", "ampere-plus")  # GPUs that an engine of the full TensorRT runs on

_Count = Annotated[int, Within(1, 4096)]
_Side = Annotated[int, Within(1)]


@dataclass(frozen=True)
class Sidecar:
    """The sidecar of one engine. `gpu`, `multiprocessors` and `driver` are None if it was built without a GPU."""

    flavour: Annotated[str, OneOf(*FLAVOURS)]  # the builder; `tensorrt_lean` runs version-compatible engines of it
    version: str
    precision: Annotated[str, OneOf("fp16", "fp32", "int8")]
    least_batch: _Count
    most_batch: _Count
    onnx: str  # file name
    onnx_sha256: str
    engine_sha256: str
    compute_capabilities: tuple[Annotated[str, Length(0, math.inf)], ...]
    hardware: Annotated[str, OneOf(*HARDWARE)]
    version_compatible: bool
    gpu: str | None
    multiprocessors: _Count | None
    driver: str | None
    platform: str
    build_seconds: Annotated[float, Within(0.0, 1e7)]
    sizes: Annotated[tuple[tuple[_Side, _Side], ...], OPTIONAL] = ()  # (height, width) of the profiles, if it is free
    schema: Annotated[str, OneOf(SCHEMA)] = SCHEMA

    @classmethod
    def read(cls, engine: Path) -> Sidecar:
        """Return the sidecar of an engine's file. Raises `EngineError` if it is missing or not valid."""
        path = sidecar_path(engine)
        try:
            document = read_json(path)
            if isinstance(document, dict) and isinstance(document.get("compute_capabilities"), list):
                document["compute_capabilities"] = [str(one) for one in document["compute_capabilities"]]
            return read(cls, document)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise EngineError(f"Engine {engine.name} has no sidecar {path} ({reason}); {_REBUILD}") from error
        except ValueError as error:
            raise EngineError(f"The sidecar {path} is not valid ({error}); {_REBUILD}") from error

    def write(self, engine: Path) -> None:
        """Write and sign it: the engine counts as built on this machine. Raises `OSError`."""
        sign(self.signed_as, self.digest())
        write_atomic(sidecar_path(engine), json.dumps(document_of(self), indent=2) + "\n")

    def digest(self) -> str:
        return document_sha256(asdict(self))

    @property
    def signed_as(self) -> str:
        return f"engine {self.digest()}"

    def _check_fields(self, path: str) -> None:
        if self.most_batch < self.least_batch:
            raise ValueError(
                f"{dotted(path, 'most_batch')}: expected at least least_batch, {self.least_batch}, found "
                f"{self.most_batch}"
            )

    def check_files(self, engine: Path, onnx: Path) -> None:
        """Refuse an engine that was altered, or that was built from another network. Raises `EngineError`."""
        if _hash(engine) != self.engine_sha256:
            raise EngineError(
                f"Engine {engine} was altered or is truncated: its SHA-256 is not its sidecar's; {_REBUILD}"
            )
        if onnx.name != self.onnx or _hash(onnx) != self.onnx_sha256:
            raise EngineError(f"Engine {engine} was built from another {self.onnx} than {onnx}; {_REBUILD}")

    def check_machine(self, engine: Path, flavour: str, version: str, gpu: Gpu) -> None:
        """Refuse an engine of another TensorRT, another platform or another GPU. Raises `EngineError`.

        An engine that was built for one GPU and does not say how many multiprocessors that has is refused as well.
        """
        if this_platform() != self.platform:
            raise EngineError(f"Engine {engine} is for {self.platform}, this is {this_platform()}; {_REBUILD}")
        if not self._runs_on(flavour, version):
            raise EngineError(
                f"Engine {engine} was built by {self.flavour} {self.version}, this is {flavour} {version}; {_REBUILD}"
            )
        if not self._is_for(gpu):
            count = f"{self.multiprocessors or 'an unknown number of'} multiprocessors"
            built = f"{self.gpu} with {count}" if self.gpu else "GPUs"
            capabilities = ", ".join(self.compute_capabilities)
            here = f"{gpu} ({gpu.compute_capability[0]}.{gpu.compute_capability[1]})"
            raise EngineError(
                f"Engine {engine} is for {built} (compute capability {capabilities}), this is {here}; {_REBUILD}"
            )

    def _runs_on(self, flavour: str, version: str) -> bool:
        """Return whether this TensorRT runs it: a version-compatible engine also runs on later minor versions."""
        if not self.version_compatible:
            return (flavour, version) == (self.flavour, self.version)
        built, here = _numbers(self.version), _numbers(version)
        return flavour != "tensorrt_rtx" and here[:1] == built[:1] and here >= built

    def _is_for(self, gpu: Gpu) -> bool:
        major, minor = gpu.compute_capability
        if self.hardware == "ampere-plus":
            return major >= 8
        same = f"{major}.{minor}" in self.compute_capabilities
        of_one_gpu = self.gpu is not None and self.hardware == "this" and self.flavour != "tensorrt_rtx"
        return same and (not of_one_gpu or (gpu.name, gpu.multiprocessors) == (self.gpu, self.multiprocessors))


_REBUILD = "build it for this machine: spinescore engine build BUNDLE"


def sidecar_path(engine: Path) -> Path:
    return engine.with_name(f"{engine.name}.json")


def this_platform() -> str:
    """Return a name such as `linux-x86_64`, `linux-aarch64` or `windows-amd64`."""
    return f"{platform.system()}-{platform.machine()}".lower()


def _hash(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise EngineError(f"{path} cannot be read ({reason}); {_REBUILD}") from error


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())
