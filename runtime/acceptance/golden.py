"""A bundle's golden inputs: what its networks see of radiographs or phantoms, and what FP32 gave at export."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.bundle import Bundle
from spinescore.runtime.errors import BundleError
from spinescore.runtime.manifest import Files, NetworkInput
from spinescore.runtime.study import REGIONS

__all__ = ["GoldenNetwork", "golden_grader", "golden_localizers", "normalised"]


@dataclass(frozen=True, eq=False)
class GoldenNetwork:
    """One network of a bundle and its golden inputs: 8-bit pictures (N, H, W) and the outputs (N, ..) of the export.

    `role` is `both` or the region of a localizer, and a grader's network by its name in the manifest. `regions` (N,
    0 cervical, 1 lumbar) is of a localizer's pictures. A grader's are in order of radiograph, disc and flip.
    """

    kind: str
    role: str
    files: Files
    input: NetworkInput
    pictures: NDArray[np.uint8]
    expected: NDArray[np.float32]
    regions: NDArray[np.integer]

    @property
    def name(self) -> str:
        return f"{self.kind} {self.role}"

    def images(self, part: slice = slice(None)) -> NDArray[np.float32]:
        """The network's input (N, channels, H, W)."""
        return normalised(self.pictures[part], self.input)


def golden_localizers(bundle: Bundle) -> list[GoldenNetwork]:
    """The localizer for both regions, or one for each. Raises `BundleError` where the bundle has no golden inputs."""
    localizer = bundle.manifest.localizer
    arrays = _read(bundle, "localizer")
    roles = {"both": localizer.files["cervical"]} if localizer.shared else {r: localizer.files[r] for r in REGIONS}
    return [_network(bundle, "localizer", role, files, localizer.input, arrays) for role, files in roles.items()]


def golden_grader(bundle: Bundle) -> list[GoldenNetwork]:
    """The grader's networks. Raises `BundleError` where the bundle has no golden inputs."""
    grader = bundle.manifest.grader
    arrays = _read(bundle, "grader")
    return [_network(bundle, "grader", role, files, grader.input, arrays) for role, files in grader.files.items()]


def normalised(pictures: NDArray[np.uint8], size: NetworkInput) -> NDArray[np.float32]:
    """8-bit pictures (N, H, W) as a network's input (N, channels, H, W)."""
    grey = pictures[:, None].astype(np.float32) / np.float32(255)
    mean, std = (np.asarray(values, np.float32)[:, None, None] for values in (size.mean, size.std))
    return np.asarray((grey - mean) / std, np.float32)


def _network(
    bundle: Bundle, kind: str, role: str, files: Files, size: NetworkInput, arrays: Mapping[str, NDArray[Any]]
) -> GoldenNetwork:
    other = f"_{bundle.localizer}" if kind == "localizer" and bundle.localizer else ""  # it sees the same pictures
    wanted = [f"image_{role}", f"expected_{role}{other}", *([f"region_{role}"] if kind == "localizer" else [])]
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise BundleError(f"Bundle {bundle.manifest.name}: its golden inputs lack {missing[0]}; export it again.")
    pictures, expected = arrays[wanted[0]], arrays[wanted[1]]
    if pictures.shape[1:] != (size.height, size.width) or not 0 < len(pictures) == len(expected):
        raise BundleError(
            f"Bundle {bundle.manifest.name}: the golden pictures of the {kind} {role} are {pictures.shape} with "
            f"{len(expected)} outputs, the manifest wants some of {size.height} x {size.width}; export it again."
        )
    regions = arrays[wanted[2]] if kind == "localizer" else np.zeros(0, np.uint8)
    return GoldenNetwork(kind, role, files, size, pictures, expected.astype(np.float32), regions)


def _read(bundle: Bundle, kind: str) -> dict[str, NDArray[Any]]:
    name = bundle.manifest.golden.get(kind)
    if name is None:
        raise BundleError(f"Bundle {bundle.manifest.name} has no golden inputs for the {kind}; export it again.")
    try:
        with np.load(io.BytesIO(bundle.path(name).read_bytes()), allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise BundleError(
            f"Bundle {bundle.manifest.name}: {name} is no golden file ({error}); export it again."
        ) from error
