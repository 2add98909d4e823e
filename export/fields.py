"""Every field that a manifest file may set, with default and meaning: the defaults, a commented file, known names."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from spinescore.runtime.errors import BundleError
from spinescore.runtime.fields import near_name
from spinescore.runtime.manifest import CLASSES
from spinescore.runtime.manifest.tolerances import Tolerances
from spinescore.runtime.study import LEVELS, REGIONS

__all__ = ["FREE_TABLES", "check_names", "commented_manifest", "default_fields", "usual_keypoints"]

Table = dict[str, tuple[Any, str]]  # by field: its default, or an example if the meaning names the default

FREE_TABLES = ("provenance",)  # tables whose fields the owner chooses

_HEAD = """\
# The manifest file of `spinescore export --manifest`: what weights cannot say about how networks were trained.
# Lines with ## explain the field below them, which is shown with its default. To set a field, take away its # and
# change its value; every other field keeps its default."""
_WIDTH = 118

_INPUT: Table = {
    "preprocessing": (
        "imagenet",
        "imagenet: grey 0-1 minus mean, by std, as torchvision; caffe: as keras.applications' ResNet; none: grey 0-1 "
        "as it is. It stands in place of mean and std; an ONNX file needs one or the other (default: imagenet, for a "
        "Keras file caffe)",
    ),
    "mean": ([0.485, 0.456, 0.406], "per channel, in grey 0-1 (black 0, white 1): the input is (grey - mean) / std"),
    "std": ([0.229, 0.224, 0.225], "per channel, as mean"),
    "channels": (3, "that the network takes; a radiograph's one grey goes into all of them (default: the file's)"),
    "levels": (256, "number of grey levels, for networks trained on 8-bit pictures (default: grey is not rounded)"),
}
_CONTRAST: Table = {
    "mode": (
        "dicom",
        "dicom: the header's window; percentile: the picture's own percentiles low and high become grey 0 and 1",
    ),
    "low": (1.0, "in per cent, 0-100"),
    "high": (99.0, "in per cent, 0-100"),
    "over": ("exposed", "exposed: percentiles of samples inside the collimation; picture: of all pixels, exactly"),
}


def usual_keypoints(heatmaps: int) -> dict[str, list[dict[str, Any]]]:
    """Return the usual channels: disc by disc from above, centre then anterior; of 24, the cervical ones first."""
    return {
        region: [
            {"channel": (12 * number if heatmaps == 24 else 0) + 2 * disc + offset, "level": level, "point": point}
            for disc, level in enumerate(LEVELS[region])
            for offset, point in enumerate(("centre", "anterior"))
        ]
        for number, region in enumerate(REGIONS)
    }


_TOLERANCES = {
    "heatmap_difference": "of the reference's range",
    "median_shift_px": "of points, in pixels of the heatmap",
    "p99_shift_px": "as the median, 99th percentile",
    "logit_difference": "of the reference's range",
    "grade_flips": "share of corners (0-1) whose grade changes",
    "radiograph_total": "largest change of a radiograph's total, of 36",
}

_TABLES: dict[str, Table] = {
    "": {
        "name": ("my-bundle", "the bundle's name (default: that of its folder)"),
        "version": ("1", "the bundle's version"),
        "intended_use": (
            "Not stated by the maker of this bundle; not for clinical use.",
            "printed with every report and overlay",
        ),
        "budget_ms": (250.0, "time of a study, in milliseconds, if the caller sets none (default: none)"),
        "smallest_detectable_change": (
            2.0,
            "of the total, in units, as `spinescore evaluate` measured it; stands beside verdicts (default: none)",
        ),
    },
    "localizer": {
        "align": ("stride", "stride: x = 4 x_heatmap, as the official HRNet; centre: x = 4 (x_heatmap + 0.5) - 0.5"),
        "decode": ("dark", "how a point is found in its heatmap: argmax, quarter or dark"),
        "passes": (1, "2 looks again inside the box of the first pass's points"),
        "box_padding": (1.25, "size of that box, in multiples of the box around the points, 1-4"),
        "facing": (
            "left",
            "left, right: radiographs that face the other side are mirrored for the localizer; as-is: none is mirrored",
        ),
        "min_confidence": (0.3, "0-1, height of a heatmap's peak below which a disc is not trusted"),
    },
    "localizer.input": {
        "height": (256, "in pixels"),
        "width": (192, "in pixels"),
        "fit": ("stretch", "stretch: the picture fills the input; letterbox: it keeps its aspect and is centred"),
        "antialias": (4, "n x n samples for each pixel of the input, 1-16"),
        **_INPUT,
    },
    "localizer.contrast": _CONTRAST,
    "localizer.test_time": {
        "scales": (
            [1.0],
            "sizes at which the localizer runs, as factors of its input's height and width (1.0 among them); its "
            "heatmaps are averaged. Both sides must be multiples of 32, HRNet's stride: with 256 x 192 every 0.5",
        ),
        "flip": (False, "true: each input is run mirrored too, its heatmaps turned back and averaged with the others"),
        "flip_shift": (
            True,
            "true: heatmaps that were turned back are moved one pixel to the right, as the official HRNet's "
            "SHIFT_HEATMAP (default: true with align stride, false with centre)",
        ),
    },
    "localizer.keypoints": {
        region: (
            points,
            "the heatmap (from 0) of each disc's centre and anterior point; with 12 heatmaps both regions use 0-11",
        )
        for region, points in usual_keypoints(24).items()
    },
    "grader": {
        "head": ("corners4", "follows from the networks' outputs: corners4 (8), corner4 (4), bridge+grades (2 and 3)"),
        "bridge_threshold": (0.5, "0-1, mean probability of grade 3 from which both corners are 3"),
        "abstain_below": (0.0, "0-1, probability below which a corner is left ungraded"),
    },
    "grader.input": {
        "height": (224, "in pixels; crops are square"),
        "width": (224, "in pixels, as height"),
        "antialias": (2, "n x n samples for each pixel of the input, 1-16"),
        **_INPUT,
    },
    "grader.contrast": _CONTRAST,
    "grader.crop": {
        "unit": (
            "anterior-distance",
            "anterior-distance: from a disc's centre to its anterior point; disc-spacing: from disc to disc",
        ),
        "extent": (3.2, "the crop's side, in that unit"),
        "anterior": ("left", "the side of the crop at which the anterior end lies: left or right"),
    },
    "grader.classes": {
        "corners": (list(CLASSES[8]), "order of the outputs of a network with 8; with 4: " + ", ".join(CLASSES[4])),
        "grades": (list(CLASSES[3]), "of a network with 3 outputs"),
        "bridge": (list(CLASSES[2]), "of a network with 2 outputs (no default: the export stops until it is stated)"),
    },
    "tolerances": {name: (value, _TOLERANCES[name]) for name, value in asdict(Tolerances()).items()},
    "provenance": {"trained_on": ("..", "any fields of your own, which are kept in the bundle (default: none)")},
}


def default_fields() -> dict[str, Any]:
    """Return the fields of all tables with their defaults, without those whose meaning names the default."""
    document: dict[str, Any] = {}
    for table, fields in _TABLES.items():
        place = document
        for name in table.split(".") if table else ():
            place = place.setdefault(name, {})
        place.update({name: value for name, (value, meaning) in fields.items() if "default:" not in meaning})
    return document


def commented_manifest() -> str:
    """Return every field that a manifest file may set, as TOML in which all fields are comments."""
    lines = [_HEAD]
    for table, fields in _TABLES.items():
        lines += ["", f"[{table}]"] if table else [""]
        for name, (value, meaning) in fields.items():
            lines += textwrap.wrap(meaning, _WIDTH, initial_indent="## ", subsequent_indent="## ")
            if isinstance(value, list) and isinstance(value[0], dict):  # each table in it has a line
                lines += [f"# {name} = [", *(f"#     {_value(item)}," for item in value), "# ]"]
            else:
                lines.append(f"# {name} = {_value(value)}")
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_value(item)}" for name, item in value.items()) + " }"
    return json.dumps(value)


def check_names(document: Mapping[str, Any], path: object) -> None:
    """Check the field names of the manifest file `path`. Raises `BundleError` that suggests the likely name."""
    fields = [f"{table}.{name}" if table else name for table, rows in _TABLES.items() for name in rows]
    for field in _names(document):
        if field not in fields and field not in _TABLES:
            elsewhere = [name for name in fields if name.rpartition(".")[2] == field.rpartition(".")[2]]
            near = f"; did you mean {' or '.join(elsewhere)}?" if elsewhere else near_name(field, [*fields, *_TABLES])
            near = near or "; `spinescore export --print-manifest` shows all of them"
            raise BundleError(f"{path}: {field}: no such field is known{near}")


def _names(document: Mapping[str, Any], table: str = "") -> Iterator[str]:
    for name, value in document.items():
        field = f"{table}.{name}" if table else name
        yield field
        if isinstance(value, dict) and field in _TABLES and field not in FREE_TABLES:
            yield from _names(value, field)
