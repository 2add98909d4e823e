"""A bundle's golden inputs: inputs of its networks, with the outputs that FP32 gave at export.

They lie in the bundle as `.npz` files. `image_<role>` are 8-bit pictures (N, H, W), `expected_<role>` the outputs
(N, ..), and `region_<role>` (N; 0 cervical, 1 lumbar) is there for localizers. If a localizer runs at several scales,
`image_<role>_x1.5` are the same radiographs at that scale. If it runs more than once, the outputs are the mean heatmaps
of all runs.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from spinescore.kernels.decode import DISCS
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.errors import BundleError
from spinescore.runtime.files import read_bytes
from spinescore.runtime.manifest import HEAD_OUTPUTS, Files, NetworkInput
from spinescore.runtime.scoring.networks import FLIPS, VIEWS, scaled_name
from spinescore.runtime.study import REGIONS

__all__ = ["GoldenNetwork", "golden_grader", "golden_localizers", "has_golden", "normalised"]

_MOST_BYTES = 2**28  # of the file, and of one array
_UNREADABLE = (ArithmeticError, EOFError, LookupError, MemoryError, RuntimeError, SyntaxError, TypeError, ValueError)
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@dataclass(frozen=True, eq=False)
class GoldenNetwork:
    """One network of a bundle and its golden inputs: 8-bit pictures (N, H, W) and the outputs (N, ..) of the export.

    `role` is `both` or the region for a localizer, and the network's name in the manifest for a grader. `regions` (N;
    0 cervical, 1 lumbar) belong to a localizer's pictures. A grader's pictures are in order of radiograph, disc and
    flip. `batch` is the number of pictures that scoring gives the network for the two radiographs of a study. `stored`
    is the number of pictures in the bundle; N of them were read.
    """

    kind: Literal["localizer", "grader"]
    role: str
    files: Files
    input: NetworkInput
    pictures: NDArray[np.uint8]
    expected: NDArray[np.float32]
    regions: NDArray[np.integer]
    batch: int
    stored: int
    scaled: Mapping[float, NDArray[np.uint8]] = field(default_factory=dict)  # the pictures at other scales than 1.0

    @property
    def name(self) -> str:
        return f"{self.kind} {self.role}"

    def images(self, part: slice | NDArray[np.intp] = slice(None)) -> dict[str, NDArray[np.float32]]:
        """Return the network's inputs (N, channels, H, W) at every scale by name, its own size first."""
        pictures = {1.0: self.pictures, **self.scaled}
        return {scaled_name(self.name, scale): normalised(grey[part], self.input) for scale, grey in pictures.items()}

    def checked(self, outputs: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return this network's output among `outputs`. Raises `BundleError` if the golden ones have another shape."""
        output = outputs[self.name]
        if output.shape[1:] != self.expected.shape[1:]:
            raise BundleError(
                f"The {self.name} gives {output.shape[1:]} for a picture, the golden inputs hold "
                f"{self.expected.shape[1:]}; export the bundle again."
            )
        return output


def has_golden(bundle: Bundle) -> bool:
    """Whether the bundle has golden inputs for both kinds of networks."""
    return {"localizer", "grader"} <= set(bundle.manifest.golden)


def golden_localizers(bundle: Bundle, *, one_study: bool = False) -> list[GoldenNetwork]:
    """Return the localizer for both regions, or one for each region.

    With `one_study` only the first radiograph of each region is read. Raises `BundleError` if the bundle has no golden
    inputs, or they do not fit the manifest.
    """
    localizer = bundle.manifest.localizer
    roles = {"both": localizer.files["cervical"]} if localizer.shared else {r: localizer.files[r] for r in REGIONS}
    with _opened(bundle, "localizer") as arrays:
        return [_localizer(bundle, arrays, role, files, one_study) for role, files in roles.items()]


def golden_grader(bundle: Bundle, *, one_study: bool = False) -> list[GoldenNetwork]:
    """Return the grader's networks, with `one_study` the crops of only two radiographs. Raises `BundleError`."""
    grader = bundle.manifest.grader
    with _opened(bundle, "grader") as arrays:
        networks = []
        for role, files in grader.files.items():
            batch = VIEWS * DISCS * len(FLIPS[HEAD_OUTPUTS[grader.head][role]])
            pictures, stored = arrays.pictures(role, grader.input, batch if one_study else None)
            expected = arrays.expected(role, role, stored, None)  # they are small, and the range of all is needed
            none = np.zeros(0, np.uint8)
            networks.append(GoldenNetwork("grader", role, files, grader.input, pictures, expected, none, batch, stored))
        return networks


def normalised(pictures: NDArray[np.uint8], size: NetworkInput) -> NDArray[np.float32]:
    """Return 8-bit pictures (N, H, W) as a network's input (N, channels, H, W)."""
    grey = pictures[:, None].astype(np.float32) / np.float32(255)
    mean, std = (np.asarray(values, np.float32)[:, None, None] for values in (size.mean, size.std))
    images = grey - mean
    images /= std
    return images


def _localizer(bundle: Bundle, arrays: _Arrays, role: str, files: Files, one_study: bool) -> GoldenNetwork:
    localizer = bundle.manifest.localizer
    other = f"{role}_{bundle.localizer}" if bundle.localizer else role  # an alternative sees the same pictures
    regions, _ = arrays.rows(f"region_{role}")
    batch = VIEWS if localizer.shared else 1
    chosen: slice | list[int] = slice(None)
    count = None
    if one_study:
        numbers = range(VIEWS) if localizer.shared else [REGIONS.index(role)]
        chosen = [int(np.argmax(regions == region)) for region in numbers]  # 0 if there is none
        count = max(chosen) + 1
    pictures, stored = arrays.pictures(role, localizer.input, count)
    scaled = {}
    for scale in (scale for scale in localizer.averaging.scales if scale != 1.0):
        greys, number = arrays.pictures(f"{role}_x{scale:g}", localizer.input_at(scale), count)
        if number != stored:
            raise arrays.fault(f"image_{role} has {stored} pictures, and {number} at scale {scale:g}")
        scaled[scale] = greys[chosen]
    expected = arrays.expected(role, other, stored, count)
    if (
        regions.shape != (stored,)
        or regions.dtype.kind not in "iu"
        or not set(regions.tolist()) <= set(range(len(REGIONS)))
    ):
        raise arrays.fault(f"region_{role} does not name a region for each of {stored} pictures")
    return GoldenNetwork(
        "localizer", role, files, localizer.input, pictures[chosen], expected[chosen], regions[chosen], batch, stored,
        scaled,
    )  # fmt: skip


class _Arrays:
    """The arrays of one golden file; only the needed rows are read."""

    def __init__(self, bundle: Bundle, name: str, archive: zipfile.ZipFile) -> None:
        self._bundle, self._name, self._archive = bundle, name, archive

    def fault(self, reason: str) -> BundleError:
        return BundleError(f"Bundle {self._bundle.manifest.name}: {self._name}: {reason}; export the bundle again.")

    def pictures(self, role: str, size: NetworkInput, count: int | None) -> tuple[NDArray[np.uint8], int]:
        """Return the first `count` pictures, or all, and the number of stored pictures."""
        pictures, stored = self.rows(f"image_{role}", count)
        if pictures.shape[1:] != (size.height, size.width) or not len(pictures) or pictures.dtype != np.uint8:
            raise self.fault(
                f"image_{role} holds {pictures.shape} of {pictures.dtype}, the manifest wants 8-bit pictures of "
                f"{size.height} x {size.width}"
            )
        return pictures, stored

    def expected(self, role: str, stem: str, stored: int, count: int | None) -> NDArray[np.float32]:
        """Return the outputs for the first `count` pictures."""
        expected, outputs = self.rows(f"expected_{stem}", count)
        if outputs != stored or expected.dtype.kind != "f":
            raise self.fault(
                f"image_{role} has {stored} pictures, expected_{stem} {outputs} outputs of {expected.dtype}"
            )
        return expected.astype(np.float32)

    def rows(self, name: str, count: int | None = None) -> tuple[NDArray[Any], int]:
        """Return the first `count` rows of an array, or all, and the number of stored rows."""
        if f"{name}.npy" not in self._archive.namelist():
            raise self.fault(f"it lacks {name}")
        member = self._archive.getinfo(f"{name}.npy")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise self.fault(f"{name} is compressed by another method than deflate")  # zipfile sets the others no limit
        if member.file_size > _MOST_BYTES:
            raise self.fault(f"{name} has more than {_MOST_BYTES >> 20} MiB")
        with self._archive.open(f"{name}.npy") as file:
            return _rows(file, count)


def _rows(file: IO[bytes], count: int | None) -> tuple[NDArray[Any], int]:
    """Read the first rows. Raises `ValueError` for an array of other than plain numbers, or one that is too large."""
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"NumPy format {version}")
    shape, fortran, dtype = _HEADERS[version](file)
    if fortran or dtype.hasobject or not shape:
        raise ValueError("an array that is not one of plain numbers in C order")
    taken = shape[0] if count is None else min(count, shape[0])
    size = taken * prod(shape[1:]) * dtype.itemsize
    if size > _MOST_BYTES:
        raise ValueError(f"an array of {size} bytes, more than {_MOST_BYTES}")
    data = file.read(size)
    if len(data) != size:
        raise ValueError("an array that is cut short")
    return np.frombuffer(data, dtype).reshape(taken, *shape[1:]), shape[0]


@contextmanager
def _opened(bundle: Bundle, kind: str) -> Iterator[_Arrays]:
    name = bundle.manifest.golden.get(kind)
    if name is None:
        raise BundleError(f"Bundle {bundle.manifest.name} has no golden inputs for the {kind}; export it again.")
    try:
        with zipfile.ZipFile(io.BytesIO(read_bytes(bundle.path(name), _MOST_BYTES))) as archive:
            yield _Arrays(bundle, name, archive)
    except (*_UNREADABLE, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise BundleError(
            f"Bundle {bundle.manifest.name}: {name} is no golden file ({error}); export it again."
        ) from error
