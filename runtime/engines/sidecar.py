"""The sidecar of an engine: what the engine is, and whether it may run here. Nothing in here imports TensorRT.

An engine lies in `engines/<target>/` of a bundle, as `localizer.fp16.engine` beside `localizer.fp16.engine.json`. The
sidecar names the network, the TensorRT and the GPU that the engine was built from, with and for. An engine without a
sidecar, or with one that does not fit, is refused.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spinescore.kernels.signing import sign
from spinescore.runtime.documents import read_json
from spinescore.runtime.engines import ENGINES
from spinescore.runtime.errors import EngineError
from spinescore.runtime.files import open_regular
from spinescore.runtime.manifest.fields import Fields
from spinescore.runtime.output import write_atomic

__all__ = [
    "ENGINE_FOLDER",
    "FLAVOURS",
    "HARDWARE",
    "SCHEMA",
    "SUFFIX",
    "Sidecar",
    "file_sha256",
    "sidecar_path",
    "this_platform",
]

SCHEMA = "spinescore.engine/1"
ENGINE_FOLDER = "engines"  # of a bundle
SUFFIX = ".engine"
FLAVOURS = tuple(ENGINES["tensorrt"].frameworks)  # as they are imported
HARDWARE = ("this", "same-compute-capability", "ampere-plus")  # GPUs that an engine of the full TensorRT runs on


@dataclass(frozen=True)
class Sidecar:
    """The sidecar of one engine. `gpu` and what follows from it is None where an engine was built without a GPU."""

    flavour: str  # that built it; `tensorrt_lean` runs version-compatible engines of `tensorrt`
    version: str
    precision: str
    least_batch: int
    most_batch: int
    onnx: str  # file name
    onnx_sha256: str
    engine_sha256: str
    compute_capabilities: tuple[str, ...]
    hardware: str
    version_compatible: bool
    gpu: str | None
    multiprocessors: int | None
    driver: str | None
    platform: str
    build_seconds: float
    sizes: tuple[tuple[int, int], ...] = ()  # height and width, of a network of free size; a profile for each
    schema: str = SCHEMA

    @classmethod
    def read(cls, engine: Path) -> Sidecar:
        """The sidecar of the engine's file. Raises `EngineError` where it is missing or not valid."""
        path = sidecar_path(engine)
        try:
            return _sidecar(Fields(read_json(path)))
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise EngineError(f"Engine {engine.name} has no sidecar {path} ({reason}); {_REBUILD}") from error
        except ValueError as error:
            raise EngineError(f"The sidecar {path} is not valid ({error}); {_REBUILD}") from error

    def write(self, engine: Path) -> None:
        """Write and sign it: the engine counts as built on this machine. Raises `OSError`."""
        sign(self.signed_as, self.digest())
        document = {name: value for name, value in asdict(self).items() if name != "sizes" or value}
        write_atomic(sidecar_path(engine), json.dumps(document, indent=2) + "\n")

    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def signed_as(self) -> str:
        return f"engine {self.digest()}"

    def check_files(self, engine: Path, onnx: Path) -> None:
        """Refuse an engine that was altered, or that was built from another network. Raises `EngineError`."""
        if _hash(engine) != self.engine_sha256:
            raise EngineError(
                f"Engine {engine} was altered or is truncated: its SHA-256 is not its sidecar's; {_REBUILD}"
            )
        if onnx.name != self.onnx or _hash(onnx) != self.onnx_sha256:
            raise EngineError(f"Engine {engine} was built from another {self.onnx} than {onnx}; {_REBUILD}")

    def check_machine(self, engine: Path, flavour: str, version: str, gpu: str, capability: tuple[int, int]) -> None:
        """Refuse an engine of another TensorRT, another platform or another GPU. Raises `EngineError`."""
        if this_platform() != self.platform:
            raise EngineError(f"Engine {engine} is for {self.platform}, this is {this_platform()}; {_REBUILD}")
        if not self._runs_on(flavour, version):
            raise EngineError(
                f"Engine {engine} was built by {self.flavour} {self.version}, this is {flavour} {version}; {_REBUILD}"
            )
        if not self._is_for(gpu, capability):
            built = f"{self.gpu or 'GPUs'} (compute capability {', '.join(self.compute_capabilities)})"
            here = f"{gpu} ({capability[0]}.{capability[1]})"
            raise EngineError(f"Engine {engine} is for {built}, this is {here}; {_REBUILD}")

    def _runs_on(self, flavour: str, version: str) -> bool:
        """Whether this TensorRT runs it: a version-compatible engine also runs on later minor versions."""
        if not self.version_compatible:
            return (flavour, version) == (self.flavour, self.version)
        built, here = _numbers(self.version), _numbers(version)
        return flavour != "tensorrt_rtx" and here[:1] == built[:1] and here >= built

    def _is_for(self, gpu: str, capability: tuple[int, int]) -> bool:
        if self.hardware == "ampere-plus":
            return capability >= (8, 0)
        same = f"{capability[0]}.{capability[1]}" in self.compute_capabilities
        named = self.gpu is not None and self.hardware == "this" and self.flavour != "tensorrt_rtx"
        return same and (not named or gpu == self.gpu)


_REBUILD = "build it for this machine: spinescore engine build BUNDLE"


def sidecar_path(engine: Path) -> Path:
    return engine.with_name(f"{engine.name}.json")


def file_sha256(path: Path) -> str:
    """Return the file's SHA-256. Raises `OSError`, also if it is not a regular file."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


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


def _sidecar(fields: Fields) -> Sidecar:
    fields.choice("schema", (SCHEMA,))
    least = fields.integer("least_batch", 1, 4096)
    found = Sidecar(
        flavour=fields.choice("flavour", FLAVOURS),
        version=fields.text("version"),
        precision=fields.choice("precision", ("fp16", "fp32", "int8")),
        least_batch=least,
        most_batch=fields.integer("most_batch", least, 4096),
        onnx=fields.text("onnx"),
        onnx_sha256=fields.text("onnx_sha256"),
        engine_sha256=fields.text("engine_sha256"),
        compute_capabilities=tuple(str(item) for item in fields.array("compute_capabilities")),
        hardware=fields.choice("hardware", HARDWARE),
        version_compatible=fields.choice("version_compatible", (True, False)),
        gpu=_maybe(fields, "gpu", fields.text),
        multiprocessors=_maybe(fields, "multiprocessors", lambda name: fields.integer(name, 1, 4096)),
        driver=_maybe(fields, "driver", fields.text),
        platform=fields.text("platform"),
        build_seconds=fields.number("build_seconds", 0.0, 1e7),
        sizes=_sizes(fields) if fields.has("sizes") else (),
    )
    fields.done()
    return found


def _sizes(fields: Fields) -> tuple[tuple[int, int], ...]:
    sizes = fields.array("sizes")
    for size in sizes:
        whole = isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)
        if not whole:
            raise ValueError(f"{fields.name('sizes')}: expected pairs of height and width, found {size!r}")
    return tuple((height, width) for height, width in sizes)


def _maybe(fields: Fields, name: str, read: Callable[[str], Any]) -> Any:
    """None where the field is null."""
    try:
        return read(name)
    except ValueError as error:
        if str(error).endswith("found None"):
            return None
        raise
