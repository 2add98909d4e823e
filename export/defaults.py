"""Defaults of the manifest's fields that depend on training, and the file that overrides them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from spinescore.export.fields import FREE_TABLES, check_names, default_fields, usual_keypoints
from spinescore.runtime.documents import read
from spinescore.runtime.errors import BundleError, CheckpointError
from spinescore.runtime.fields import near_name
from spinescore.runtime.files import read_bytes
from spinescore.runtime.jsonfile import parse_json
from spinescore.runtime.manifest.testtime import Averaging
from spinescore.runtime.study import REGIONS

if TYPE_CHECKING:
    from spinescore.export.sources import Network

__all__ = [
    "USUAL",
    "InputSize",
    "Preprocessing",
    "contract",
    "input_size",
    "mean_and_std",
    "named_in_faults",
    "not_stated",
    "read_overrides",
]

Document = dict[str, Any]
Preprocessing = Literal["imagenet", "caffe", "none", "stated"]  # stated: the manifest file has mean and std

# Per channel, in grey [0, 1]. ImageNet as in torchvision and the official HRNet; 'caffe' as in Keras' preprocess_input:
# blue, green, red of 0 .. 255 minus the mean, without scaling. A radiograph's one grey stands in every channel.
USUAL: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "caffe": (tuple(mean / 255 for mean in (103.939, 116.779, 123.68)), (1 / 255,) * 3),
    "none": ((0.0,) * 3, (1.0,) * 3),
}

_KINDS = ("localizer", "grader")
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
    parts = [("", document), *((f"{part}.", document.get(part, {})) for part in _KINDS)]
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
    stated = {**default_fields()[kind]["input"], **fields}
    height, width, channels = stated["height"], stated["width"], stated.get("channels")
    for name, value in (("height", height), ("width", width), ("channels", 1 if channels is None else channels)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise BundleError(f"{kind}.input.{name} is {value!r}; it must be a whole number of at least 1")
    confidence = "min_confidence" in overrides.get(kind, {})
    scales = _scales(overrides, height, width) if kind == "localizer" else (1.0,)
    return InputSize(channels, height, width, _stated_preprocessing(fields, kind), confidence, scales)


def _scales(overrides: Document, height: int, width: int) -> tuple[float, ...]:
    """Return the scales at which the localizer runs. The rest of its test time is read with the manifest."""
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
    return {**default_fields()["localizer"]["test_time"], "flip_shift": shifted}


def contract(localizers: Mapping[str, Network], head: str, grader: Network, overrides: Document) -> Document:
    """Return the manifest's document without its files: the defaults, changed by `overrides`.

    `localizers` are by region; a shared network stands there twice.
    """
    document = default_fields()
    document["localizer"]["input"] |= _input(localizers["cervical"])
    document["localizer"]["keypoints"] = _keypoints(localizers, overrides)
    document["localizer"]["test_time"] = _test_time(overrides)
    document["grader"]["input"] |= _input(grader)
    document["grader"]["head"] = head
    del document["grader"]["classes"]
    if any(network.tensors for network in (*localizers.values(), grader)):
        document["intended_use"] = (
            "Random weights, for measuring latency alone; what it finds and grades means nothing."
        )
    if overrides.get("grader", {}).get("head", head) != head:
        raise BundleError(
            f"the manifest file says grader.head {overrides['grader']['head']!r}, but the network's outputs make {head}"
        )
    document = _merged(document, overrides)
    for kind in _KINDS:
        document[kind]["input"].pop("preprocessing", None)  # mean and std are written out from it
    return document


def _input(network: Network) -> Document:
    return {
        "height": network.size.height_px,
        "width": network.size.width_px,
        "channels": network.channels,
        "levels": None,
        **mean_and_std(network.preprocessing, network.channels),
    }


def _keypoints(localizers: Mapping[str, Network], overrides: Document) -> Document:
    """Return the usual channels, unless `overrides` has others."""
    if "keypoints" in overrides.get("localizer", {}):
        return {}
    for network in localizers.values():
        if network.outputs not in (12, 24):
            raise BundleError(
                f"{network.provenance['source']}: the localizer gives {network.outputs} heatmaps; 12 (both regions "
                "alike) or 24 (cervical, then lumbar) explain themselves. Set localizer.keypoints in the manifest file"
            )
    return {region: usual_keypoints(localizers[region].outputs)[region] for region in REGIONS}


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


def _stated_preprocessing(fields: Mapping[str, Any], kind: str) -> Preprocessing | None:
    """Return the preprocessing that the manifest file's `fields` of `kind`.input state; None if they state none.

    Raises `BundleError` for an unknown short form, and for one beside mean or std.
    """
    name = fields.get("preprocessing")
    parts = [part for part in ("mean", "std") if part in fields]
    for part in parts:
        if isinstance(fields[part], str):
            instead = f"give numbers, or preprocessing instead of mean and std; known are {', '.join(USUAL)}"
            if fields[part] in USUAL:
                instead = f'write preprocessing = "{fields[part]}" instead of mean and std'
            raise BundleError(
                f"{kind}.input.{part} is {fields[part]!r}, but it is a list of numbers, per channel; {instead}"
            )
    if name is None:
        return "stated" if len(parts) == 2 else None
    if not isinstance(name, str) or name not in USUAL:
        near = near_name(name, USUAL) if isinstance(name, str) else ""
        raise BundleError(
            f"{kind}.input.preprocessing is {name!r}; known are {', '.join(USUAL)}{near}. For another give mean and "
            "std, per channel in grey 0-1"
        )
    if parts:
        raise BundleError(f"{kind}.input has preprocessing and {parts[0]}, for which it stands; leave one out")
    return cast("Preprocessing", name)


def mean_and_std(preprocessing: Preprocessing, channels: int) -> dict[str, list[float]]:
    """Return `mean` and `std` for the manifest; for one channel, the average of three. Empty if there is no rule."""
    if preprocessing == "stated":
        return {}
    mean, std = USUAL[preprocessing]
    if channels == 1 or preprocessing == "none":
        mean, std = (sum(mean) / 3,) * channels, (sum(std) / 3,) * channels
    elif channels != 3:
        mean, std = (), ()  # the manifest's own check asks for them
    return {"mean": list(mean), "std": list(std)}


def not_stated(source: str, kind: str, channels: int) -> CheckpointError:
    """Return the error for an ONNX file whose normalisation is not stated, with the lines that state it."""
    scale = f"mean = {[0.0] * channels} and std = {[round(1 / 255, 10)] * channels}"
    return CheckpointError(
        f"{source}: an ONNX file does not say how its input is normalised, and nothing is assumed. State it in the "
        f'file that --manifest names, in the table [{kind}.input], with one of these lines: preprocessing = "imagenet" '
        '(grey 0-1 minus mean, by standard deviation, as torchvision trains), preprocessing = "caffe" (0-255 minus '
        'mean, as preprocess_input of keras.applications\' ResNet gives), preprocessing = "none" (grey 0-1 as it is, '
        f"as ToTensor alone gives). Or mean and std per channel, as {scale} for a network that takes 0-255 and "
        "rescales it inside"
    )
