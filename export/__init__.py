"""From trained weights to a bundle that the runtime runs; neither PyTorch nor TensorFlow is needed.

The public door: each name of `__all__` is imported at its first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from spinescore.runtime import silence  # noqa: F401  # before any engine is imported

if TYPE_CHECKING:
    from spinescore.export.bundle import ExportReport, export_bundle
    from spinescore.export.checkpoints import Checkpoint, KerasLayer, read_checkpoint
    from spinescore.export.verify import VerifyReport, verify_bundle

_HOMES = {
    "Checkpoint": "spinescore.export.checkpoints",
    "ExportReport": "spinescore.export.bundle",
    "KerasLayer": "spinescore.export.checkpoints",
    "VerifyReport": "spinescore.export.verify",
    "export_bundle": "spinescore.export.bundle",
    "read_checkpoint": "spinescore.export.checkpoints",
    "verify_bundle": "spinescore.export.verify",
}

__all__ = [
    "Checkpoint",
    "ExportReport",
    "KerasLayer",
    "VerifyReport",
    "export_bundle",
    "read_checkpoint",
    "verify_bundle",
]

if not TYPE_CHECKING:  # to a type checker a name that is not in `__all__` is an error

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)
