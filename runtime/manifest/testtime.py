"""How often a localizer looks at a radiograph: at which sizes, and mirrored besides; its heatmaps are averaged.

Koo et al. 2022 average "the heatmaps generated at various resolutions during image testing"; the official HRNet is
evaluated with a flip test. Both are part of how a network was evaluated, so a bundle says them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from spinescore.runtime.fields import Within

__all__ = ["Averaging", "scaled_size"]

_STRIDE = 32  # of HRNet's coarsest branch; a network whose own input is no multiple of it has a smaller one
_HEATMAP_STRIDE = 4
_MOST_SCALES = 8  # with flips as many runs as one launch averages
_MOST_PX = 4096
_NEAR_PX = 0.01  # so that 1.3333 is 4 / 3


@dataclass(frozen=True)
class Averaging:
    """The manifest's section `localizer.test_time`; without it a network runs once, at its own input's size.

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
    """Height and width of an input at that scale."""
    return round(height * scale), round(width * scale)


def _check_scale(name: str, scale: float, height: int, width: int) -> None:
    """Both sides must be multiples of the network's stride, which its own input shows: at most 32, at least 4.

    The scales that are allowed are then the multiples of stride / gcd(height, width).
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
