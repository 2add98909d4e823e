"""Measures the cost of averaging at test time: `python -m spinescore.benchmarks.testtime [--out F]`.

A bundle with an HRNet-W32 (random weights, 256 x 192) and a thin grader is exported for each setting: a flip; scales 1
and 1.5; both. In each round a study of two radiographs is scored with one run of the network and with all of them, and
the extra runs of the network alone are made on buffers of the same shapes: three turns in one process, so that a
restless machine disturbs all alike. `ratio` is (averaged - plain) / extra runs, of the medians. One thread; times are
the process' own processor time, which other programs' load changes little. Needs the extras `export` and, for OpenVINO,
`openvino`.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spinescore.benchmarks.harness.record import Command
from spinescore.benchmarks.harness.timing import elapsed_ms
from spinescore.runtime.phantom.labelled import write_labelled_study

__all__ = ["SCHEMA", "SETTINGS", "main", "measure"]

SCHEMA = "spinescore.testtime/2"
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
    """Return the medians of all three turns in milliseconds, and their ratio."""
    from spinescore.runtime.bundle import Bundle
    from spinescore.runtime.devices import open_device
    from spinescore.runtime.engines.choice import EngineChoice
    from spinescore.runtime.scorer import Scorer
    from spinescore.runtime.scoring.budget import Effort

    bundle = Bundle.open(path)
    choice = EngineChoice(*engine)
    device = open_device("cpu", 1, choice=choice)
    times: dict[str, list[float]] = {"plain": [], "averaged": [], "extra_runs": []}
    with Scorer(bundle, open_device("cpu", 1, choice=choice)) as scorer:

        def score(effort: Effort) -> float:
            scorer.give(effort)
            return elapsed_ms(lambda: scorer.score(study, keypoints=points), time.process_time)

        extra = _extra_runs(bundle, device)
        for _ in range(_WARM_UP + rounds):
            times["plain"].append(score(Effort(1)))
            times["averaged"].append(score(Effort(1, test_time=True)))
            times["extra_runs"].append(elapsed_ms(extra, time.process_time))
    device.close()
    medians = {f"{turn}_ms": round(float(np.median(ms[_WARM_UP:])), 2) for turn, ms in times.items()}
    averaged, plain, runs = (medians[f"{turn}_ms"] for turn in ("averaged", "plain", "extra_runs"))
    return {**medians, "ratio": round((averaged - plain) / runs, 3)}


def _extra_runs(bundle: Any, device: Any) -> Callable[[], None]:
    """Return a function that makes all runs of the localizer but the plain one, on both views."""
    from spinescore.runtime.scoring.networks import VIEWS, heatmap_size

    localizer = bundle.manifest.localizer
    (engine,) = device.engines([bundle.network(localizer.files["cervical"], device.precisions)])
    buffers = []
    for size in localizer.run_inputs[1:]:
        shape = (VIEWS, size.channels, size.height, size.width)
        images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        buffers.append((images, np.zeros((VIEWS, engine.output_shape[0], *heatmap_size(size)), np.float32)))

    def run() -> None:
        for images, heatmaps in buffers:
            device.run(engine, images, heatmaps)

    return run


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
