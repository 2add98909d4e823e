"""The tiny bundle with golden inputs, and FP16 or INT8 files beside the FP32 ones: right, or of another network."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from helpers import tiny
from spinescore.kernels.average import AverageSpec, Run, average
from spinescore.runtime.acceptance import AcceptanceRecord, Figures
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.engines.sidecar import this_platform
from spinescore.runtime.machine.processor import processor_kind
from spinescore.runtime.manifest.tolerances import Tolerances

RIGHT = ((0, 1), (2, 0), (3, 3), (1, 1), (0, 2), (0, 0))


def write_golden_bundle(folder: Path, half: str = "right", **changes) -> Path:
    """`half` is `right`, `wrong` (the grader's columns are turned around), `broken` (not finite) or `none`.

    With `int8` the grader's FP32 file also stands for one in INT8; engines take a file's ends as they are.
    """
    int8 = changes.pop("int8", False)
    tiny.write_bundle(folder, **changes)
    document = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    document["golden"] = {kind: f"golden/{kind}.npz" for kind in ("localizer", "grader")}
    contents = {
        "golden/localizer.npz": _localizers(folder, document["localizer"]),
        "golden/grader.npz": _graders(folder, document["grader"]),
    }
    others = [files for other in document["localizer"].get("alternatives", []) for files in other["files"].values()]
    places = [*document["localizer"]["files"].values(), *others, *document["grader"]["files"].values()]
    for files in places if half != "none" else ():
        model = tiny.halved(onnx.load(str(folder / files["fp32"])))
        if files["fp32"].startswith("grader") and half != "right":
            _spoil(model, half)
        files["fp16"] = files["fp32"].replace("fp32", "fp16")
        contents[files["fp16"]] = model.SerializeToString()
    for files in document["grader"]["files"].values() if int8 else ():
        files["int8"] = files["fp32"].replace("fp32", "int8")
        contents[files["int8"]] = (folder / files["fp32"]).read_bytes()
    for name, data in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
        precision = name.split(".")[-2] if name.endswith(".onnx") else None
        document["files"][name] = {
            "sha256": hashlib.sha256(data).hexdigest(),
            "bytes": len(data),
            "precision": precision,
        }
    (folder / "bundle.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


def record_of(bundle: Bundle) -> AcceptanceRecord:
    """A record as the gate would make it, of networks that the bundle has."""
    names = [path for path, entry in bundle.manifest.files.items() if entry.precision == "fp32"]
    return AcceptanceRecord(
        bundle={"name": bundle.manifest.name, "sha256": bundle.sha256},
        device={"kind": "cpu", "hardware": processor_kind(), "platform": this_platform()},
        engine="onnxruntime",
        framework="onnxruntime 1.2.3",
        precision="fp16",
        networks={name: bundle.manifest.files[name].sha256 for name in names},
        figures=Figures(0.0, 96, 0.0, 0.0, 0.0, 0.0, 0.0, 96, 0.0, 0, 9, 9, 0),
        tolerances=Tolerances(),
        passed=True,
        networks_ms={"localizer both": 10.0, "grader corners": 15.0},
        reference_ms={"localizer both": 40.0, "grader corners": 60.0},
        date="2026-01-01T00:00:00+00:00",
    )


def _localizers(folder: Path, localizer: dict) -> bytes:
    test_time = localizer.get("test_time", {"scales": [1.0], "flip": False, "flip_shift": False})
    scales = [1.0, *(scale for scale in test_time["scales"] if scale != 1.0)]
    drawn = {
        (region, scale): tiny.draw(region, rows=int(tiny.HEIGHT * scale)).radiograph.pixels
        for region in tiny.REGIONS
        for scale in scales
    }
    files = localizer["files"]
    shared = files["cervical"] == files["lumbar"]
    roles = {"both": tiny.REGIONS} if shared else {region: (region,) for region in tiny.REGIONS}
    arrays = {}
    for role, regions in roles.items():
        shown = (*regions, regions[0])  # no whole number of batches
        images = {scale: np.stack([drawn[region, scale] for region in shown]) for scale in scales}
        for scale, pictures in images.items():
            arrays[f"image_{role}" if scale == 1.0 else f"image_{role}_x{scale:g}"] = pictures
        arrays[f"region_{role}"] = np.array([tiny.REGIONS.index(region) for region in shown], np.uint8)
        arrays[f"expected_{role}"] = _averaged(folder / files[regions[0]]["fp32"], images, test_time)
        for other in localizer.get("alternatives", []):
            path = folder / other["files"][regions[0]]["fp32"]
            arrays[f"expected_{role}_{other['name']}"] = _averaged(path, images, test_time)
    return _packed(arrays)


def _averaged(path: Path, images: dict[float, np.ndarray], test_time: dict) -> np.ndarray:
    flips = (False, True) if test_time["flip"] else (False,)
    runs = [Run(scale, flip) for scale in images for flip in flips]
    found = [_infer(path, images[run.scale][..., ::-1] if run.flipped else images[run.scale]) for run in runs]
    spec = AverageSpec(tuple(runs), "stride", 4, test_time["flip_shift"])
    return average(found, spec, found[0].shape[2:]).astype(np.float32)


def _graders(folder: Path, grader: dict) -> bytes:
    arrays = {}
    for role, files in grader["files"].items():
        flips = (True, False) if grader["head"] == "corner4" or role == "grades" else (False,)
        images = np.stack([_crop(pair, flip) for _ in range(2) for pair in RIGHT for flip in flips])
        arrays[f"image_{role}"], arrays[f"expected_{role}"] = images, _infer(folder / files["fp32"], images)
    return _packed(arrays)


def _crop(grades: tuple[int, int], flip: bool) -> np.ndarray:
    crop = np.zeros((tiny.CROP, tiny.CROP), np.uint8)
    cell = tiny.CROP // 4
    for place, grade in ((slice(None, cell), grades[0]), (slice(-cell, None), grades[1])):
        crop[place, :cell] = round(255 * tiny.PATCH_GREYS[grade])
    return crop[::-1] if flip else crop


def _infer(path: Path, pictures: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": pictures[:, None].astype(np.float32) / np.float32(255)})[0]


def _spoil(model: onnx.ModelProto, half: str) -> None:
    matrix = next(weight for weight in model.graph.initializer if weight.name == "matrix")
    values = numpy_helper.to_array(matrix)
    values = values[:, ::-1] if half == "wrong" else np.full_like(values, np.nan)
    matrix.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), "matrix"))


def _packed(arrays: dict[str, np.ndarray]) -> bytes:
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    return packed.getvalue()
