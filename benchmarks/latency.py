"""Latency of a whole study, stage by stage, beside its two networks alone (`spinescore bench`).

Both are timed in the same rounds, so that they see the same machine; `_PROTOCOL` goes with every record.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spinescore.runtime.gateverb import add_engine_arguments
from spinescore.runtime.study import REGIONS

if TYPE_CHECKING:
    from spinescore.runtime.bundle import Bundle
    from spinescore.runtime.devices import Device
    from spinescore.runtime.report import StudyReport
    from spinescore.runtime.scorer import Scorer

__all__ = ["PhantomStudy", "add_arguments", "draw_study", "main", "measure", "run"]

SCHEMA = "spinescore.latency/1"
FULL_SIZE = "synthetic"  # HRNet-W32 and ResNet152 with random weights: the sizes that people bring
_FIRST_SEED = 2_000_003
_STAGES = ("read", "localize", "crop", "grade", "total")
_SETTLE_S = 0.2  # the threads of an engine that has just run wait for more work in a loop, and would slow the next one
_PROTOCOL = """
    One process, files in the page cache, engines open and warm. Every round times one whole study, from the paths of
    two uncompressed DICOM files to the report object (read, grey-scale table, localizer passes, decoding, crops,
    grading, report), and then its networks alone: the same engine calls on inputs of the same shapes, precision and
    threads, in one session a network; before each the process rests 0.2 s. Stages are those that the reports state;
    total is all of them. Random networks find no spine, so the phantom's true points are given in place of theirs;
    their localizer runs all the same."""


@dataclass(frozen=True)
class Rounds:
    """Milliseconds, one entry per round; `stages` as the reports state them."""

    whole_ms: list[float]
    networks_ms: list[float]
    stages_ms: dict[str, list[float]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `spinescore bench`."""
    parser.add_argument(
        "--bundle",
        nargs="+",
        default=["phantom-reference", FULL_SIZE],
        metavar="B",
        help=f"bundles to measure; {FULL_SIZE} is HRNet-W32 and ResNet152 with random weights (both by default)",
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to run (auto)")
    add_engine_arguments(parser)
    parser.add_argument("--runs", type=int, default=20, metavar="N", help="rounds that are counted (20)")
    parser.add_argument("--warmup", type=int, default=3, metavar="N", help="rounds before them (3)")
    parser.add_argument("--out", type=Path, metavar="F", help="write the figures as JSON")
    parser.add_argument("--json", action="store_true", help="print the JSON instead of the table")


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m spinescore.benchmarks.latency`: the same as `spinescore bench`."""
    from spinescore.runtime import cli

    return cli.main(["bench", *(sys.argv[1:] if argv is None else argv)])


def run(arguments: argparse.Namespace) -> int:
    """Measure, print and write. Returns the exit status."""
    from spinescore.runtime.output import write_atomic
    from spinescore.runtime.verbs import OK, UsageError

    if arguments.runs < 1 or arguments.warmup < 0:
        raise UsageError("--runs must be at least 1 and --warmup at least 0")
    document = _document()
    with tempfile.TemporaryDirectory(prefix="spinescore-") as name:
        scratch = Path(name)
        study = draw_study(scratch)
        document["study"] = study.facts
        for bundle in arguments.bundle:
            random = bundle == FULL_SIZE
            folder = _full_size(scratch) if random else bundle
            _say(f"{bundle}: {arguments.warmup} rounds of warm-up, {arguments.runs} rounds that count")
            options = {
                "engine": arguments.engine,
                "precision": arguments.precision,
                "require_acceptance": not arguments.unaccepted,
                "build": "no",
            }
            figures = measure(folder, study, arguments.device, arguments.runs, arguments.warmup, random, **options)
            document["results"].append(figures)
    text = json.dumps(document, indent=2)
    if arguments.out is not None:
        write_atomic(arguments.out, text + "\n")
    print(text if arguments.json else _table(document))
    return OK


def measure(
    bundle: str | Path,
    study: PhantomStudy,
    device: str,
    runs: int,
    warmup: int,
    give_points: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """The figures of one bundle on one study: percentiles of the study, of its stages and of its networks alone.

    `options` are those of `Scorer.open` that choose the engine.
    """
    from spinescore.runtime import Scorer, load_study

    started = time.perf_counter()
    with Scorer.open(bundle, device, **options) as scorer:
        open_ms = (time.perf_counter() - started) * 1e3
        points = study.points if give_points else None

        def whole() -> StudyReport:
            return scorer.score(load_study(*study.files), keypoints=points)

        with _networks(scorer, whole().device.kind) as networks:
            _rounds(whole, networks, warmup)
            rounds = _rounds(whole, networks, runs)
        report = whole()
    whole_ms, networks_ms = float(np.median(rounds.whole_ms)), float(np.median(rounds.networks_ms))
    return {
        "bundle": {"name": report.bundle.name, "version": report.bundle.version, "sha256": report.bundle.sha256},
        "device": vars(report.device),
        "engine_calls": [[*files.values(), batch] for files, batch in _plan(scorer.bundle)],
        "regions": {name: region.status for name, region in report.regions.items()},
        "given_points": give_points,
        "warm_up_rounds": warmup,
        "rounds": runs,
        "open_ms": round(open_ms, 1),
        "whole_ms": _percentiles(rounds.whole_ms),
        "networks_ms": _percentiles(rounds.networks_ms),
        "stages_ms": {stage: _percentiles(values) for stage, values in rounds.stages_ms.items() if values},
        "ratio_of_medians": round(whole_ms / networks_ms, 4),
        "own_ms": round(whole_ms - networks_ms, 2),
    }


def _rounds(whole: Callable[[], StudyReport], networks: Callable[[], None], runs: int) -> Rounds:
    rounds = Rounds([], [], {stage: [] for stage in _STAGES})
    for _ in range(runs):
        report, elapsed_ms = _timed(whole)
        rounds.whole_ms.append(elapsed_ms)
        rounds.networks_ms.append(_timed(networks)[1])
        for stage in _STAGES:
            value = getattr(report.timings_ms, stage)
            if value is not None:
                rounds.stages_ms[stage].append(value)
    return rounds


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    time.sleep(_SETTLE_S)
    started = time.perf_counter()
    result = call()
    return result, (time.perf_counter() - started) * 1e3


@contextmanager
def _networks(scorer: Scorer, kind: str) -> Iterator[Callable[[], None]]:
    """A function that runs a study's networks, as often and with the batches that the pipeline has."""
    from spinescore.runtime.devices import open_device

    bundle, opened = scorer.bundle, open_device(kind, choice=scorer.choice)
    try:
        plan = _plan(bundle)
        once = {(*files.values(), batch): _call(opened, bundle, files, batch) for files, batch in plan}
        calls = [once[(*files.values(), batch)] for files, batch in plan]

        def run_all() -> None:
            for call in calls:
                call()
            opened.synchronise()

        run_all()
        yield run_all
    finally:
        opened.close()


def _plan(bundle: Bundle) -> list[tuple[Mapping[str, str], int]]:
    """The engine calls of one study, in order: a network's files by precision, and the batch."""
    from spinescore.runtime.manifest import HEAD_OUTPUTS
    from spinescore.runtime.pipeline import FLIPS

    localizer, grader = bundle.manifest.localizer, bundle.manifest.grader
    one_pass = [(localizer.files[region], 2 if localizer.shared else 1) for region in REGIONS]
    plan = (one_pass[:1] if localizer.shared else one_pass) * localizer.passes
    sites = [(role, len(FLIPS[f"{role}{outputs}"])) for role, outputs in HEAD_OUTPUTS[grader.head].items()]
    return plan + [(grader.files[role], 12 * flips) for role, flips in sites]


def _call(device: Device[Any], bundle: Bundle, files: Mapping[str, str], batch: int) -> Callable[[], None]:
    engine = device.engine(*bundle.network(files, device.precisions))
    inputs = device.allocate((batch, *engine.input_shape), engine.dtype)
    outputs = device.allocate((batch, *engine.output_shape), engine.dtype)
    device.write(inputs, np.random.default_rng(0).standard_normal(inputs.shape).astype(engine.dtype))
    return lambda: device.run(engine, inputs, outputs)


@dataclass(frozen=True)
class PhantomStudy:
    """The study that is scored, its true points (region -> level -> centre, anterior), and facts for the record."""

    files: list[Path]
    points: dict[str, dict[str, tuple[list[float], list[float]]]]
    facts: dict[str, Any]


def draw_study(scratch: Path) -> PhantomStudy:
    """The first phantom whose headers state region and facing, so that no run asks the localizer for them."""
    from spinescore.benchmarks.phantom import write_study
    from spinescore.runtime import load_study

    for seed in itertools.count(_FIRST_SEED):
        folder = scratch / f"study-{seed}"
        write_study(seed, folder)
        files = sorted(folder.glob("*.dcm"))
        radiographs = load_study(*files).radiographs
        if all(radiograph.region and radiograph.facing for radiograph in radiographs):
            break
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))["regions"]
    points = {
        region: {disc["level"]: (disc["centre_px"], disc["anterior_px"]) for disc in view["discs"]}
        for region, view in truth.items()
    }
    images = [{"rows": r.rows, "columns": r.columns, "bytes_per_pixel": r.pixels.itemsize} for r in radiographs]
    return PhantomStudy(files, points, {"phantom_seed": seed, "transfer_syntax": "uncompressed", "images": images})


def _full_size(scratch: Path) -> Path:
    """A bundle of HRNet-W32 and ResNet152 with random weights."""
    from spinescore.export.bundle import export_bundle

    folder = scratch / "synthetic-w32-resnet152"
    _say("exporting HRNet-W32 and ResNet152 with random weights")
    export_bundle("synthetic:hrnet-w32", "synthetic:resnet152", folder)
    return folder


def _document() -> dict[str, Any]:
    """The record's head: when, on what, with which versions, and by which protocol."""
    from importlib import metadata

    from spinescore.runtime.doctor import hardware

    packages = ("spinescore", "numpy", "onnxruntime", "opencv-python-headless", "pydicom")
    return {
        "schema": SCHEMA,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "hardware": hardware(),
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}},
        "protocol": " ".join(_PROTOCOL.split()),
        "results": [],
    }


def _percentiles(values_ms: Sequence[float]) -> dict[str, float]:
    p50, p90, p99 = np.percentile(values_ms, [50, 90, 99])
    return {"p50": round(p50, 3), "p90": round(p90, 3), "p99": round(p99, 3), "max": round(max(values_ms), 3)}


def _table(document: Mapping[str, Any]) -> str:
    """The figures of all bundles as text."""
    from spinescore.runtime.output import table

    hardware = document["hardware"]
    parts = [f"{hardware['cpu']}, {hardware['cores']} cores, {document['date']}"]
    for result in document["results"]:
        measured = [("whole study", result["whole_ms"]), *((f"  {s}", p) for s, p in result["stages_ms"].items())]
        rows = [[name, *(f"{p[key]:.1f}" for key in ("p50", "p90", "p99", "max"))] for name, p in measured]
        rows.append(["networks alone", *(f"{result['networks_ms'][key]:.1f}" for key in ("p50", "p90", "p99", "max"))])
        device = result["device"]
        parts.append(
            f"{result['bundle']['name']} on {device['kind']}, {device['engine']}, {device['precision']}, "
            f"{result['rounds']} rounds, milliseconds\n"
            + table(rows, ["", "p50", "p90", "p99", "max"])
            + f"\nwhole study / networks alone: {result['ratio_of_medians']:.3f} ({result['own_ms']:.1f} ms more)"
        )
    return "\n\n".join([*parts, document["protocol"]])


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
