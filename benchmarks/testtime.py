"""Measures the cost of averaging at test time: `python -m spinescore.benchmarks.testtime [--out F]`.

A bundle with an HRNet-W32 (random weights, 256 x 192) and a thin grader is exported for each setting: a flip; scales 1
and 1.5; both. In each round a study of two radiographs is scored with one run and with all of them, and the extra runs
of the network alone are made on buffers of the same shapes: three turns in one process, so that a restless machine
disturbs all alike. `ratio` is (averaged - plain) / extra runs, of the medians. One thread; times are the process' own
processor time, which other programs' load changes little. Needs the extras `export` and, for OpenVINO, `openvino`.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from spinescore.benchmarks.bench.subject import draw_study
from spinescore.benchmarks.records import publish
from spinescore.runtime.machine.processor import processor_name

__all__ = ["SCHEMA", "SETTINGS", "main", "measure"]

SCHEMA = "spinescore.testtime/1"
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
    """A result for each setting and engine."""
    from spinescore.runtime.reading.studies import load_study

    drawn = draw_study(folder)
    study = load_study(*drawn.files)
    results = []
    for name, test_time in SETTINGS.items():
        bundle = _bundle(localizer, test_time, folder / name.replace(" ", "-"))
        results += [
            {"setting": name, "engine": " ".join(engine), **_turns(bundle, engine, study, drawn.points, rounds)}
            for engine in engines
        ]
    return results


def _bundle(localizer: str, test_time: dict[str, Any], folder: Path) -> Path:
    from spinescore.export.bundle import export_bundle

    fields = folder.with_suffix(".json")
    fields.write_text(json.dumps({"localizer": {"test_time": test_time}, "tolerances": _ANY}), encoding="utf-8")
    export_bundle(localizer, "synthetic:resnet50-w4", folder, manifest=fields, golden_studies=2, precisions=("fp32",))
    return folder


def _turns(path: Path, engine: tuple[str, str], study: Any, points: Any, rounds: int) -> dict[str, Any]:
    """The medians of all three turns in milliseconds, and their ratio."""
    from spinescore.runtime.bundle import Bundle
    from spinescore.runtime.devices import open_device
    from spinescore.runtime.engines.choice import EngineChoice
    from spinescore.runtime.scorer import Scorer
    from spinescore.runtime.scoring.budget import Effort

    bundle = Bundle.open(path)
    choice = EngineChoice(*engine)
    device = open_device("cpu", 1, choice=choice)
    extra = _extra_runs(bundle, device)
    times: dict[str, list[float]] = {"plain": [], "averaged": [], "extra_runs": []}
    with Scorer(bundle, open_device("cpu", 1, choice=choice)) as scorer:

        def scored(effort: Effort) -> Callable[[], object]:
            scorer.give(effort)
            return lambda: scorer.score(study, keypoints=points)

        for number in range(_WARM_UP + rounds):
            turns = {"plain": scored(Effort(1))}
            took = {"plain": _cpu_ms(turns["plain"])}
            took["averaged"] = _cpu_ms(scored(Effort(1, test_time=True)))
            took["extra_runs"] = _cpu_ms(extra)
            for turn, ms in took.items() if number >= _WARM_UP else ():
                times[turn].append(ms)
    device.close()
    medians = {f"{turn}_ms": round(float(np.median(found)), 2) for turn, found in times.items()}
    averaged, plain, runs = (medians[f"{turn}_ms"] for turn in ("averaged", "plain", "extra_runs"))
    return {**medians, "ratio": round((averaged - plain) / runs, 3)}


def _extra_runs(bundle: Any, device: Any) -> Callable[[], None]:
    """Runs of the localizer beside the plain one, on both views."""
    from spinescore.runtime.scoring.networks import VIEWS, heatmap_size

    localizer = bundle.manifest.localizer
    (engine,) = device.engines([bundle.network(localizer.files["cervical"], device.precisions)])
    ends = []
    for size in localizer.run_inputs[1:]:
        shape = (VIEWS, size.channels, size.height, size.width)
        images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        ends.append((images, np.zeros((VIEWS, engine.output_shape[0], *heatmap_size(size)), np.float32)))

    def run() -> None:
        for images, heatmaps in ends:
            device.run(engine, images, heatmaps)

    return run


def _cpu_ms(act: Callable[[], object]) -> float:
    started = time.process_time_ns()
    act()
    return (time.process_time_ns() - started) / 1e6


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m spinescore.benchmarks.testtime", description=__doc__)
    parser.add_argument("--localizer", default="synthetic:hrnet-w32", metavar="L", help="network (synthetic:hrnet-w32)")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="rounds that count (15)")
    parser.add_argument("--engine", action="append", metavar="E:P", help="as openvino:bf16; repeated (all on a CPU)")
    parser.add_argument("--out", type=Path, metavar="F", help="write the figures as JSON")
    arguments = parser.parse_args(argv)
    engines = [tuple(text.split(":", 1)) for text in arguments.engine or ()] or list(ENGINES)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    with tempfile.TemporaryDirectory(prefix="spinescore-") as scratch:
        results = measure(arguments.localizer, arguments.rounds, engines, Path(scratch))
    record = {
        "schema": SCHEMA,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": {"processor": processor_name(), "cores": os.cpu_count(), "load": load},
        "protocol": " ".join(str(__doc__).split()),
        "localizer": arguments.localizer,
        "rounds": arguments.rounds,
        "results": results,
    }
    publish(record, arguments.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
