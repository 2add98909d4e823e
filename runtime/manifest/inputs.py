"""The input of a bundle's network, and the contrast of its pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from spinescore.runtime.fields import OPTIONAL, OneOf, Within, dotted
from spinescore.runtime.manifest.bounds import check_normalisation, check_percentiles

__all__ = ["Contrast", "NetworkInput"]

_Grey = Annotated[float, Within(-65535.0, 65535.0)]  # `check_normalisation` has the tighter bounds
_Percentile = Annotated[float, Within(0.0, 100.0)]


@dataclass(frozen=True)
class NetworkInput:
    """A network's input. Mean and std are per channel, in grey [0, 1]; `levels` rounds the grey table."""

    height: Annotated[int, Within(16, 4096)]
    width: Annotated[int, Within(16, 4096)]
    channels: Annotated[int, Within(1, 16)]
    mean: tuple[_Grey, ...]
    std: tuple[_Grey, ...]
    antialias: Annotated[int, Within(1, 16)]
    levels: Annotated[int | None, OneOf(None, 256)]
    fit: Annotated[Literal["stretch", "letterbox"] | None, OneOf("stretch", "letterbox")]  # None for a grader

    def _check_fields(self, path: str) -> None:
        check_normalisation("mean", self.mean, self.channels, dotted(path, "mean"))
        check_normalisation("std", self.std, self.channels, dotted(path, "std"))


@dataclass(frozen=True)
class Contrast:
    """How stored values become grey [0, 1].

    `dicom` applies the header's grey scale. `percentile` maps the image's percentiles `low` .. `high` to 0 .. 1; `over`
    says whether they come from samples of the exposed field or from all pixels of the picture.
    """

    mode: Literal["dicom", "percentile"]
    low: _Percentile
    high: _Percentile
    over: Annotated[Literal["exposed", "picture"], OPTIONAL] = "exposed"

    def _check_fields(self, path: str) -> None:
        check_percentiles(self.low, self.high, path)
        if self.over == "picture" and self.mode == "dicom":
            raise ValueError(
                f'{dotted(path, "over")}: "picture" applies to percentiles only; give mode = "percentile" with it'
            )
