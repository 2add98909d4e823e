"""The tiny bundle with a grader in Keras' layout, in INT8 as exporters wrote it that left the strides where they were.

On two streams of one compiled model OpenVINO 2026.4.1 computes such a network with weights that it did not scale, in
most processes.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from helpers import tiny
from helpers.golden_bundle import write_golden_bundle
from helpers.golden_networks import unpacked
from spinescore.export.checkpoints import read_checkpoint
from spinescore.export.int8 import calibrate, layers, quantize
from spinescore.export.resnet152 import build_resnet
from spinescore.export.sessions import run_model
from spinescore.runtime.manifest.tolerances import Tolerances

CHANNELS, CROPS = 3, 24  # two radiographs of six discs, each crop as it is and flipped
LOOSE = Tolerances(grade_flips=1.0, radiograph_total=36.0)  # random weights: what 8 bits change is no matter here


def write_keras_bundle(folder: Path) -> Path:
    size = {f"grader.input.{name}": [value] * CHANNELS for name, value in (("mean", 0.5), ("std", 0.25))}
    changes = {"grader.head": "corner4", "grader.input.channels": 1, "tolerances": asdict(LOOSE)}
    write_golden_bundle(folder, "none", int8=True, **changes)
    checkpoint = unpacked("keras-resnet50-corner4.h5", folder)
    plain = build_resnet(read_checkpoint(checkpoint).tensors, tiny.CROP, tiny.CROP)
    checkpoint.unlink()
    pictures = np.random.default_rng(0).integers(0, 256, (CROPS, 8, 8), np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    images = np.repeat((pictures[:, None] / np.float32(255) - np.float32(0.5)) / np.float32(0.25), CHANNELS, axis=1)
    images = images.astype(np.float32)
    weighted = layers(plain, "Conv", "Gemm")
    rounded = quantize(plain, calibrate(plain, images)["extremes"], {weighted[0], weighted[-1]})
    packed = io.BytesIO()
    np.savez(packed, image_corners=pictures, expected_corners=run_model(plain, images, "FP32"))
    contents = {
        "grader-corners.fp32.onnx": plain.SerializeToString(),
        "grader-corners.int8.onnx": rounded.SerializeToString(),
        "golden/grader.npz": packed.getvalue(),
    }
    document = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    document["grader"]["input"] |= {"channels": CHANNELS, **{name.split(".")[-1]: v for name, v in size.items()}}
    for name, data in contents.items():
        (folder / name).write_bytes(data)
        document["files"][name] |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (folder / "bundle.json").write_text(json.dumps(document), encoding="utf-8")
    return folder
