"""A bundle of two tiny networks whose right answers are known, and radiographs drawn for them.

Every point of the two regions has a grey of its own and is drawn as a dot of that grey; the localizer's heatmap k is a
Gaussian blur of "how near is this pixel to grey k". Beside each disc two patches are drawn whose grey stands for the
grade of the corner; the grader reads the mean grey of the two cells of its crop where the patches must come to lie.
So positions, rotation, mirroring, order and scale are tested end to end, and a mistake in any gives a wrong grade.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from spinescore.runtime.study import LEVELS, REGIONS, Radiograph, Region

HEIGHT, WIDTH = 256, 192
CROP = 64
EXTENT = 1.2
PATCH_GREYS = (0.06, 0.16, 0.26, 0.36)  # of grade 0 .. 3
DOT_GREYS = np.linspace(0.46, 0.98, 24)
DOT_RADIUS_PX = 3  # in the localizer's input
BANDWIDTH = 0.012
BLUR_SIGMA_PX = 8.0
BLUR_RADIUS_PX = 24


@dataclass(frozen=True)
class Drawn:
    """A radiograph with its true points (6, 2, xy) and grades (6 discs, upper and lower corner)."""

    radiograph: Radiograph
    points: NDArray[np.float64]
    grades: tuple[tuple[int, int], ...]


def draw(
    region: Region,
    grades: Sequence[tuple[int, int]] = ((0, 1), (2, 0), (3, 3), (1, 1), (0, 2), (0, 0)),
    rows: int = 1024,
    facing: str = "left",
    dtype: str = "uint8",
    tagged: bool = True,
    heads: int | str = 24,
) -> Drawn:
    """A lateral radiograph of `rows` x 3/4 `rows` pixels; with 12 heads both regions use the same dots."""
    columns, spacing = rows * 3 // 4, rows * 0.12
    discs = np.arange(6)
    centre = np.stack([columns * (0.36 + 0.01 * (discs - 2.5) ** 2), rows * 0.2 + discs * spacing], 1)
    angle = np.radians(np.linspace(-20, 30, 6))
    anterior = centre + 0.6 * spacing * np.stack([-np.cos(angle), np.sin(angle)], 1)
    grey = np.zeros((rows, columns))
    reach = EXTENT / 2 * 0.6 * spacing
    for disc in discs:
        forward = (anterior[disc] - centre[disc]) / np.linalg.norm(anterior[disc] - centre[disc])
        up = np.array([-forward[1], forward[0]])  # of a patient who looks to the left
        part, x, y = _around(grey, centre[disc], 1.5 * reach)
        along, above = x * forward[0] + y * forward[1], x * up[0] + y * up[1]
        in_crop = (along >= 0) & (along <= reach) & (np.abs(above) <= reach)
        for corner, patch in enumerate((in_crop & (above > 0), in_crop & (above < 0))):
            part[patch] = PATCH_GREYS[grades[disc][corner]]
    offset = 12 * REGIONS.index(region) if heads != 12 else 0
    radius = DOT_RADIUS_PX * rows / HEIGHT
    for index, point in enumerate(np.stack([centre, anterior], 1).reshape(-1, 2)):
        part, x, y = _around(grey, point, radius)
        part[x**2 + y**2 <= radius**2] = DOT_GREYS[offset + index]
    points = np.stack([centre, anterior], 1)
    if facing == "right":
        grey, points = grey[:, ::-1], np.stack([columns - 1 - points[..., 0], points[..., 1]], -1)
    limits = np.iinfo(dtype)
    pixels = np.round(grey * (limits.max - limits.min) + limits.min).astype(dtype)
    table = np.linspace(0, 1, limits.max - limits.min + 1, dtype=np.float32)
    told = {"region": region, "facing": facing} if tagged else {}
    radiograph = Radiograph(pixels, table, stored_min=int(limits.min), source=f"{region}.dcm", view="lateral", **told)
    return Drawn(radiograph, points, tuple((int(upper), int(lower)) for upper, lower in grades))


def _around(
    grey: NDArray[np.float64], point: NDArray[np.float64], reach_px: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the part of a picture within `reach_px` of a point, and the distances of its columns and rows."""
    (left, top), (right, bottom) = np.maximum(point - reach_px, 0).astype(int), (point + reach_px + 2).astype(int)
    part = grey[top:bottom, left:right]
    x, y = np.arange(left, left + part.shape[1]) - point[0], np.arange(top, top + part.shape[0]) - point[1]
    return part, x[None], y[:, None]


def write_bundle(folder: Path, **changes: Any) -> Path:
    """Write a bundle; `changes` set manifest fields by dotted name, and `heads` (24, 12 or separate) the localizers.

    `test_time` (scales, flip, flip_shift) sets that section; its localizers then take pictures of any size.

    `alternatives` are localizers by name whose points lie so many pixels of the localizer's input further to the right.
    """
    head = changes.get("grader.head", "corners4")
    heads = changes.pop("heads", 24)
    prefers_left = changes.pop("prefers_left", False)
    precision = changes.pop("precision", "fp32")
    alternatives = changes.pop("alternatives", {})
    test_time = changes.pop("test_time", None)
    free = test_time is not None and len(test_time[0]) > 1
    if test_time is not None:
        changes["localizer.test_time"] = dict(zip(("scales", "flip", "flip_shift"), test_time, strict=True))
    folder.mkdir(parents=True, exist_ok=True)
    channels = changes.get("localizer.input.channels", 1)
    models: dict[str, onnx.ModelProto] = {}
    for name, right_px in {"": 0, **alternatives}.items():
        stem = f"localizer-{name}" if name else "localizer"
        if heads == "separate":
            for number, region in enumerate(REGIONS):
                greys = DOT_GREYS[12 * number : 12 * number + 12]
                models[f"{stem}-{region}.fp32.onnx"] = localizer(greys, channels, prefers_left, right_px, free)
        else:
            models[f"{stem}.fp32.onnx"] = localizer(DOT_GREYS[:heads], channels, prefers_left, right_px, free)
    for network in {"corners4": ["corners"], "corner4": ["corners"], "bridge+grades": ["bridge", "grades"]}[head]:
        models[f"grader-{network}.fp32.onnx"] = grader(network, head)
    document = manifest(heads, head, tuple(alternatives))
    if precision == "fp16":
        models = {name.replace("fp32", "fp16"): halved(model) for name, model in models.items()}
        document = json.loads(json.dumps(document).replace("fp32", "fp16"))
    for name, model in models.items():
        (folder / name).write_bytes(model.SerializeToString())
    for name, value in changes.items():
        *parents, last = name.split(".")
        place = document
        for parent in parents:
            place = place[parent]
        place[last] = value
    document["files"] = {name: _entry(folder / name, precision) for name in models}
    (folder / "bundle.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


def manifest(heads: int | str = 24, head: str = "corners4", alternatives: tuple[str, ...] = ()) -> dict[str, Any]:
    """The manifest of such a bundle, without its files."""
    offsets = {"cervical": 0, "lumbar": 12 if heads == 24 else 0}
    suffix = {region: f"-{region}" if heads == "separate" else "" for region in REGIONS}
    networks = {"corners4": ["corners"], "corner4": ["corners"], "bridge+grades": ["bridge", "grades"]}[head]
    plain = {"channels": 1, "mean": [0.0], "std": [1.0], "levels": None}
    contrast = {"mode": "dicom", "low": 1.0, "high": 99.0}
    others = [
        {"name": name, "files": {region: {"fp32": f"localizer-{name}{suffix[region]}.fp32.onnx"} for region in REGIONS}}
        for name in alternatives
    ]
    return {
        "schema": "spinescore.bundle/1",
        "name": "tiny",
        "version": "1",
        "intended_use": "Tests of spinescore.",
        "localizer": {
            "files": {region: {"fp32": f"localizer{suffix[region]}.fp32.onnx"} for region in REGIONS},
            "input": {"height": HEIGHT, "width": WIDTH, "fit": "stretch", "antialias": 4, **plain},
            "contrast": dict(contrast),
            "keypoints": {
                region: [
                    {"channel": offsets[region] + 2 * disc + point, "level": level, "point": name}
                    for disc, level in enumerate(LEVELS[region])
                    for point, name in enumerate(("centre", "anterior"))
                ]
                for region in REGIONS
            },
            "align": "stride",
            "box_padding": 1.25,
            "decode": "dark",
            "passes": 1,
            "min_confidence": 0.3,
            **({"alternatives": others} if others else {}),
        },
        "grader": {
            "files": {network: {"fp32": f"grader-{network}.fp32.onnx"} for network in networks},
            "input": {"height": CROP, "width": CROP, "antialias": 2, **plain},
            "contrast": dict(contrast),
            "crop": {"unit": "anterior-distance", "extent": EXTENT, "anterior": "left"},
            "head": head,
            "bridge_threshold": 0.5,
            "abstain_below": 0.0,
        },
        "golden": {},
        "files": {},
        "provenance": {"architecture": "tiny"},
    }


def listed(document: dict[str, Any]) -> dict[str, Any]:
    """The manifest with an entry, of a file that is not there, for every network."""
    others = [files for other in document["localizer"].get("alternatives", []) for files in other["files"].values()]
    networks = [*document["localizer"]["files"].values(), *others, *document["grader"]["files"].values()]
    entries = {
        path: {"sha256": "0" * 64, "bytes": 1, "precision": p} for files in networks for p, path in files.items()
    }
    return {**document, "files": entries}


def localizer(
    greys: NDArray[np.float64],
    channels: int = 1,
    prefers_left: bool = False,
    right_px: float = 0,
    free: bool = False,
) -> onnx.ModelProto:
    """image -> heatmaps: blur of max(0, 1 - |image - grey k| / bandwidth), stride 4, centred on input pixels 4 i.

    If it is `free`, height and width are symbolic (and `prefers_left` does nothing).
    """
    span = np.arange(-BLUR_RADIUS_PX, BLUR_RADIUS_PX + 1)
    down, along = (np.exp(-((span + shift) ** 2) / (2 * BLUR_SIGMA_PX**2)) for shift in (0, right_px))
    dot = span[:, None] ** 2 + span[None] ** 2 <= (DOT_RADIUS_PX - 0.5) ** 2
    along *= 0.8 / np.outer(down, along)[dot].sum()
    count = len(greys)
    weights = {
        "first": np.eye(1, channels),
        "greys": greys.reshape(1, count, 1, 1),
        "slope": np.array(-1 / BANDWIDTH),
        "one": np.array(1.0),
        "down": np.broadcast_to(down[:, None], (count, 1, len(span), 1)),
        "along": np.broadcast_to(along, (count, 1, 1, len(span))),
        "side": np.where(np.arange(WIDTH // 4) < WIDTH // 8, 1.0, 0.5 if prefers_left else 1.0)[: 1 if free else None],
    }
    weights["first"] = weights["first"].reshape(1, channels, 1, 1)
    nodes = [
        helper.make_node("Conv", ["image", "first"], ["grey"]),
        helper.make_node("Sub", ["grey", "greys"], ["difference"]),
        helper.make_node("Abs", ["difference"], ["distance"]),
        helper.make_node("Mul", ["distance", "slope"], ["falling"]),
        helper.make_node("Add", ["falling", "one"], ["near"]),
        helper.make_node("Relu", ["near"], ["match"]),
        helper.make_node(
            "Conv", ["match", "down"], ["reduced"], group=count, strides=[4, 1], pads=[BLUR_RADIUS_PX, 0] * 2
        ),
        helper.make_node(
            "Conv", ["reduced", "along"], ["blurred"], group=count, strides=[1, 4], pads=[0, BLUR_RADIUS_PX] * 2
        ),
        helper.make_node("Mul", ["blurred", "side"], ["heatmaps"]),
    ]
    size, heatmap = (["h", "w"], ["rows", "columns"]) if free else ([HEIGHT, WIDTH], [HEIGHT // 4, WIDTH // 4])
    return _model(nodes, weights, [channels, *size], "heatmaps", [count, *heatmap])


def grader(network: str, head: str) -> onnx.ModelProto:
    """image -> logits from the mean grey of cells (0, 0) and (3, 0) of a 4 x 4 grid: the nearest grade's grey wins."""
    upper, lower = 0, 12  # cells of the flattened grid
    sharpness = 2000.0
    grades = {
        "corners": [
            (cell, grade) for cell in ([upper, lower] if head == "corners4" else [lower]) for grade in range(4)
        ],
        "grades": [(lower, grade) for grade in range(3)],
        "bridge": [],
    }[network]
    outputs = len(grades) or 2
    matrix, bias = np.zeros((16, outputs)), np.zeros(outputs)
    for output, (cell, grade) in enumerate(grades):
        matrix[cell, output] = 2 * sharpness * PATCH_GREYS[grade]
        bias[output] = -sharpness * PATCH_GREYS[grade] ** 2
    if network == "bridge":
        matrix[[upper, lower], 1] = sharpness / 2
        bias[1] = -sharpness * (PATCH_GREYS[2] + PATCH_GREYS[3]) / 2
    nodes = [
        helper.make_node("AveragePool", ["image"], ["cells"], kernel_shape=[CROP // 4] * 2, strides=[CROP // 4] * 2),
        helper.make_node("Flatten", ["cells"], ["flat"]),
        helper.make_node("Gemm", ["flat", "matrix", "bias"], ["logits"]),
    ]
    return _model(nodes, {"matrix": matrix, "bias": bias}, [1, CROP, CROP], "logits", [outputs])


def _model(
    nodes: list[onnx.NodeProto], weights: dict[str, NDArray[Any]], shape: list[Any], output: str, out_shape: list[Any]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", *out_shape])],
        [numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the network with weights and ends in half precision."""
    for end in (*model.graph.input, *model.graph.output):
        end.type.tensor_type.elem_type = TensorProto.FLOAT16
    for weight in model.graph.initializer:
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), weight.name))
    return model


def _entry(path: Path, precision: str) -> dict[str, Any]:
    data = path.read_bytes()
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "precision": precision}
