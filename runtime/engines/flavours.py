"""The flavours of TensorRT: the full library, its lean runtime, and TensorRT-RTX; 10.3 to 11.4 and 1.x.

This is the only module that imports any of them. Engines run in `tensorrt`; `spinescore.export.engine` builds them.
"""

from __future__ import annotations

import importlib
from collections import deque
from functools import cache
from typing import Any

from spinescore.runtime.engines import ENGINES, TENSORRT
from spinescore.runtime.engines.sidecar import FLAVOURS, Sidecar
from spinescore.runtime.errors import EngineError
from spinescore.runtime.machine.packages import is_importable

__all__ = ["builds_for", "import_flavour", "installed_flavours", "lines_of", "logger_of", "runtime_flavour", "start"]

_KEPT_LINES = 12


def installed_flavours() -> tuple[str, ...]:
    """Return the import names of the installed flavours, the full library first; none is imported."""
    return tuple(name for name in FLAVOURS if is_importable(name))


def import_flavour(name: str) -> Any:
    """Import and return the module. Raises `EngineError` that names the extra to install."""
    try:
        module = importlib.import_module(name)
        if not hasattr(module, "__version__"):
            raise ImportError(f"the folder {next(iter(module.__path__), '')} is not the library")
        return module
    except (ImportError, OSError) as error:
        extra = ENGINES[TENSORRT].frameworks[name].extra
        raise EngineError(
            f'{name} cannot be imported ({error}); install it: pip install "spinescore[{extra}]" (on a Jetson, JetPack '
            "brings tensorrt; `spinescore doctor` says how a virtual environment sees it)"
        ) from error


def builds_for(module: Any, capability: tuple[int, int]) -> bool:
    """Return whether a flavour builds engines for a GPU; TensorRT-RTX names the GPUs that it builds for."""
    if not hasattr(module, "Builder"):
        return False
    capabilities = getattr(module, "ComputeCapability", None)
    return capabilities is None or hasattr(capabilities, f"SM{capability[0]}{capability[1]}")


def runtime_flavour(sidecar: Sidecar) -> str:
    """Return the flavour that runs an engine: its builder, or the lean runtime if only that is installed."""
    if sidecar.flavour not in installed_flavours() and sidecar.version_compatible:
        return "tensorrt_lean"
    return sidecar.flavour


@cache
def logger_of(module: Any) -> Any:
    """Return the process's one `ILogger` of a flavour; its `lines` are the latest warnings and errors.

    TensorRT sends every message to the logger that it was given first, and ignores later ones.
    """

    class Lines(module.ILogger):  # type: ignore[misc]  # the base class is known only when the flavour is imported
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.lines: deque[str] = deque(maxlen=_KEPT_LINES)
            self._kept = (self.INTERNAL_ERROR, self.ERROR, self.WARNING)

        def log(self, severity: Any, msg: str) -> None:
            if severity in self._kept:
                self.lines.append(msg.strip())

    return Lines()


def lines_of(module: Any) -> str:
    """Return the lines that TensorRT logged since the latest call, as one sentence without its full stop."""
    lines = logger_of(module).lines
    text = "; ".join(lines) or "it gave no reason"
    lines.clear()
    return text


def start(module: Any, kind: Any, *arguments: Any) -> Any:
    """Return `kind(*arguments, logger)`: a runtime, a builder or a parser. Raises `EngineError` if it cannot start.

    The bindings raise TypeError in place of returning None, for example if the driver is older than TensorRT's CUDA.
    """
    logger = logger_of(module)
    logger.lines.clear()
    try:
        return kind(*arguments, logger)
    except TypeError as error:
        reason = "; ".join(logger.lines) or str(error)
        logger.lines.clear()
        raise EngineError(
            f"{module.__name__} {module.__version__} could not start its {kind.__name__}: {reason}. Is the NVIDIA "
            "driver as new as the CUDA of this TensorRT? `spinescore doctor` shows what the driver supports: update "
            "it, or install a TensorRT for that CUDA."
        ) from error
