"""From trained weights to a bundle that the runtime runs; neither PyTorch nor TensorFlow is needed.

The public door: what is named in `__all__` is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "Checkpoint": "spinescore.export.checkpoints",
    "KerasLayer": "spinescore.export.checkpoints",
    "read_checkpoint": "spinescore.export.checkpoints",
}

__all__ = ["Checkpoint", "KerasLayer", "read_checkpoint"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
