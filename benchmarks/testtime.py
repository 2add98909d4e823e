"""Measures the cost of averaging at test time: `python -m spinescore.benchmarks.testtime [--out F]`.

A bundle with an HRNet-W32 (random weights, 256 x 192) and a thin grader is exported for each setting: a flip; scales 1
and 1.5; both. In each round a study of two radiographs is scored with one run of the localizer and with all of them.
Within each study the networks' runs are timed apart from everything else. `extra_runs_ms` is the time of the averaged
study's networks above that of the plain study's, and `beside_ms` the same of everything else: both are medians over
the rounds. `ratio` is (extra runs + beside) / extra runs. One thread; times are the process' own processor time, which
other programs' load changes little. Needs the extras `export` and, for OpenVINO, `openvino`.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spinescore.benchmarks.harness.record import Command
from spinescore.benchmarks.harness.timing import elapsed_ms
from spinescore.runtime.phantom.labelled import write_labelled_study

__all__ = ["SCHEMA", "SETTINGS", "main", "measure"]

SCHEMA = "spinescore.testtime/3"
SETTINGS: dict[str, dict[str, Any]] = {
    "flip": {"flip": True},
    "scales": {"scales": [1.0, 1.5]},
    "scales and flip": {"scales": [1.0, 1.5], "flip": True},
}
ENGINES = (("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"))
_WARM_UP = 2
_ANY = {  # random weights have no points that a self-test could find again
    "heatmap_difference": 1e3,
    "median_shift_px": 1e3,
    "p99_shift_px": 1e3,
    "logit_difference": 1e3,
    "grade_flips": 1.0,
    "radiograph_total": 36.0,
}


def measure(localizer: str, rounds: int, engines: Sequence[tuple[str, str]], folder: Path) -> list[dict[str, Any]]:
    """Return a result for each setting and engine."""
    from spinescore.runtime.reading.studies import load_study

    phantom = write_labelled_study(folder)
    study = load_study(*phantom.files)
    results = []
    for name, test_time in SETTINGS.items():
        bundle = _export(localizer, test_time, folder / name.replace(" ", "-"))
        results += [
            {"setting": name, "engine": " ".join(engine), **_turns(bundle, engine, study, phantom.points, rounds)}
            for engine in engines
        ]
    return results


def _export(localizer: str, test_time: dict[str, Any], folder: Path) -> Path:
    from spinescore.export.bundle import export_bundle

    fields = folder.with_suffix(".json")
    fields.write_text(json.dumps({"localizer": {"test_time": test_time}, "tolerances": _ANY}), encoding="utf-8")
    export_bundle(localizer, "synthetic:resnet50-w4", folder, manifest=fields, golden_studies=2, precisions=("fp32",))
    return folder


def _turns(path: Path, engine: tuple[str, str], study: Any, points: Any, rounds: int) -> dict[str, Any]:
    """Return the medians over the rounds in milliseconds, and the ratio."""
    from spinescore.runtime.bundle import Bundle
    from spinescore.runtime.devices import open_device
    from spinescore.runtime.engines.choice import EngineChoice
    from spinescore.runtime.scorer import Scorer
    from spinescore.runtime.scoring.budget import Effort

    device = open_device("cpu", 1, choice=EngineChoice(*engine))
    runs_ms = _timed_runs(device)
    differences = []  # of each round: networks, everything else
    plain_ms = []
    with Scorer(Bundle.open(path), device) as scorer:

        def score(effort: Effort) -> np.ndarray[Any, Any]:
            """Return the milliseconds of the study's network runs, and of everything else."""
            scorer.give(effort)
            runs_ms.clear()
            whole_ms = elapsed_ms(lambda: scorer.score(study, keypoints=points), time.process_time)
            return np.array([sum(runs_ms), whole_ms - sum(runs_ms)])

        for _ in range(_WARM_UP + rounds):
            plain, averaged = score(Effort(1)), score(Effort(1, test_time=True))
            plain_ms.append(plain.sum())
            differences.append(averaged - plain)
    extra_runs, beside = np.median(differences[_WARM_UP:], axis=0)
    return {
        "plain_ms": round(float(np.median(plain_ms[_WARM_UP:])), 2),
        "extra_runs_ms": round(float(extra_runs), 2),
        "beside_ms": round(float(beside), 2),
        "ratio": round(float((extra_runs + beside) / extra_runs), 3),
    }


def _timed_runs(device: Any) -> list[float]:
    """Have the device time its network runs; return the list to which each run adds its milliseconds."""
    runs_ms: list[float] = []
    run = device.run

    def timed(*arguments: Any) -> None:
        runs_ms.append(elapsed_ms(lambda: run(*arguments), time.process_time))

    device.run = timed
    return runs_ms


def main(argv: Sequence[str] | None = None) -> int:
    command = Command("testtime", SCHEMA, __doc__)
    add = command.options.add_argument
    add("--localizer", default="synthetic:hrnet-w32", metavar="L", help="network (synthetic:hrnet-w32)")
    add("--rounds", type=int, default=15, metavar="N", help="rounds that count (15)")
    add("--engine", action="append", metavar="E:P", help="an engine as openvino:bf16; may be repeated (three of a CPU)")
    arguments = command.start(argv)
    engines = [tuple(text.split(":", 1)) for text in arguments.engine or ()] or list(ENGINES)
    with tempfile.TemporaryDirectory(prefix="spinescore-") as scratch:
        results = measure(arguments.localizer, arguments.rounds, engines, Path(scratch))
    command.publish({"localizer": arguments.localizer, "rounds": arguments.rounds, "results": results})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
