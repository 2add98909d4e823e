"""Scores one study in many new processes: is there one answer, and is it right?

    python -m spinescore.benchmarks.processes [--bundle phantom-reference | keras] [--count 200] [--out F]

Each process is a `spinescore score` of the same phantom study with OpenVINO in INT8 (`--engine`, `--precision`),
accepted or not. An answer is all regions and the total of a report. It is right if the process ended with status 0, no
engine failed its self-test, and the corners' probabilities are on average no farther from those of FP32 than `--most`.

The bundle `keras` is exported here: a narrow HRNet and a ResNet50 in Keras' layout, 224 pixels, both with random
weights, with the true points given, and its INT8 network with the strides of the FP32 network: the network that
OpenVINO 2026.4.1 computes wrongly on two streams (`spinescore.benchmarks.openvino_streams`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from spinescore.benchmarks.harness.child import SPINESCORE
from spinescore.benchmarks.harness.record import Command
from spinescore.runtime.phantom.labelled import keypoints_json, write_labelled_study

__all__ = ["SCHEMA", "main", "measure", "write_keras_bundle"]

SCHEMA = "spinescore.processes/1"

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
    """Score the study in all processes; returns the figures."""
    keras = arguments.bundle == _KERAS
    bundle = str(write_keras_bundle(folder)) if keras else arguments.bundle
    study = write_labelled_study(folder)
    words = [*map(str, study.files), "--bundle", bundle, "--device", "cpu", "--json"]
    if keras:
        (folder / "points.json").write_text(keypoints_json(study.points), encoding="utf-8")
        words += ["--keypoints", str(folder / "points.json")]
    _, reference = _score([*words, "--engine", "onnxruntime", "--precision", "fp32"])
    expected = _probabilities(reference)
    options = ["--engine", arguments.engine, "--precision", arguments.precision, "--unaccepted"]
    answers: dict[str, int] = {}
    right, differences = 0, []
    for _ in range(arguments.count):
        status, report = _score([*words, *options])
        text = json.dumps([report.get("regions"), report.get("total")])
        answers[text] = answers.get(text, 0) + 1
        values = _probabilities(report)
        differences.append(float(np.abs(values - expected).mean()) if values.shape == expected.shape else 1.0)
        right += status == 0 and differences[-1] <= arguments.most and not report["findings"]
    return {
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
    command = Command("processes", SCHEMA, __doc__)
    add = command.options.add_argument
    add("--bundle", default="phantom-reference", metavar="B", help="a bundle, or `keras`")
    add("--count", type=int, default=200, metavar="N", help="processes (200)")
    add("--engine", default="openvino", metavar="E", help="engine (openvino)")
    add("--precision", default="int8", metavar="P", help="precision (int8)")
    add("--most", type=float, default=0.05, metavar="D", help="mean difference of probabilities (0.05)")
    arguments = command.start(argv)
    with tempfile.TemporaryDirectory(prefix="spinescore-") as folder:
        record = command.publish(measure(arguments, Path(folder)))
    return int(record["right"] != record["processes"] or len(record["answers"]) != 1)


def _score(words: Sequence[str]) -> tuple[int, Report]:
    """Return exit status and report of `spinescore score`; an empty report if it was refused."""
    done = subprocess.run([*SPINESCORE, "score", *words], capture_output=True, text=True, encoding="utf-8")
    try:
        report: Report = json.loads(done.stdout)
    except ValueError:
        print(done.stderr, file=sys.stderr, end="")
        report = {}
    return done.returncode, report


def _probabilities(report: Report) -> NDArray[np.float64]:
    """Return p0 .. p3 of all corners, NaN for a corner without."""
    discs = [disc for region in report.get("regions", {}).values() for disc in region["discs"]]
    corners = [corner for disc in discs for corner in disc["corners"]]
    return np.array([corner["probabilities"] or [np.nan] * 4 for corner in corners], np.float64)


def _keras_tensors() -> dict[str, NDArray[np.float32]]:
    """Return random weights of a ResNet50 under the names of keras.applications; batch normalisation has no effect."""
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
    """Yield name, kernel, input and output channels, and gain of every convolution."""
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
