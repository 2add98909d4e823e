"""The networks of a bundle for the pipeline: loaded, checked against the manifest, with their buffers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spinescore.kernels.average import AverageSpec, Run
from spinescore.kernels.decode import DISCS, BoxSpec, CropSpec
from spinescore.kernels.warp import ROI, WarpSpec
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices import Device
from spinescore.runtime.engines import Engine
from spinescore.runtime.errors import BundleError
from spinescore.runtime.manifest import HEAD_OUTPUTS, Grader, Localizer, NetworkInput
from spinescore.runtime.study import REGIONS, sites_of

__all__ = [
    "FLIPS",
    "GRADER_TABLE",
    "HEATMAP_STRIDE",
    "LOCALIZER_TABLE",
    "VIEWS",
    "GraderNetwork",
    "LocalizerRuns",
    "Networks",
    "average_spec",
    "crop_spec",
    "graded_sites",
    "heatmap_size",
    "load_networks",
    "scaled_name",
    "warp_spec",
]

VIEWS = len(REGIONS)
HEATMAP_STRIDE = 4
LOCALIZER_TABLE, GRADER_TABLE = 0, 1  # of the tables that are uploaded with a source

# The number of a grader network's outputs (as `CLASSES` of the manifest) -> the crops that it sees of each disc. A
# network that grades both corners at once, or bridges, sees one crop. One that grades a single corner sees two: first
# the upper vertebra's corner, flipped vertically (True), then the lower vertebra's.
FLIPS = {8: (False,), 2: (False,), 4: (True, False), 3: (True, False)}


@dataclass(frozen=True)
class GraderNetwork:
    """One network of the grader and its buffers, with six rows per view for each flip."""

    role: str
    engine: Engine[Any]
    spec: CropSpec
    rois: Any
    crops: Any
    logits: Any

    def rows(self, views: slice) -> slice:
        per_view = DISCS * len(self.spec.flips)
        return slice(views.start * per_view, views.stop * per_view)


@dataclass(frozen=True)
class LocalizerRuns:
    """The localizer's buffers at one scale, a row a view; `mirrored` and `turned` are of the mirrored input's run."""

    scale: float
    warp: WarpSpec
    box: BoxSpec
    whole: Any
    boxes: Any
    inputs: Any
    heatmaps: Any
    mirrored: Any = None
    turned: Any = None


@dataclass(frozen=True)
class Networks:
    """All networks of a bundle. `localizers` are engines, each with the views that it serves."""

    localizers: tuple[tuple[Engine[Any], slice], ...]
    runs: tuple[LocalizerRuns, ...]  # at every scale, the input's own size first
    graders: tuple[GraderNetwork, ...]

    def inputs(self) -> dict[str, Any]:
        """Return the input buffers by network; a localizer has one for each scale."""
        return {
            **{scaled_name(name, runs.scale): runs.inputs[part] for name, part in self._parts for runs in self.runs},
            **{f"grader {network.role}": network.crops for network in self.graders},
        }

    def outputs(self, heatmaps: Any) -> dict[str, Any]:
        """Return the output buffers by network; `heatmaps` is the buffer of the localizers."""
        return {
            **{name: heatmaps[part] for name, part in self._parts},
            **{f"grader {network.role}": network.logits for network in self.graders},
        }

    @property
    def _parts(self) -> list[tuple[str, slice]]:
        """The name of each localizer, with the views that it serves."""
        shared = len(self.localizers) == 1
        return [(f"localizer {'both' if shared else REGIONS[part.start]}", part) for _, part in self.localizers]


def load_networks(bundle: Bundle, device: Device[Any], before: Callable[[str], None] | None = None) -> Networks:
    """Load a bundle's networks on a device and allocate their buffers, which belong to the device.

    `before` gets a line of text before each network is loaded. Raises `BundleError` if a network does not fit the
    manifest, `EngineError` if one cannot be loaded, and what `before` raises.
    """
    localizer, grader = bundle.manifest.localizer, bundle.manifest.grader
    parts = [slice(0, VIEWS)] if localizer.shared else [slice(view, view + 1) for view in range(VIEWS)]
    roles = HEAD_OUTPUTS[grader.head]
    files = [*(localizer.files[REGIONS[part.start]] for part in parts), *(grader.files[role] for role in roles)]
    rows = [1] * len(parts) + [DISCS * len(FLIPS[HEAD_OUTPUTS[grader.head][role]]) for role in roles]
    engines = device.engines([bundle.network(network, device.precisions) for network in files], before, rows)
    localizers, graders = engines[: len(parts)], engines[len(parts) :]
    for engine in localizers:
        _check_localizer(engine, localizers[0], localizer)
    return Networks(
        tuple(zip(localizers, parts, strict=True)),
        tuple(_runs_at(scale, localizer, device, localizers[0]) for scale in _scales(localizer)),
        tuple(_grader_network(grader, device, *named) for named in zip(roles, graders, strict=True)),
    )


def average_spec(localizer: Localizer) -> AverageSpec:
    """Return how the heatmaps of all runs become one: scale by scale, the plain run before the flipped one."""
    averaging = localizer.averaging
    flips = (False, True) if averaging.flip else (False,)
    runs = tuple(Run(scale, flip) for scale in _scales(localizer) for flip in flips)
    return AverageSpec(runs, localizer.align, HEATMAP_STRIDE, averaging.flip_shift)


def scaled_name(network: str, scale: float) -> str:
    """Return the name of a network's input at a scale; at scale 1 the plain name."""
    return network if scale == 1.0 else f"{network} x{scale:g}"


def warp_spec(size: NetworkInput, table: int) -> WarpSpec:
    return WarpSpec(size.height, size.width, size.antialias, size.mean, size.std, table)


def heatmap_size(size: NetworkInput) -> tuple[int, int]:
    return size.height // HEATMAP_STRIDE, size.width // HEATMAP_STRIDE


def _scales(localizer: Localizer) -> tuple[float, ...]:
    return (1.0, *(scale for scale in localizer.averaging.scales if scale != 1.0))


def _runs_at(scale: float, localizer: Localizer, device: Device[Any], engine: Engine[Any]) -> LocalizerRuns:
    size = localizer.input_at(scale)
    inputs, heatmaps = (size.channels, size.height, size.width), (engine.output_shape[0], *heatmap_size(size))
    whole, boxes = (device.allocate((VIEWS,), ROI) for _ in range(2))
    flips = 2 if localizer.averaging.flip else 1
    buffers = [device.allocate((VIEWS, *shape), engine.dtype) for shape in [inputs, heatmaps] * flips]
    box = BoxSpec(size.height, size.width, localizer.box_padding)
    return LocalizerRuns(scale, warp_spec(size, LOCALIZER_TABLE), box, whole, boxes, *buffers)


def _check_localizer(engine: Engine[Any], first: Engine[Any], localizer: Localizer) -> None:
    """Raise `BundleError` unless an engine fits the manifest, and has the first one's heatmaps and precision."""
    size, joints = localizer.input, engine.output_shape[0]
    _check_shape(engine, "image", engine.input_shape, (size.channels, size.height, size.width))
    highest = max(keypoint.channel for keypoints in localizer.keypoints.values() for keypoint in keypoints)
    _check_shape(engine, "heatmaps", engine.output_shape, (max(joints, highest + 1), *heatmap_size(size)))
    others = " and ".join(f"{scale:g}" for scale in _scales(localizer)[1:])
    if others and any((*engine.input_shape[1:], *engine.output_shape[1:])):
        raise BundleError(
            f"Network {engine.name} only takes pictures of {size.height} x {size.width} pixels, but "
            f"localizer.test_time.scales asks for scale {others} too; export the bundle again with those scales."
        )
    if (engine.output_shape, engine.dtype) != (first.output_shape, first.dtype):
        raise BundleError(
            f"The localizers {first.name} and {engine.name} differ in heatmaps or precision; export them with the same."
        )


def _grader_network(grader: Grader, device: Device[Any], role: str, engine: Engine[Any]) -> GraderNetwork:
    outputs, size = HEAD_OUTPUTS[grader.head][role], grader.input
    _check_shape(engine, "image", engine.input_shape, (size.channels, size.height, size.width))
    _check_shape(engine, "logits", engine.output_shape, (outputs,))
    spec = crop_spec(grader, FLIPS[outputs])
    rows = VIEWS * DISCS * len(spec.flips)
    rois = device.allocate((VIEWS, DISCS, len(spec.flips)), ROI)
    crops = device.allocate((rows, size.channels, size.height, size.width), engine.dtype)
    return GraderNetwork(role, engine, spec, rois, crops, device.allocate((rows, outputs), engine.dtype))


def _check_shape(engine: Engine[Any], tensor: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Raise `BundleError` if a tensor has another shape per image; 0 stands for any size."""
    if len(shape) != len(expected) or any(size not in (0, own) for size, own in zip(shape, expected, strict=True)):
        raise BundleError(
            f"Network {engine.name}: tensor {tensor} is {shape} per image, the manifest describes {expected}; export "
            "the bundle again."
        )


def graded_sites(level: str, flips: tuple[bool, ...], number: int) -> tuple[str, ...]:
    """Return the sites that a network grades in one of its crops of a disc."""
    sites = sites_of(level)
    return sites if len(flips) == 1 else sites[number : number + 1]


def crop_spec(grader: Grader, flips: tuple[bool, ...]) -> CropSpec:
    """Return the crops, by the manifest, of a network that sees each disc with these flips."""
    return CropSpec(grader.input.height, grader.crop.unit, grader.crop.extent, grader.crop.anterior, flips)
