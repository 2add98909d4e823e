"""The localizer of a bundle as the manifest describes it: its networks, their input and heatmaps, and its passes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from spinescore.runtime.fields import OPTIONAL, OneOf, Within, check_choice, dotted
from spinescore.runtime.manifest.files import Files
from spinescore.runtime.manifest.inputs import Contrast, NetworkInput, Share
from spinescore.runtime.manifest.testtime import Averaging, scaled_size
from spinescore.runtime.study import LEVELS, REGIONS, Region

__all__ = ["NAME_RULE", "Alternative", "Keypoint", "Localizer", "is_alternative_name"]

NAME_RULE = "a localizer's name has up to 32 lower-case letters, digits and hyphens, and does not end with a region"
_NAME = r"[a-z0-9][a-z0-9-]{0,31}"


@dataclass(frozen=True)
class Keypoint:
    """The point that one heatmap channel shows."""

    channel: Annotated[int, Within(0, 1023)]
    level: str
    point: Literal["centre", "anterior"]


@dataclass(frozen=True)
class Alternative:
    """Another localizer with the same input, keypoints and decoding, for example a narrower HRNet that is faster."""

    name: str
    files: Mapping[Region, Files]

    def _check_fields(self, path: str) -> None:
        if not is_alternative_name(self.name):
            raise ValueError(f"{dotted(path, 'name')}: {NAME_RULE}, found {self.name!r}")


def is_alternative_name(name: str) -> bool:
    """Return whether the name can be part of file names such as `localizer-NAME-cervical.fp32.onnx`."""
    return re.fullmatch(_NAME, name) is not None and name.rpartition("-")[2] not in REGIONS


@dataclass(frozen=True)
class Localizer:
    """The localizer. `facing` is the side of the anterior end in its input; `as-is` never mirrors a radiograph.

    `alternatives` are the other localizers, listed from the most to the least accurate.
    """

    files: Mapping[Region, Files]
    input: NetworkInput
    contrast: Contrast
    keypoints: Mapping[Region, tuple[Keypoint, ...]]
    align: Literal["stride", "centre"]
    box_padding: Annotated[float, Within(1.0, 4.0)]
    decode: Literal["argmax", "quarter", "dark"]
    passes: Annotated[int, OneOf(1, 2)]
    min_confidence: Share
    facing: Annotated[Literal["left", "right", "as-is"], OPTIONAL] = "left"
    alternatives: Annotated[tuple[Alternative, ...], OPTIONAL] = ()
    test_time: Annotated[Averaging | None, OPTIONAL] = None

    def _check_fields(self, path: str) -> None:
        for region in REGIONS:
            _check_keypoints(self.keypoints[region], region, f"{dotted(path, 'keypoints')}.{region}")
        names: list[str] = []
        for number, alternative in enumerate(self.alternatives):
            place = f"{dotted(path, 'alternatives')}[{number}]"
            if alternative.name in names:
                raise ValueError(f"{place}.name: there is another alternative {alternative.name!r}")
            if replace(self, files=alternative.files).shared != self.shared:
                expected = "the same for both regions" if self.shared else "different ones for each region"
                raise ValueError(f"{place}.files: expected files as in {dotted(path, 'files')}, {expected}")
            names.append(alternative.name)
        if self.test_time is not None:
            self.test_time.check_scales(dotted(path, "test_time"), self.input.height, self.input.width)

    @property
    def averaging(self) -> Averaging:
        """The runs whose heatmaps are averaged: those of the manifest, or a single one."""
        return self.test_time or Averaging()

    def input_at(self, scale: float) -> NetworkInput:
        """Return the input of the runs at one of the scales."""
        height, width = scaled_size(self.input.height, self.input.width, scale)
        return replace(self.input, height=height, width=width)

    @property
    def run_inputs(self) -> tuple[NetworkInput, ...]:
        """The inputs of all runs of one pass, scale by scale."""
        flips = 2 if self.averaging.flip else 1
        return tuple(self.input_at(scale) for scale in self.averaging.scales for _ in range(flips))

    @property
    def names(self) -> tuple[str | None, ...]:
        """The localizer, which has no name, then its alternatives: the most accurate first."""
        return (None, *(alternative.name for alternative in self.alternatives))

    @property
    def shared(self) -> bool:
        """Whether one network serves both regions."""
        return self.files["cervical"] == self.files["lumbar"]

    @property
    def tells_regions(self) -> bool:
        """Whether the heatmaps' peaks are evidence of the region; they are not if the regions share channels."""
        channels = [{keypoint.channel for keypoint in self.keypoints[region]} for region in REGIONS]
        return not self.shared or not channels[0] & channels[1]

    def channels(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """Return the heatmap channels by region and disc, each as (centre, anterior)."""
        channels = {
            (region, keypoint.level, keypoint.point): keypoint.channel
            for region in REGIONS
            for keypoint in self.keypoints[region]
        }
        return tuple(
            tuple((channels[region, level, "centre"], channels[region, level, "anterior"]) for level in LEVELS[region])
            for region in REGIONS
        )


def _check_keypoints(keypoints: tuple[Keypoint, ...], region: Region, path: str) -> None:
    for number, keypoint in enumerate(keypoints):
        check_choice(keypoint.level, LEVELS[region], f"{path}[{number}].level")
    points = {(keypoint.level, keypoint.point) for keypoint in keypoints}
    channels = {keypoint.channel for keypoint in keypoints}
    if not len(keypoints) == len(points) == len(channels) == 2 * len(LEVELS[region]):
        raise ValueError(f"{path}: expected each level's centre and anterior point once, 12 channels")
