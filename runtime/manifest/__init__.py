"""The manifest of a bundle: the contract between training and runtime, as frozen dataclasses.

`Manifest.from_dict` takes what `json.load` gives and refuses, with the field's dotted name, whatever is missing,
unknown, of the wrong type or out of range: nothing is guessed. Only `tolerances` (as a whole), `budget_ms`,
`localizer.alternatives`, `localizer.facing`, `localizer.test_time` (as a whole), `contrast.over` and `grader.classes`
may be left out.
`to_dict` is its inverse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from spinescore.runtime.errors import BundleError
from spinescore.runtime.manifest.testtime import Averaging, scaled_size
from spinescore.runtime.manifest.tolerances import Tolerances
from spinescore.runtime.study import LEVELS, REGIONS, Region

__all__ = [
    "CLASSES",
    "HEAD_OUTPUTS",
    "PRECISIONS",
    "SCHEMA",
    "Alternative",
    "Averaging",
    "Contrast",
    "Crop",
    "FileEntry",
    "Grader",
    "Keypoint",
    "Localizer",
    "Manifest",
    "NetworkInput",
]

SCHEMA = "spinescore.bundle/1"

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS = ("fp32", "fp16", "int8")

# The networks that a grader's head consists of, and the number of logits that each gives.
HEAD_OUTPUTS: dict[str, dict[str, int]] = {
    "corners4": {"corners": 8},
    "corner4": {"corners": 4},
    "bridge+grades": {"bridge": 2, "grades": 3},
}

# What each of a network's outputs stands for, in order, by their number. An export brings any other order to this one.
CLASSES: dict[int, tuple[str, ...]] = {
    8: tuple(f"{corner}-{grade}" for corner in ("upper", "lower") for grade in range(4)),
    4: ("0", "1", "2", "3"),
    3: ("0", "1", "2"),
    2: ("no-bridge", "bridge"),
}

Files = Mapping[str, str]  # precision -> path


@dataclass(frozen=True)
class NetworkInput:
    """What a network wants to see. Mean and std are per channel, in grey [0, 1]; `levels` rounds the grey table."""

    height: int
    width: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    antialias: int
    levels: int | None
    fit: Literal["stretch", "letterbox"] | None  # localizer only


@dataclass(frozen=True)
class Contrast:
    """`dicom`: the header's grey scale. `percentile`: the image's own percentiles `low` .. `high` become 0 .. 1.

    `over`: of samples of the exposed field, or exactly of all pixels of the picture.
    """

    mode: Literal["dicom", "percentile"]
    low: float
    high: float
    over: Literal["exposed", "picture"] = "exposed"  # left out of the document where it is the default


@dataclass(frozen=True)
class Keypoint:
    """What one heatmap channel stands for."""

    channel: int
    level: str
    point: Literal["centre", "anterior"]


@dataclass(frozen=True)
class Alternative:
    """Another localizer with the same input, keypoints and decoding, as a narrower HRNet that is faster."""

    name: str
    files: Mapping[Region, Files]


@dataclass(frozen=True)
class Localizer:
    files: Mapping[Region, Files]
    input: NetworkInput
    contrast: Contrast
    keypoints: Mapping[Region, tuple[Keypoint, ...]]
    align: Literal["stride", "centre"]
    box_padding: float
    decode: Literal["argmax", "quarter", "dark"]
    passes: int
    min_confidence: float
    facing: Literal["left", "right", "as-is"] = "left"  # that its input shows; left out of the document where left
    alternatives: tuple[Alternative, ...] = ()  # the most accurate first, by their maker; left out where there are none
    test_time: Averaging | None = None  # None: not stated, and left out of the document

    @property
    def averaging(self) -> Averaging:
        """The runs whose heatmaps are averaged: those of the manifest, else one."""
        return self.test_time or Averaging()

    def input_at(self, scale: float) -> NetworkInput:
        """The input of the runs at one of the scales."""
        height, width = scaled_size(self.input.height, self.input.width, scale)
        return replace(self.input, height=height, width=width)

    @property
    def run_inputs(self) -> tuple[NetworkInput, ...]:
        """The inputs of all runs of one pass, scale by scale."""
        flips = 2 if self.averaging.flip else 1
        return tuple(self.input_at(scale) for scale in self.averaging.scales for _ in range(flips))

    @property
    def names(self) -> tuple[str | None, ...]:
        """The localizer, which has no name, and its alternatives: the most accurate first."""
        return (None, *(alternative.name for alternative in self.alternatives))

    @property
    def shared(self) -> bool:
        """One network serves both regions."""
        return self.files["cervical"] == self.files["lumbar"]

    @property
    def tells_regions(self) -> bool:
        """The heatmaps' peaks are evidence of the region (false where one head serves both, disc by disc)."""
        channels = [{keypoint.channel for keypoint in self.keypoints[region]} for region in REGIONS]
        return not self.shared or not channels[0] & channels[1]

    def channels(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """(region, disc, centre|anterior) -> heatmap channel."""
        found = {
            (region, keypoint.level, keypoint.point): keypoint.channel
            for region in REGIONS
            for keypoint in self.keypoints[region]
        }
        return tuple(
            tuple((found[region, level, "centre"], found[region, level, "anterior"]) for level in LEVELS[region])
            for region in REGIONS
        )


@dataclass(frozen=True)
class Crop:
    """A square crop: its side is `extent` x the unit; the anterior end comes to lie on the side `anterior`."""

    unit: Literal["anterior-distance", "disc-spacing"]
    extent: float
    anterior: Literal["left", "right"]


@dataclass(frozen=True)
class Grader:
    files: Mapping[str, Files]  # by network: `corners`, or `bridge` and `grades`
    input: NetworkInput
    contrast: Contrast
    crop: Crop
    head: Literal["corners4", "corner4", "bridge+grades"]
    bridge_threshold: float
    abstain_below: float
    classes: Mapping[str, tuple[str, ...]] | None = None  # by network, as CLASSES; None in bundles made before it


@dataclass(frozen=True)
class FileEntry:
    sha256: str
    bytes: int
    precision: Precision | None


@dataclass(frozen=True)
class Manifest:
    name: str
    version: str
    intended_use: str
    localizer: Localizer
    grader: Grader
    golden: Mapping[str, str]
    files: Mapping[str, FileEntry]
    provenance: Mapping[str, Any]
    tolerances: Tolerances | None = None  # None: not stated, and left out of the document
    budget_ms: float | None = None  # of a study where nothing else is said; left out likewise
    smallest_detectable_change: float | None = None  # of the total, in units; left out likewise
    schema: str = SCHEMA

    @classmethod
    def from_dict(cls, document: object) -> Manifest:
        """Read what `json.load` gave. Raises `BundleError` that names the field."""
        from spinescore.runtime.manifest.document import read_manifest  # it builds on this module

        try:
            return read_manifest(document)
        except ValueError as error:
            raise BundleError(f"The bundle's manifest is not valid: {error}.") from error

    @property
    def networks(self) -> tuple[Files, ...]:
        """The files of every network that is opened for a study; those of alternative localizers are not."""
        return (*self.localizer.files.values(), *self.grader.files.values())

    @property
    def bounds(self) -> Tolerances:
        """The tolerances that hold: those of the manifest, else the usual ones."""
        return self.tolerances or Tolerances()

    def to_dict(self) -> dict[str, Any]:
        """The JSON document: `Manifest.from_dict(manifest.to_dict()) == manifest`."""
        document = {"schema": self.schema, **{key: value for key, value in _plain(self).items() if key != "schema"}}
        del document["grader"]["input"]["fit"]
        if self.localizer.facing == "left":
            del document["localizer"]["facing"]
        if not self.localizer.alternatives:
            del document["localizer"]["alternatives"]
        if self.localizer.test_time is None:
            del document["localizer"]["test_time"]
        for part in (document["localizer"], document["grader"]):
            if part["contrast"]["over"] == "exposed":
                del part["contrast"]["over"]
        if self.grader.classes is None:
            del document["grader"]["classes"]
        for name in ("tolerances", "budget_ms", "smallest_detectable_change"):
            if document[name] is None:
                del document[name]
        return document


def _plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
