"""The input of a bundle's network, and the contrast of its pictures.

A number whose unit is easily mistaken is refused in another unit, and the likely right one is suggested.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from spinescore.runtime.fields import OPTIONAL, OneOf, Within, dotted

__all__ = ["Contrast", "NetworkInput", "Share"]

_STD_MOST = 8.0  # grey spreads over 1; a much larger value belongs to another scale
_RARE = 0.1  # a percentile below this is meant only if the other end is as near to its own end
_FULL_SCALES = ((255.0, "8"), (4095.0, "12"), (65535.0, "16"))  # the largest grey of so many bits
_WORDS = {"mean": "mean", "std": "standard deviation"}
_Grey = Annotated[float, Within(-65535.0, 65535.0)]  # `_check_normalisation` has the tighter bounds
_Percentile = Annotated[float, Within(0.0, 100.0)]


def _as_share(value: float) -> str:
    return f"; it is a share, and {value:g} per cent are {value / 100:g}" if 1.0 < value <= 100.0 else ""


Share = Annotated[float, Within(0.0, 1.0, _as_share)]


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
        _check_normalisation("mean", self.mean, self.channels, dotted(path, "mean"))
        _check_normalisation("std", self.std, self.channels, dotted(path, "std"))


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
        _check_percentiles(self.low, self.high, path)
        if self.over == "picture" and self.mode == "dicom":
            raise ValueError(
                f'{dotted(path, "over")}: "picture" applies to percentiles only; give mode = "percentile" with it'
            )


def _check_normalisation(name: Literal["mean", "std"], values: tuple[float, ...], channels: int, path: str) -> None:
    """Check `mean` or `std`, per channel, in grey [0, 1]. Raises `ValueError` for values of another scale."""
    if len(values) != channels:
        raise ValueError(f"{path}: expected {channels} numbers, found {len(values)}")
    low, high = (-1.0, 1.0) if name == "mean" else (1e-6, _STD_MOST)
    for index, value in enumerate(values):
        if low <= value <= high:
            continue
        place, unit = f"{path}[{index}]", "in grey [0, 1], where black is 0 and white is 1"
        if name == "std" and value <= 0:
            raise ValueError(
                f"{place}: {value:g} is not a standard deviation; expected more than 0 {unit}. A network trained on "
                "inverted grey has to be exported with the inversion inside (ONNX)"
            )
        if value < low:
            raise ValueError(f"{place}: {value:g} is too small for a {_WORDS[name]} {unit}; expected at least {low:g}")
        scale, bits = next((pair for pair in _FULL_SCALES if value <= pair[0]), _FULL_SCALES[-1])
        likely = ", ".join(f"{number / scale:.4g}" for number in values)
        raise ValueError(
            f"{place}: {value:g} is too large for a {_WORDS[name]} {unit}; expected at most {high:g}. It looks like a "
            f"value of 0-{scale:g} ({bits}-bit pictures): divide mean and std by {scale:g}, as {name} = [{likely}]. "
            'For preprocess_input of keras.applications\' ResNet write preprocessing = "caffe" instead of both'
        )


def _check_percentiles(low: float, high: float, path: str) -> None:
    """Check the fields `low` and `high` of `path`, in per cent. Raises `ValueError` for likely shares of 1."""
    if low >= high:
        raise ValueError(f"{dotted(path, 'low')}: must be below high, found {low:g} and {high:g}")
    if high <= 1.0:
        raise ValueError(
            f"{dotted(path, 'high')}: {high:g} looks like a share; percentiles are in per cent (0-100): "
            f"low = {100 * low:g}, high = {100 * high:g}"
        )
    if 0.0 < low < _RARE and 100.0 - high > 10 * low:
        raise ValueError(
            f"{dotted(path, 'low')}: {low:g} looks like a share, as high is {high:g}; percentiles are in per cent "
            f"(0-100): low = {100 * low:g}. If {low:g} per cent is meant, give high = {100 - low:g} with it"
        )
