"""Engines: what runs a network. One module per framework, imported only by the device that uses it."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import numpy as np

__all__ = ["Engine"]

B = TypeVar("B", contravariant=True)


class Engine(Protocol[B]):
    """A loaded network with one input `image` and one output; shapes are without the batch."""

    framework: str  # and its version, for reports
    precision: str
    name: str  # the model's file, for messages

    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def input_shape(self) -> tuple[int, ...]: ...
    @property
    def output_shape(self) -> tuple[int, ...]: ...
    def run(self, inputs: B, outputs: B) -> None:
        """Infer a batch (N, *input_shape) into (N, *output_shape). Raises `EngineError`."""
