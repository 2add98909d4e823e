"""A checkpoint's tensors. Each must be used exactly once, so that none is missing and none is left over."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.errors import CheckpointError

__all__ = ["Weights", "fold_batch_norm"]

Array64 = NDArray[np.float64]

_COUNTERS = ("num_batches_tracked",)  # PyTorch counts batches while training; inference has no use for it
_SHOWN = 5


class Weights:
    """Hands out tensors by name as float64, and refuses to hand one out twice."""

    def __init__(self, tensors: Mapping[str, NDArray[np.generic]], architecture: str) -> None:
        self.architecture = architecture
        self._tensors = {name: value for name, value in tensors.items() if not name.endswith(_COUNTERS)}
        self._taken: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        return self._find(name).shape

    def names(self, prefix: str = "") -> list[str]:
        return [name for name in self._tensors if name.startswith(prefix)]

    def count(self, prefix: str) -> int:
        """Return how many of `prefix.0.`, `prefix.1.`, .. exist without a gap."""
        number = 0
        while any(name.startswith(f"{prefix}.{number}.") for name in self._tensors):
            number += 1
        return number

    def _find(self, name: str) -> NDArray[np.generic]:
        if name not in self._tensors:
            first = ", ".join(list(self._tensors)[:_SHOWN]) or "no tensor at all"
            raise CheckpointError(
                f"{self.architecture}: the checkpoint has no tensor {name}; it begins with {first}. "
                "Give the weights of this architecture, or export it to ONNX and give that file"
            )
        return self._tensors[name]

    def take(self, name: str, dimensions: int) -> Array64:
        value = self._find(name)
        if name in self._taken:
            raise CheckpointError(f"{self.architecture}: tensor {name} is used twice")
        if value.ndim != dimensions or 0 in value.shape:
            raise CheckpointError(
                f"{self.architecture}: tensor {name} has shape {value.shape}; "
                f"expected {dimensions} axes, none of them 0"
            )
        taken = np.asarray(value, np.float64)
        if not np.isfinite(taken).all():
            raise CheckpointError(f"{self.architecture}: tensor {name} holds NaN or infinity; the training diverged")
        self._taken.add(name)
        return taken

    def close(self) -> None:
        """Check that every tensor was used. Raises `CheckpointError` if not."""
        left = [name for name in self._tensors if name not in self._taken]
        if left:
            more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
            raise CheckpointError(
                f"{self.architecture}: {len(left)} tensors of the checkpoint have no place in the network: "
                f"{', '.join(left[:_SHOWN])}{more}. The checkpoint is of a variant that is not known here; "
                "export it to ONNX and give that file instead"
            )


def fold_batch_norm(
    weight: Array64, bias: Array64 | None, norm: tuple[Array64, Array64, Array64, Array64], epsilon: float, name: str
) -> tuple[Array64, Array64]:
    """Return weight (out, ...) and bias of a convolution with the batch normalisation after it folded in, in float64.

    `norm` holds gamma, beta, mean and variance, each (out,).
    """
    gamma, beta, mean, variance = norm
    if any(part.shape != weight.shape[:1] for part in norm):
        shapes = ", ".join(str(part.shape) for part in norm)
        raise CheckpointError(f"{name}: {weight.shape[0]} channels, but its batch normalisation has {shapes}")
    if (variance < 0).any():
        raise CheckpointError(f"{name}: the running variance of its batch normalisation is negative")
    scale = gamma / np.sqrt(variance + epsilon)
    shift = beta + ((0.0 if bias is None else bias) - mean) * scale
    return weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), shift
