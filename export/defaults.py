"""Defaults of the manifest's fields that depend on training, and the file that overrides them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spinescore.export.fields import FREE_TABLES, check_names
from spinescore.export.normalisation import Preprocessing, mean_and_std, stated_preprocessing
from spinescore.runtime.documents import read
from spinescore.runtime.errors import BundleError
from spinescore.runtime.files import read_bytes
from spinescore.runtime.jsonfile import parse_json
from spinescore.runtime.manifest.testtime import Averaging
from spinescore.runtime.manifest.tolerances import Tolerances
from spinescore.runtime.study import LEVELS, REGIONS

if TYPE_CHECKING:
    from spinescore.export.sources import Network

__all__ = ["InputSize", "contract", "input_size", "named_in_faults", "read_overrides"]

Document = dict[str, Any]

_SIZES = {"localizer": (256, 192), "grader": (224, 224)}
_WRITTEN_HERE = ("schema", "files", "golden", "alternatives")  # fields that follow from the networks


@dataclass(frozen=True)
class InputSize:
    """A network's input as the manifest states it.

    `channels` is None if the network's own number is taken, `preprocessing` if the manifest does not state it.
    `confidence_stated` says whether the manifest sets a localizer's least confidence. `scales` are the factors of its
    size at which a localizer runs.
    """

    channels: int | None
    height_px: int
    width_px: int
    preprocessing: Preprocessing | None = None
    confidence_stated: bool = False
    scales: tuple[float, ...] = (1.0,)


def read_overrides(path: Path | None) -> Document:
    """Read the TOML or JSON file of manifest fields; empty without a file. Raises `BundleError` if it is neither."""
    if path is None:
        return {}
    try:
        data = read_bytes(path)  # Windows' editors put a mark before UTF-8, which TOML does not know
        is_toml = path.suffix.lower() == ".toml"
        document = _parse_toml(data.decode("utf-8-sig")) if is_toml else parse_json(data)
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror or error}); give a TOML or JSON file") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise BundleError(f"{path} is neither valid TOML (.toml) nor JSON: {error}") from error
    if not isinstance(document, dict):
        raise BundleError(f"{path} holds no object of manifest fields; `spinescore export --print-manifest` shows them")
    parts = [("", document), *((f"{part}.", document.get(part, {})) for part in _SIZES)]
    for prefix, fields in parts:
        if not isinstance(fields, dict):
            raise BundleError(f"{path}: {prefix[:-1]} must be an object of fields")
        wrong = [f"{prefix}{name}" for name in _WRITTEN_HERE if name in fields]
        if wrong:
            raise BundleError(f"{path}: {wrong[0]} is written by the export and cannot be set; leave it out")
    check_names(document, path)
    return _without_empty_tables(document)


def _without_empty_tables(document: Document, table: str = "") -> Document:
    """Return the document without tables whose fields are all comments."""
    kept = {}
    for name, value in document.items():
        inside = isinstance(value, dict) and f"{table}{name}" not in FREE_TABLES
        kept[name] = _without_empty_tables(value, f"{table}{name}.") if inside else value
    return {name: value for name, value in kept.items() if value != {}}


@contextmanager
def named_in_faults(path: Path | None) -> Iterator[None]:
    """Put the manifest file's path, if there is one, before every `BundleError` raised inside."""
    try:
        yield
    except BundleError as error:
        if path is None:
            raise
        raise BundleError(f"{path}: {error}") from error


def input_size(overrides: Document, kind: str) -> InputSize:
    """Return the input of the networks of `kind` as `overrides` states it; the published size if it states none."""
    fields = overrides.get(kind, {}).get("input", {})
    if not isinstance(fields, dict):
        raise BundleError(f"{kind}.input must be an object of fields")
    height, width = (fields.get(name, usual) for name, usual in zip(("height", "width"), _SIZES[kind], strict=True))
    channels = fields.get("channels")
    for name, value in (("height", height), ("width", width), ("channels", 1 if channels is None else channels)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise BundleError(f"{kind}.input.{name} is {value!r}; it must be a whole number of at least 1")
    confidence = "min_confidence" in overrides.get(kind, {})
    scales = _scales(overrides, height, width) if kind == "localizer" else (1.0,)
    return InputSize(channels, height, width, stated_preprocessing(fields, kind), confidence, scales)


def _scales(overrides: Document, height: int, width: int) -> tuple[float, ...]:
    """Return the scales at which the localizer runs; the rest of its test time is read with the manifest."""
    fields = overrides.get("localizer", {}).get("test_time", {})
    stated = {"scales": fields["scales"]} if isinstance(fields, dict) and "scales" in fields else {}
    place = "localizer.test_time"
    try:
        averaging = read(Averaging, {**_test_time({}), **stated}, place)
        averaging.check_scales(place, height, width)
    except ValueError as error:
        raise BundleError(f"{error}.") from error
    return averaging.scales


def _test_time(overrides: Document) -> Document:
    """Return the defaults. Heatmaps that are turned back are shifted only with the official HRNet's alignment."""
    shifted = overrides.get("localizer", {}).get("align", "stride") == "stride"
    return {"scales": [1.0], "flip": False, "flip_shift": shifted}


def contract(localizers: Mapping[str, Network], head: str, grader: Network, overrides: Document) -> Document:
    """Return the manifest's document without its files: the defaults, changed by `overrides`.

    `localizers` are by region; a shared network stands there twice.
    """
    documents: Document = {
        "version": "1",
        "intended_use": _intended_use([*localizers.values(), grader]),
        "localizer": {
            "input": {**_input(localizers["cervical"]), "fit": "stretch", "antialias": 4, "levels": None},
            "contrast": {"mode": "dicom", "low": 1.0, "high": 99.0},
            "keypoints": _keypoints(localizers, overrides),
            "align": "stride",
            "box_padding": 1.25,
            "decode": "dark",
            "passes": 1,
            "min_confidence": 0.3,
            "test_time": _test_time(overrides),
        },
        "grader": {
            "input": {**_input(grader), "antialias": 2, "levels": None},
            "contrast": {"mode": "dicom", "low": 1.0, "high": 99.0},
            "crop": {"unit": "anterior-distance", "extent": 3.2, "anterior": "left"},
            "head": head,
            "bridge_threshold": 0.5,
            "abstain_below": 0.0,
        },
        "provenance": {},
        "tolerances": asdict(Tolerances()),
    }
    if overrides.get("grader", {}).get("head", head) != head:
        raise BundleError(
            f"the manifest file says grader.head {overrides['grader']['head']!r}, but the network's outputs make {head}"
        )
    return _merged(documents, _without_short_forms(overrides))


def _without_short_forms(overrides: Document) -> Document:
    """Return `overrides` without `preprocessing`: the networks' mean and std are written out from it."""
    plain = dict(overrides)
    for kind in _SIZES:
        if "input" in overrides.get(kind, {}):
            fields = {name: value for name, value in overrides[kind]["input"].items() if name != "preprocessing"}
            plain[kind] = {**overrides[kind], "input": fields}
    return plain


def _intended_use(networks: Sequence[Network]) -> str:
    if any(network.tensors for network in networks):
        return "Random weights, for measuring latency alone; what it finds and grades means nothing."
    return "Not stated by the maker of this bundle; not for clinical use."


def _input(network: Network) -> Document:
    return {
        "height": network.size.height_px,
        "width": network.size.width_px,
        "channels": network.channels,
        **mean_and_std(network.preprocessing, network.channels),
    }


def _keypoints(localizers: Mapping[str, Network], overrides: Document) -> Document:
    """Return the usual channels: disc by disc from above, centre then anterior; of 24, the cervical ones first."""
    if "keypoints" in overrides.get("localizer", {}):
        return {}
    keypoints: Document = {}
    for index, region in enumerate(REGIONS):
        joints = localizers[region].outputs
        if joints not in (12, 24):
            raise BundleError(
                f"{localizers[region].provenance['source']}: the localizer gives {joints} heatmaps; 12 (both regions "
                "alike) or 24 (cervical, then lumbar) explain themselves. Set localizer.keypoints in the manifest file"
            )
        first = 12 * index if joints == 24 else 0
        keypoints[region] = [
            {"channel": first + 2 * disc + offset, "level": level, "point": point}
            for disc, level in enumerate(LEVELS[region])
            for offset, point in enumerate(("centre", "anterior"))
        ]
    return keypoints


def _merged(base: Document, changes: Mapping[str, Any]) -> Document:
    """Return `base` with `changes`, object by object; lists and values are replaced whole."""
    merged = dict(base)
    for name, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = _merged(merged[name], value) if both else value
    return merged


def _parse_toml(text: str) -> Document:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    document: Document = tomllib.loads(text)
    return document
