"""Scores one study in many new processes: is there one answer, and is it right?

    python -m spinescore.benchmarks.processes [--bundle phantom-reference] [--count 200] [--out F]

Each process is a `spinescore score` of the same phantom study with OpenVINO in INT8 (`--engine`, `--precision`),
accepted or not. An answer is all regions and the total of a report. It is right if the process ended with status 0, no
engine failed its self-test, and the corners' probabilities are on average no farther from those of FP32 than `--most`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.benchmarks.harness.child import SPINESCORE
from spinescore.benchmarks.harness.record import Command
from spinescore.runtime.phantom.labelled import write_labelled_study

__all__ = ["SCHEMA", "main", "measure"]

SCHEMA = "spinescore.processes/1"

Report = dict[str, Any]


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Score the study in all processes; returns the figures."""
    study = write_labelled_study(folder)
    words = [*map(str, study.files), "--bundle", arguments.bundle, "--device", "cpu", "--json"]
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
    add("--bundle", default="phantom-reference", metavar="B", help="bundle (phantom-reference)")
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


if __name__ == "__main__":
    sys.exit(main())
