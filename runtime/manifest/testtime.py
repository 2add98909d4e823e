"""The runs of a localizer on one radiograph, at several sizes and mirrored, whose heatmaps are averaged.

Koo et al. 2022 average "the heatmaps generated at various resolutions during image testing"; the official HRNet is
evaluated with a flip test. Both belong to a network's evaluation, so the bundle states them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from spinescore.runtime.fields import Within

__all__ = ["Averaging", "scaled_size"]

_STRIDE = 32  # of HRNet's coarsest branch; smaller if the network's own input is no multiple of it
_HEATMAP_STRIDE = 4
_MOST_SCALES = 8  # with flips, the most runs that one launch averages
_MOST_PX = 4096
_NEAR_PX = 0.01  # so that 1.3333 counts as 4 / 3


@dataclass(frozen=True)
class Averaging:
    """The manifest's section `localizer.test_time`; without it, a network runs once, at its input's own size.

    `scales` are factors of the input's height and width. With `flip` each input is run mirrored as well, and its
    heatmaps are turned back; `flip_shift` moves those one pixel to the right (the official HRNet's SHIFT_HEATMAP).
    """

    scales: tuple[Annotated[float, Within(0.0, 64.0)], ...] = (1.0,)
    flip: bool = False
    flip_shift: bool = False

    @property
    def runs(self) -> int:
        """How often the network runs for one set of heatmaps."""
        return len(self.scales) * (2 if self.flip else 1)

    @property
    def cost(self) -> float:
        """The cost of all runs, in runs at the input's own size; a network's work grows with its pixels."""
        return sum(scale**2 for scale in self.scales) * (2 if self.flip else 1)

    def check_scales(self, path: str, height: int, width: int) -> None:
        """Check the section `path` of a localizer whose input is `height` x `width`. Raises `ValueError`."""
        name, scales = f"{path}.scales", self.scales
        if len(scales) > _MOST_SCALES:
            raise ValueError(f"{name}: {len(scales)} scales, at most {_MOST_SCALES} are averaged")
        for number, scale in enumerate(scales):
            _check_scale(f"{name}[{number}]", scale, height, width)
        if len({scaled_size(height, width, scale) for scale in scales}) < len(scales):
            raise ValueError(f"{name}: a scale stands there twice; name each once")
        if 1.0 not in scales:
            raise ValueError(
                f"{name}: 1.0, the input's own size, must be one of them; a network that was evaluated at other sizes "
                "alone has one of those as its input.height and input.width"
            )


def scaled_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """Return height and width of an input at a scale."""
    return round(height * scale), round(width * scale)


def _check_scale(name: str, scale: float, height: int, width: int) -> None:
    """Check that both sides at this scale are multiples of the network's stride. Raises `ValueError`.

    The stride follows from the network's own input: at most 32, at least 4. The allowed scales are then the multiples
    of stride / gcd(height, width).
    """
    if scale == 1.0:
        return
    sides = (height * scale, width * scale)
    stride = max(math.gcd(height, width, _STRIDE), _HEATMAP_STRIDE)
    whole = all(abs(side - stride * round(side / stride)) <= _NEAR_PX for side in sides)
    if whole and min(sides) >= stride - _NEAR_PX and max(sides) <= _MOST_PX:
        return
    step = stride / math.gcd(height, width)
    most = math.floor(_MOST_PX / max(height, width) / step + 1e-9)
    below = min(max(math.floor(scale / step), 1), most)
    near = sorted({below * step, min(below + 1, most) * step}) if most >= 1 else [1.0]
    shown = " and ".join(
        f"{one:.6g} ({size[0]} x {size[1]})" for one in near for size in [scaled_size(height, width, one)]
    )
    raise ValueError(
        f"{name}: {scale:g} makes an input of {sides[0]:g} x {sides[1]:g} pixels (height x width); both must be "
        f"multiples of {stride}, the stride of the network's coarsest branch, and at most {_MOST_PX}. The nearest "
        f"scales for {height} x {width}: {shown}"
    )
