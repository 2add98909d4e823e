"""One study scored in many new processes: is there one answer, and is it right?

    python -m spinescore.benchmarks.processes [--bundle phantom-reference | keras] [--count 200] [--out F]

Each process is a `spinescore score` of the same phantom study with OpenVINO in INT8 (`--engine`, `--precision`),
accepted or not. An answer is all regions and the total of a report. It is right if the process ended with status 0, no
engine failed its self-test, and the corners' probabilities are on average no farther from those of FP32 than `--most`.

The bundle `keras` is made here: a narrow HRNet and a ResNet50 in Keras' layout, 224 pixels, both with random weights,
with the true points given, and its INT8 network with the strides where the FP32 network has them: the network that
OpenVINO 2026.4.1 computes wrongly on two streams (`spinescore.benchmarks.openvino_streams`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from spinescore.benchmarks.bench.subject import draw_study
from spinescore.benchmarks.records import publish
from spinescore.runtime.machine.processor import processor_kind, processor_name

__all__ = ["main", "measure", "write_keras_bundle"]

_KERAS = "keras"
_DEPTHS, _WIDTH, _OUTPUTS = (3, 4, 6, 3), 64, 8  # of keras.applications.ResNet50, with a head for both corners
_BRANCH_GAIN = 0.3  # of a block's last convolution, so that activations keep their magnitude

Report = dict[str, Any]


def write_keras_bundle(folder: Path) -> Path:
    """Export the bundle `keras` into `folder`; takes a minute. Needs the extra `export`."""
    from spinescore.export import sensitivity
    from spinescore.export.bundle import export_bundle

    weights = folder / "resnet50.npz"
    np.savez(weights, **_keras_tensors())  # type: ignore[arg-type]
    with mock.patch.object(sensitivity, "sample_first", lambda model: model):
        export_bundle("synthetic:hrnet-w16", str(weights), folder / "bundle", int8=True)
    return folder / "bundle"


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The record of all processes."""
    keras = arguments.bundle == _KERAS
    bundle = str(write_keras_bundle(folder)) if keras else arguments.bundle
    study = draw_study(folder)
    words = [*map(str, study.files), "--bundle", bundle, "--device", "cpu", "--json"]
    if keras:
        points = {
            region: {level: dict(zip(("centre_px", "anterior_px"), pair, strict=True)) for level, pair in discs.items()}
            for region, discs in study.points.items()
        }
        (folder / "points.json").write_text(json.dumps(points), encoding="utf-8")
        words += ["--keypoints", str(folder / "points.json")]
    _, reference = _score([*words, "--engine", "onnxruntime", "--precision", "fp32"])
    expected = _probabilities(reference)
    wanted = ["--engine", arguments.engine, "--precision", arguments.precision, "--unaccepted"]
    answers: dict[str, int] = {}
    right, differences = 0, []
    for _ in range(arguments.count):
        status, report = _score([*words, *wanted])
        text = json.dumps([report.get("regions"), report.get("total")])
        answers[text] = answers.get(text, 0) + 1
        found = _probabilities(report)
        differences.append(float(np.abs(found - expected).mean()) if found.shape == expected.shape else 1.0)
        right += status == 0 and differences[-1] <= arguments.most and not report["findings"]
    return {
        "protocol": " ".join(str(__doc__).split()),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "hardware": {"cpu": processor_name(), "kind": processor_kind()},
        "bundle": arguments.bundle,
        "device": report.get("device"),
        "phantom_seed": study.facts["phantom_seed"],
        "processes": arguments.count,
        "right": right,
        "answers": sorted(answers.values(), reverse=True),
        "mean_difference_of_probabilities": {"least": round(min(differences), 6), "most": round(max(differences), 6)},
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write the record; status 1 unless every process was right and all gave one answer."""
    parser = argparse.ArgumentParser(prog="python -m spinescore.benchmarks.processes", description=__doc__)
    parser.add_argument("--bundle", default="phantom-reference", metavar="B", help="a bundle, or `keras`")
    parser.add_argument("--count", type=int, default=200, metavar="N", help="processes (200)")
    parser.add_argument("--engine", default="openvino", metavar="E", help="engine (openvino)")
    parser.add_argument("--precision", default="int8", metavar="P", help="precision (int8)")
    parser.add_argument("--most", type=float, default=0.05, metavar="D", help="mean difference of probabilities (0.05)")
    parser.add_argument("--out", type=Path, metavar="F", help="write the record as JSON")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="spinescore-") as folder:
        record = measure(arguments, Path(folder))
    publish(record, arguments.out)
    return int(record["right"] != record["processes"] or len(record["answers"]) != 1)


def _score(words: Sequence[str]) -> tuple[int, Report]:
    command = [sys.executable, "-m", "spinescore.runtime.cli", "score", *words]
    found = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    try:
        report: Report = json.loads(found.stdout)
    except ValueError:  # refused: what it says is on standard error
        print(found.stderr, file=sys.stderr, end="")
        report = {}
    return found.returncode, report


def _probabilities(report: Report) -> NDArray[np.float64]:
    """p0 .. p3 of all corners that have any."""
    discs = [disc for region in report.get("regions", {}).values() for disc in region["discs"]]
    corners = [corner for disc in discs for corner in disc["corners"]]
    return np.array([corner["probabilities"] or [np.nan] * 4 for corner in corners], np.float64)


def _keras_tensors() -> dict[str, NDArray[np.float32]]:
    """Random weights of a ResNet50 under the names of keras.applications, batch normalisation without effect."""
    tensors: dict[str, NDArray[np.float32]] = {}
    for name, (kernel, inputs, outputs, gain) in _convolutions():
        rng = np.random.default_rng(len(tensors))
        scale = gain * np.sqrt(2 / (kernel * kernel * inputs))
        weights = rng.standard_normal((kernel, kernel, inputs, outputs)) * scale
        tensors[f"{name}_conv/kernel"] = weights.astype(np.float32)
        tensors[f"{name}_conv/bias"] = np.zeros(outputs, np.float32)
        for part, value in (("gamma", 1), ("beta", 0), ("moving_mean", 0), ("moving_variance", 1)):
            tensors[f"{name}_bn/{part}"] = np.full(outputs, value, np.float32)
    features = 4 * _WIDTH * 2 ** (len(_DEPTHS) - 1)
    dense = np.random.default_rng(0).standard_normal((features, _OUTPUTS)) * 0.02
    tensors["predictions/kernel"] = dense.astype(np.float32)
    tensors["predictions/bias"] = np.zeros(_OUTPUTS, np.float32)
    return tensors


def _convolutions() -> Iterator[tuple[str, tuple[int, int, int, float]]]:
    """Name, kernel, input and output channels, and gain of every convolution."""
    yield "conv1", (7, 3, _WIDTH, 1.0)
    inputs = _WIDTH
    for stage, depth in enumerate(_DEPTHS):
        inner = _WIDTH * 2**stage
        for block in range(1, depth + 1):
            prefix = f"conv{stage + 2}_block{block}"
            if block == 1:
                yield f"{prefix}_0", (1, inputs, 4 * inner, 0.7)
            yield f"{prefix}_1", (1, inputs, inner, 1.0)
            yield f"{prefix}_2", (3, inner, inner, 1.0)
            yield f"{prefix}_3", (1, inner, 4 * inner, _BRANCH_GAIN)
            inputs = 4 * inner


if __name__ == "__main__":
    sys.exit(main())
