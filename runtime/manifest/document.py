"""A bundle's manifest read field by field: what is missing, unknown, of the wrong type or out of range is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from spinescore.runtime.manifest import (
    CLASSES,
    HEAD_OUTPUTS,
    PRECISIONS,
    SCHEMA,
    Alternative,
    Contrast,
    Crop,
    FileEntry,
    Grader,
    Keypoint,
    Localizer,
    Manifest,
    NetworkInput,
)
from spinescore.runtime.manifest.bounds import read_normalisation, read_percentiles, read_share
from spinescore.runtime.manifest.fields import Fields
from spinescore.runtime.manifest.testtime import read_averaging
from spinescore.runtime.manifest.tolerances import read_tolerances
from spinescore.runtime.study import LEVELS, REGIONS, Region

__all__ = ["NAME_RULE", "is_alternative_name", "read_manifest"]

_NAME = r"[a-z0-9][a-z0-9-]{0,31}"
NAME_RULE = "a localizer's name has up to 32 lower-case letters, digits and hyphens, and does not end with a region"


def read_manifest(document: object) -> Manifest:
    """The manifest of what `json.load` gave. Raises `ValueError` that names the field."""
    fields = Fields(document)
    schema = fields.text("schema")
    if schema != SCHEMA:
        raise ValueError(
            f"schema: this version reads {SCHEMA}, found {schema!r}; use a newer spinescore or export again"
        )
    manifest = Manifest(
        name=fields.text("name"),
        version=fields.text("version"),
        intended_use=fields.text("intended_use"),
        localizer=_localizer(fields.object("localizer")),
        grader=_grader(fields.object("grader")),
        golden=_paths(fields.object("golden"), ("localizer", "grader")),
        files=_entries(fields.object("files")),
        provenance=_provenance(fields),
        tolerances=read_tolerances(fields.object("tolerances")) if fields.has("tolerances") else None,
        budget_ms=fields.number("budget_ms", 1e-3, 1e9) if fields.has("budget_ms") else None,
        smallest_detectable_change=(
            fields.number("smallest_detectable_change", 0.0, 72.0) if fields.has("smallest_detectable_change") else None
        ),
    )
    fields.done()
    _check_references(manifest)
    return manifest


def _localizer(fields: Fields) -> Localizer:
    keypoints, files = fields.object("keypoints"), _by_region(fields.object("files"))
    size = _input(fields.object("input"), fit=True)
    test_time = fields.object("test_time") if fields.has("test_time") else None
    localizer = Localizer(
        files=files,
        input=size,
        contrast=_contrast(fields.object("contrast")),
        keypoints={region: _keypoints(keypoints, region) for region in REGIONS},
        align=fields.choice("align", ("stride", "centre")),
        box_padding=fields.number("box_padding", 1.0, 4.0),
        decode=fields.choice("decode", ("argmax", "quarter", "dark")),
        passes=fields.choice("passes", (1, 2)),
        min_confidence=read_share(fields, "min_confidence"),
        facing=fields.choice("facing", ("left", "right", "as-is")) if fields.has("facing") else "left",
        alternatives=_alternatives(fields) if fields.has("alternatives") else (),
        test_time=None if test_time is None else read_averaging(test_time, size.height, size.width),
    )
    for part in (keypoints, fields):
        part.done()
    for number, alternative in enumerate(localizer.alternatives):
        if replace(localizer, files=alternative.files).shared != localizer.shared:
            raise ValueError(
                f"{fields.name('alternatives')}[{number}].files: expected files as in {fields.name('files')}, "
                f"{'the same for both regions' if localizer.shared else 'others for each region'}"
            )
    return localizer


def _by_region(fields: Fields) -> dict[Region, dict[str, str]]:
    files = {region: _paths(fields.object(region), PRECISIONS, needed=True) for region in REGIONS}
    fields.done()
    return files


def _alternatives(parent: Fields) -> tuple[Alternative, ...]:
    found: dict[str, Alternative] = {}
    for fields in parent.objects("alternatives"):
        name = fields.text("name")
        if not is_alternative_name(name):
            raise ValueError(f"{fields.name('name')}: {NAME_RULE}, found {name!r}")
        if name in found:
            raise ValueError(f"{fields.name('name')}: there is another alternative {name!r}")
        found[name] = Alternative(name, _by_region(fields.object("files")))
        fields.done()
    return tuple(found.values())


def is_alternative_name(name: str) -> bool:
    """It becomes a part of file names: `localizer-NAME.fp32.onnx`, or `localizer-NAME-cervical.fp32.onnx`."""
    return re.fullmatch(_NAME, name) is not None and name.rpartition("-")[2] not in REGIONS


def _grader(fields: Fields) -> Grader:
    head = fields.choice("head", HEAD_OUTPUTS)
    files = fields.object("files")
    crop = fields.object("crop")
    grader = Grader(
        files={net: _paths(files.object(net), PRECISIONS, needed=True) for net in HEAD_OUTPUTS[head]},
        input=_input(fields.object("input"), fit=False),
        contrast=_contrast(fields.object("contrast")),
        crop=Crop(
            unit=crop.choice("unit", ("anterior-distance", "disc-spacing")),
            extent=crop.number("extent", 0.1, 100.0),
            anterior=crop.choice("anterior", ("left", "right")),
        ),
        head=head,
        bridge_threshold=read_share(fields, "bridge_threshold"),
        abstain_below=read_share(fields, "abstain_below"),
        classes=_classes(fields.object("classes"), HEAD_OUTPUTS[head]) if fields.has("classes") else None,
    )
    for part in (files, crop, fields):
        part.done()
    if grader.input.height != grader.input.width:
        raise ValueError(f"{fields.name('input')}: crops are square, so height and width must be equal")
    return grader


def _classes(fields: Fields, outputs: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """The order of every network's outputs, which is that of `CLASSES`: an export has brought them to it."""
    for network, count in outputs.items():
        found = fields.array(network)
        if found != list(CLASSES[count]):
            raise ValueError(
                f"{fields.name(network)}: a bundle's outputs are in the order {', '.join(CLASSES[count])}; "
                "export the network again with its own order, which is brought to this one"
            )
    fields.done()
    return {network: CLASSES[count] for network, count in outputs.items()}


def _input(fields: Fields, fit: bool) -> NetworkInput:
    channels = fields.integer("channels", 1, 16)
    found = NetworkInput(
        height=fields.integer("height", 16, 4096),
        width=fields.integer("width", 16, 4096),
        channels=channels,
        mean=read_normalisation(fields, "mean", channels),
        std=read_normalisation(fields, "std", channels),
        antialias=fields.integer("antialias", 1, 16),
        levels=fields.choice("levels", (None, 256)),
        fit=fields.choice("fit", ("stretch", "letterbox")) if fit else None,
    )
    fields.done()
    return found


def _contrast(fields: Fields) -> Contrast:
    mode = fields.choice("mode", ("dicom", "percentile"))
    low, high = read_percentiles(fields)
    over: Any = fields.choice("over", ("exposed", "picture")) if fields.has("over") else "exposed"
    fields.done()
    if over == "picture" and mode == "dicom":
        raise ValueError(f'{fields.name("over")}: "picture" is of percentiles; give mode = "percentile" with it')
    return Contrast(mode, low, high, over)


def _keypoints(parent: Fields, region: Region) -> tuple[Keypoint, ...]:
    keypoints = []
    for fields in parent.objects(region):
        keypoints.append(
            Keypoint(
                channel=fields.integer("channel", 0, 1023),
                level=fields.choice("level", LEVELS[region]),
                point=fields.choice("point", ("centre", "anterior")),
            )
        )
        fields.done()
    named = {(keypoint.level, keypoint.point) for keypoint in keypoints}
    channels = {keypoint.channel for keypoint in keypoints}
    if not len(keypoints) == len(named) == len(channels) == 2 * len(LEVELS[region]):
        raise ValueError(f"{parent.name(region)}: expected each level's centre and anterior point once, 12 channels")
    return tuple(keypoints)


def _paths(fields: Fields, allowed: tuple[str, ...], needed: bool = False) -> dict[str, str]:
    found = {key: fields.text(key) for key in allowed if fields.has(key)}
    fields.done()
    if needed and not found:
        raise ValueError(f"{fields.path}: expected at least one of {', '.join(allowed)}")
    return found


def _entries(fields: Fields) -> dict[str, FileEntry]:
    entries = {}
    for path in fields.remaining():
        entry = fields.object(path)
        sha256 = entry.text("sha256")
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise ValueError(f"{entry.name('sha256')}: expected 64 hexadecimal digits in lower case")
        size = entry.integer("bytes", 0, 2**40)
        entries[path] = FileEntry(sha256, size, entry.choice("precision", (None, *PRECISIONS)))
        entry.done()
    return entries


def _provenance(fields: Fields) -> dict[str, Any]:
    provenance = fields.take("provenance")
    Fields(provenance, "provenance")
    return dict(provenance)


def _check_references(manifest: Manifest) -> None:
    """Every path that a network or a golden set names is in `files`, with the precision under which it is named."""
    named = [
        *((f"localizer.files.{region}", files) for region, files in manifest.localizer.files.items()),
        *(
            (f"localizer.alternatives[{number}].files.{region}", files)
            for number, alternative in enumerate(manifest.localizer.alternatives)
            for region, files in alternative.files.items()
        ),
        *((f"grader.files.{net}", files) for net, files in manifest.grader.files.items()),
    ]
    for place, files in named:
        for precision, path in files.items():
            if path not in manifest.files:
                raise ValueError(f"{place}.{precision}: {path!r} is not listed in files")
            if manifest.files[path].precision != precision:
                raise ValueError(f"files.{path}.precision: expected {precision}, as {place} has it")
    for role, path in manifest.golden.items():
        if path not in manifest.files:
            raise ValueError(f"golden.{role}: {path!r} is not listed in files")
